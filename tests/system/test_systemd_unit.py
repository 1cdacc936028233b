"""The unit with options of its own: a user, credentials, a mount namespace, what forbids to mount; and its fields."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.installed import CONFIG, DROP_INS, has_reason, is_live, journal, mounts, prepare, status, version
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

SOON_S = 90.0
CREDENTIAL = "[Service]\nLoadCredential=s3-secret:/etc/mountd/secrets/key\n"
WITH_CREDENTIAL = CONFIG.replace("{file: /etc/mountd/secrets/key}", "{credential: s3-secret}")
WORST = 9.4
"""Of systemd-analyze security: 10 is a unit that sets nothing."""


def test_a_user_of_its_own_its_group_credentials_and_the_journal(disk: Path) -> None:
    machine = prepare(disk, "--user", config=WITH_CREDENTIAL)
    machine.write(f"{DROP_INS}/credential.conf", CREDENTIAL)
    with (disk / "etc/fuse.conf").open("a") as conf:
        conf.write("user_allow_other\n")
    with machine:
        machine.run("useradd", "-G", "mountd", "alice")
        machine.run("useradd", "bob")
        until(lambda: is_live(machine), SOON_S, "mountd and what waits for it")
        for name in (machine.property("MainPID"), status(machine)["mounts"]["storage"]["pid"]):
            assert machine.out("stat", "-c", "%U", f"/proc/{name}") == "mountd"
        # Root finds it, its group as well, others do not; state is where the unit has it.
        assert machine.run("runuser", "-u", "alice", "--", "mountd", "status").returncode == 0
        machine.run("runuser", "-u", "alice", "--", "mountd", "switch", "v22")
        assert json.loads(machine.out("mountd", "history", "-o", "json"))["history"][0]["operator"] == "alice"
        assert machine.run("runuser", "-u", "bob", "--", "mountd", "status", check=False).returncode == 8
        assert machine.out("stat", "-c", "%U", "/var/lib/mountd/mountd.db") == "mountd"
        assert "storage" in machine.out("ls", "/var/cache/mountd").split()

        # Outside of the unit: nothing fails for a credential that the unit passes.
        machine.run("mountd", "config", "check")
        examined = machine.run("mountd", "doctor", "-o", "json", check=False)
        checks = {check["name"]: check for check in json.loads(examined.stdout)["checks"]}
        assert [check for check in checks.values() if check["result"] == "fail"] == []
        assert checks["credential s3-secret"]["result"] == "ok"
        assert checks["mounting"]["result"] == "ok"

        machine.kill("KILL", status(machine)["mounts"]["storage"]["pid"])
        until(lambda: "4" in {each["PRIORITY"] for each in journal(machine, "-t", "mountd")}, 60, "a warning")
        entries = journal(machine, "-t", "mountd")
        assert {each["PRIORITY"] for each in entries} <= {"3", "4", "6"}
        texts = [each["MESSAGE"] for each in entries]
        assert any(text.startswith("mountd starts version=") for text in texts)
        assert not [text for text in texts if text.startswith(("{", "<")) or re.match(r"\d{4}-", text)]
        for match in ("MOUNTD_MOUNT=storage", "MOUNTD_MODEL=cache_hub", "MOUNTD_EVENT=mountd starts"):
            found = journal(machine, match)
            assert found
            assert {each["_SYSTEMD_UNIT"] for each in found} == {"mountd.service"}
        assert {each["_SYSTEMD_UNIT"] for each in entries} == {"mountd.service"}


def test_systemd_understands_the_units_and_rates_them(disk: Path) -> None:
    with prepare(disk) as machine:
        for unit in ("mountd.service", "mountd-ready.service", "mountd@gpu1.service", "mountd-ready@gpu1.service"):
            assert machine.run("systemd-analyze", "verify", "--man=no", unit).stderr == ""
        rated = json.loads(machine.out("systemd-analyze", "security", "--json=short", "mountd"))
        assert rated
        overall = machine.out("systemd-analyze", "security", "--no-pager", "mountd").splitlines()[-1]
        score = re.search(r"([0-9.]+) ", overall)
        assert score is not None
        assert float(score[1]) <= WORST, overall


# Not PrivateTmp=yes: below /tmp this checkout, which the machine runs mountd from, would be hidden as well.
@pytest.mark.parametrize("option", ["ProtectSystem=full", "PrivateMounts=yes"])
def test_a_mount_namespace_hides_the_mount_and_mountd_says_so(disk: Path, option: str) -> None:
    machine = prepare(disk)
    machine.write(f"{DROP_INS}/hide.conf", f"[Service]\n{option}\n")
    with machine:
        until(lambda: has_reason(machine, "mount-not-visible"), SOON_S, "the reason")
        assert status(machine)["health"] == "Degraded"
        assert mounts(machine) == 0, "the machine does not see it"
        (disk / f"{DROP_INS}/hide.conf".lstrip("/")).unlink()
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "mountd")
        until(lambda: is_live(machine), SOON_S, "mountd and what waits for it")
        assert not has_reason(machine, "mount-not-visible")
        assert (mounts(machine), version(machine)) == (1, "v23")


def test_what_sets_no_new_privileges_forbids_the_user_to_mount_and_mountd_says_what(disk: Path) -> None:
    machine = prepare(disk, "--user", config=WITH_CREDENTIAL.replace("cache: {min", "allow_other: false, cache: {min"))
    machine.write(f"{DROP_INS}/credential.conf", CREDENTIAL + "LockPersonality=yes\n")
    with machine:
        until(lambda: has_reason(machine, "mount-refused"), SOON_S, "the reason")
        (reason,) = [each for each in status(machine)["reasons"] if each["code"] == "mount-refused"]
        assert "NoNewPrivileges" in reason["hint"]
        assert machine.state("mountd") == "active"


def test_an_app_that_takes_too_much_memory_ends_alone(disk: Path) -> None:
    """Where the kernel passes no memory controller to the machine of the test, mountd says that instead."""
    hungry = "x = bytearray(200 << 20); import time; time.sleep(1000)"
    app = f"""\
