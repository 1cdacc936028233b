"""The shipped units under a real systemd: the boot with and without a bucket, faults, reload, stop, upgrade."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from tests.support import installed, nspawn
from tests.support.installed import (
    CONFIG,
    LINK,
    has_reason,
    is_live,
    mounts,
    prepare,
    processes,
    status,
    version,
)
from tests.support.nspawn import PROJECT, Machine
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(300)]

SOON_S = 90.0


def until_live(machine: Machine) -> None:
    until(lambda: is_live(machine), SOON_S, "mountd and what is ordered after its readiness")


def test_a_boot_without_bucket_then_an_empty_one_then_content_and_two_reboots(disk: Path) -> None:
    """Nothing waits but what is ordered after readiness, no limit of systemd ends the wait, and nothing is lost."""
    machine = prepare(disk, bucket=False)
    versions, away = machine.tree / "srv/s3/hub", machine.tree / "srv/away"
    with machine:
        until(lambda: machine.state("multi-user.target") == "active", SOON_S, "the end of the boot")
        assert machine.state("mountd") == "active"
        until(lambda: "9000" in machine.property("StatusText"), SOON_S, "a sentence with the reason")
        assert machine.property("StatusText").startswith("Not ready: ")
        assert machine.property("StatusText").endswith(".")
        assert (machine.state("mountd-ready"), machine.state("consumer")) == ("activating", "inactive")
        assert has_reason(machine, "bucket-unreachable")

        versions.rename(away)
        versions.mkdir()
        machine.run("systemctl", "enable", "--now", "s3")
        until(lambda: has_reason(machine, "waiting-for-content"), SOON_S, "an empty bucket")
        assert (machine.state("mountd-ready"), machine.state("consumer")) == ("activating", "inactive")
        assert machine.property("NRestarts") == "0"
        machine.run("systemctl", "restart", "mountd")
        until(lambda: has_reason(machine, "waiting-for-content"), SOON_S, "the same after a restart")
        assert (machine.state("mountd-ready"), machine.state("consumer")) == ("activating", "inactive")
        machine.run("systemctl", "stop", "mountd")
        assert (machine.state("mountd-ready"), machine.state("consumer")) == ("inactive", "inactive")
        machine.run("systemctl", "start", "mountd")

        for path in away.iterdir():
            path.rename(versions / path.name)
        until_live(machine)
        assert version(machine) == "v23"
        until(lambda: machine.property("StatusText") == "Ready: cache_hub v23 is live.", SOON_S, "the sentence")
        machine.run("mountd", "switch", "v22")
    for _ in range(2):
        with machine:
            until_live(machine)
            assert version(machine) == "v22", "what was switched to"
            assert mounts(machine) == 1
            assert [each["kind"] for each in history(machine)] == ["switch"]


def history(machine: Machine) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(machine.out("mountd", "history", "-o", "json"))["history"]
    return found


FAULTS = [("KILL", ["main"]), ("KILL", ["daemon"]), ("STOP", ["daemon"]), ("STOP", ["main", "daemon"])]
"""The main process is the daemon's reaper. A stopped one hears no SIGABRT of the watchdog."""
FAILS_ONCE = "test -e /run/failed || { touch /run/failed; exit 1; }"
APP = """\
apps:
  speaker: {command: [sh, -c, "setsid sleep 1000 & exec sleep 1001"], user: nobody, needs: [cache_hub]}
"""


def test_faults_of_the_daemon_and_of_its_processes(disk: Path) -> None:
    """Killed, stopped, an app that leaves children: the service is back, with one mount and one app."""
    with prepare(disk, config=CONFIG + APP) as machine:
        until_live(machine)
        until(lambda: processes(machine, "sleep 100") == 2, SOON_S, "what the app starts to be there once")
        group = machine.out("cat", f"/proc/{status(machine)['apps']['speaker']['pid']}/cgroup")
        assert group.splitlines()[-1].endswith("-speaker"), "a cgroup for each app"

        for restarts, (kill, who) in enumerate(FAULTS, 1):
            before = status(machine)["pid"]
            consumer = machine.property("MainPID", "consumer")
            pids = {"main": machine.property("MainPID"), "daemon": before}
            machine.kill(kill, " ".join(str(pids[each]) for each in who))
            until(lambda: machine.property("NRestarts") == str(restarts), SOON_S, f"a restart after {kill} of {who}")  # noqa: B023
            until_live(machine)
            assert status(machine)["pid"] != before
            assert machine.property("MainPID", "consumer") != consumer, "its files on the old mount are dead"
            assert mounts(machine) == 1
            until(lambda: processes(machine, "sleep 100") == 2, SOON_S, "what the app starts to be there once")
            assert version(machine) == "v23"

        rclone = status(machine)["mounts"]["storage"]["pid"]
        machine.kill("KILL", rclone)
        until(lambda: status(machine)["mounts"]["storage"]["pid"] not in (None, rclone), SOON_S, "another rclone")
        until(lambda: status(machine)["ready"], SOON_S, "all of it")
        assert machine.property("NRestarts") == "4", "that is no matter of the unit"