apps:
  hungry:
    command: [python3, -c, "{hungry}"]
    user: nobody
    needs: [cache_hub]
    limits: {{memory: 50M, cpu: 0.5}}
"""
    with prepare(disk, config=CONFIG + app) as machine:
        until(lambda: "hungry" in status(machine)["apps"], SOON_S, "the daemon")
        controllers = machine.out("cat", "/sys/fs/cgroup/cgroup.controllers").split()
        if {"memory", "cpu"} <= {*controllers}:
            until(lambda: has_reason(machine, "app-out-of-memory"), SOON_S, "the kernel to end it")
            group = machine.out("sh", "-c", "cat /sys/fs/cgroup/system.slice/mountd.service/mountd-*-hungry/cpu.max")
            assert group == "50000 100000"
        else:
            matches = ("MOUNTD_EVENT=limits of the app are not in effect", "MOUNTD_APP=hungry")
            until(lambda: journal(machine, *matches), SOON_S, "a warning")
        assert machine.property("NRestarts") == "0"
        assert (mounts(machine), version(machine)) == (1, "v23")


@pytest.mark.thorough
def test_two_instances_side_by_side(disk: Path) -> None:
    """Each with a socket of its own, found by its file; the end of one leaves the other's alone."""
    machine = prepare(disk)
    config = CONFIG.replace("/srv/mountd/", "/srv/mountd/gpu1/") + "http: {listen: 127.0.0.1:8781}\n"
    machine.write("/etc/mountd/gpu1.yaml", config)
    with machine:
        until(lambda: is_live(machine), SOON_S, "mountd and what waits for it")
        machine.run("systemctl", "enable", "--now", "mountd@gpu1")
        until(lambda: machine.state("mountd-ready@gpu1") == "active", SOON_S, "the other one")
        machine.run("mountd", "-c", "/etc/mountd/gpu1.yaml", "switch", "v22")
        assert machine.out("cat", "/srv/mountd/gpu1/cache_hub/gpt.pth") == "v22"
        assert version(machine) == "v23"
        machine.run("systemctl", "stop", "mountd")
        assert machine.run("mountd", "-c", "/etc/mountd/gpu1.yaml", "status").returncode == 0
        assert machine.out("cat", "/srv/mountd/gpu1/cache_hub/gpt.pth") == "v22"