def test_readiness_whose_first_try_fails_is_tried_again_until_mountd_is_stopped(disk: Path) -> None:
    """systemd itself may fail there: what is ordered after readiness starts all the same."""
    machine = prepare(disk)
    drop_in = "/etc/systemd/system/mountd-ready.service.d/fails.conf"
    nspawn.write(disk, drop_in, f"[Service]\nExecStartPre=/bin/sh -c '{FAILS_ONCE}'\n")
    with machine:
        until_live(machine)
        assert machine.property("NRestarts", "mountd-ready") == "1"
        assert machine.property("NRestarts") == "0", "mountd is not concerned"
        machine.write(drop_in, "[Service]\nExecStartPre=/bin/false\n")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "mountd")
        until(lambda: int(machine.property("NRestarts", "mountd-ready")) > 2, SOON_S, "one try after the other")
        machine.run("systemctl", "stop", "mountd")
        until(lambda: machine.state("mountd-ready") in ("inactive", "failed"), SOON_S, "the end of the tries")
        assert machine.state("mountd") == "inactive", "a try of readiness does not start it"


def test_an_edited_file_and_a_stop_that_drains(disk: Path) -> None:
    outputs = 'mounts:\n  outputs: {remote: "store:out", path: /srv/mountd/outputs, profile: outputs}'
    config = CONFIG.replace("mounts:", outputs)
    (disk / "srv/s3/out").mkdir(parents=True)
    with prepare(disk, config=config) as machine:
        until_live(machine)
        pid = machine.property("MainPID")
        # Noticed before somebody asks for a reload.
        machine.write("/etc/mountd/mountd.yaml", config.replace("v23", "v22"))
        until(lambda: machine.out("readlink", LINK).endswith("cache_hub_v22"), SOON_S, "the switch")
        machine.run("systemctl", "reload", "mountd")
        machine.write("/etc/mountd/mountd.yaml", config + "no: such key\n")
        assert machine.run("systemctl", "reload", "mountd", check=False).returncode != 0
        assert machine.state("mountd") == "active"
        machine.write("/etc/mountd/mountd.yaml", config)
        machine.run("systemctl", "reload", "mountd")
        until(lambda: version(machine) == "v23", SOON_S, "the version as it was")
        assert machine.property("MainPID") == pid

        machine.run("sh", "-c", "head -c 3000000 /dev/zero >/srv/mountd/outputs/speech.wav")
        machine.run("systemctl", "stop", "mountd", timeout_s=120)
        assert (machine.tree / "srv/s3/out/speech.wav").stat().st_size == 3_000_000
        assert mounts(machine) + mounts(machine, "/srv/mountd/outputs") == 0
        assert processes(machine, "rclone mount") == 0
        assert (machine.state("consumer"), machine.state("mountd-ready")) == ("inactive", "inactive")
        assert machine.property("Result") == "success"
        assert not (machine.tree / "run/mountd/mountd.sock").exists()


def test_an_upgrade_takes_over_configuration_journal_and_what_is_live(disk: Path) -> None:
    """From the first journal that mountd wrote, and from units that it wrote then."""
    machine = prepare(disk)
    record = disk / "etc/mountd/installed.json"
    unit = disk / "etc/systemd/system/mountd.service"
    old = unit.read_text().replace("RestartSec=1", "RestartSec=3")
    unit.write_text(old)
    made = json.loads(record.read_text())
    made["files"]["etc/systemd/system/mountd.service"] = installed.digest(unit)
    made["version"] = "0.0.1"
    record.write_text(json.dumps(made))
    state = disk / "var/lib/mountd"
    state.mkdir(mode=0o755)
    with sqlite3.connect(state / "mountd.db") as journal:
        journal.executescript((PROJECT / "mountd/journal/schema.sql").read_text())
        journal.execute("INSERT INTO models VALUES ('cache_hub', 'v22', 'v23', 'v22', 'v23')")
        journal.execute(
            "INSERT INTO operations (kind, model, from_version, to_version, operator, source, step, started, finished,"
            " result, exit_code, duration_s) VALUES ('switch', 'cache_hub', 'v23', 'v22', 'tina', 'cli', 'commit',"
            " '2026-01-01T00:00:00Z', '2026-01-01T00:00:05Z', 'committed', 0, 5)"
        )
    journal.close()
    (disk / LINK.lstrip("/")).symlink_to("/srv/mountd/storage/cache_hub_v22")
    with machine:
        until_live(machine)
        assert version(machine) == "v22", "what was committed, not what the file said before"
        assert [each["operator"] for each in history(machine)] == ["tina"]
        machine.run(*installed.INSTALL)
        assert machine.property("NeedDaemonReload") == "no"
        assert "RestartSec=1\n" in unit.read_text()
        machine.run("systemctl", "restart", "mountd")
        until_live(machine)
        assert version(machine) == "v22"
        assert [each["operator"] for each in history(machine)] == ["tina"]
