"""The shipped unit under a real systemd: the boot, a user of its own, credentials, reload, and the journal."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import nspawn
from tests.support.nspawn import PROJECT, Machine
from tests.support.wait import until

WHY_NOT = nspawn.why_not()
pytestmark = [
    pytest.mark.fuse,
    pytest.mark.slow,
    pytest.mark.thorough,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]

CONFIG = """\
remotes:
  store:
    type: s3
    provider: Other
    endpoint: http://127.0.0.1:9000
    access_key_id: mountd-test-key
    secret_access_key: {credential: s3-secret}
mounts:
  storage: {remote: "store:hub", path: /srv/mountd/storage, cache: {min_free: 1%}}
models:
  cache_hub:
    mount: storage
    directory: "cache_hub_{version}"
    link: /srv/mountd/cache_hub
    version: v23
    required: [gpt.pth]
    watch: {for: 0s}
"""
S3 = f"""\
[Service]
ExecStart={sys.prefix}/bin/rclone serve s3 --addr 127.0.0.1:9000 --auth-key mountd-test-key,mountd-test-secret \
 --etag-hash "" /srv/s3
"""
CREDENTIAL = "[Service]\nLoadCredential=s3-secret:/etc/mountd/secret\n"
AFTER = """\
[Unit]
After=mountd.service
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=mountd.service
"""
DROP_INS = "/etc/systemd/system/mountd.service.d"


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))
    try:
        failed = nspawn.build(root / "tree")
        if failed:
            pytest.skip(f"mmdebstrap cannot build a Debian here: {failed}")
        yield root / "tree"
    finally:
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def machine(tree: Path) -> Machine:
    """With mountd and its bucket installed; not booted yet."""
    unit = (PROJECT / "systemd/mountd.service").read_text()
    shutil.rmtree(tree / DROP_INS.lstrip("/"), ignore_errors=True)
    for path, text in {
        "/etc/systemd/system/mountd.service": unit,
        "/etc/systemd/system/s3.service": S3,
        "/etc/systemd/system/after.service": AFTER,
        "/etc/mountd/mountd.yaml": CONFIG,
        f"{DROP_INS}/credential.conf": CREDENTIAL,
        "/srv/s3/hub/cache_hub_v22/gpt.pth": "22",
        "/srv/s3/hub/cache_hub_v23/gpt.pth": "23",
    }.items():
        nspawn.write(tree, path, text)
    nspawn.write(tree, "/etc/mountd/secret", "mountd-test-secret\n", 0o600)
    shutil.rmtree(tree / "srv/mountd", ignore_errors=True)
    (tree / "srv/mountd").mkdir()
    for unit in ("mountd", "after"):
        subprocess.run(["systemctl", f"--root={tree}", "enable", unit], check=True, capture_output=True, timeout=60)
    return Machine(tree)


def is_live(machine: Machine) -> bool:
    return machine.state("mountd") == "active" and machine.state("after") == "active"


def test_a_boot_does_not_wait_for_a_bucket_that_is_away(machine: Machine) -> None:
    """But what is ordered after mountd does."""
    with machine:
        until(lambda: machine.state("multi-user.target") == "active", 60, "the end of the boot")
        until(lambda: "9000" in machine.run("systemctl", "show", "-P", "StatusText", "mountd").stdout, 30, "the reason")
        assert machine.state("mountd") == "activating"
        assert machine.state("after") == "inactive"
        machine.run("systemctl", "start", "s3")
        until(lambda: is_live(machine), 60, "mountd and what waits for it")
        assert machine.run("readlink", "/srv/mountd/cache_hub").stdout.strip().endswith("cache_hub_v23")


def test_a_user_of_its_own_credentials_and_the_journal(machine: Machine) -> None:
    machine.write(f"{DROP_INS}/user.conf", "[Unit]\nWants=s3.service\nAfter=s3.service\n[Service]\nUser=mountd\n")
    machine.write("/etc/sysusers.d/mountd.conf", "u mountd - - -\n")
    machine.write("/etc/tmpfiles.d/mountd.conf", "d /srv/mountd 0755 mountd mountd\n")
    with machine:
        until(lambda: is_live(machine), 60, "mountd and what waits for it")
        # Root finds it, and its state is where the unit has it.
        status = json.loads(machine.run("mountd", "status", "-o", "json").stdout)
        assert status["ready"]
        assert machine.run("stat", "-c", "%U", "/var/lib/mountd/mountd.db").stdout.strip() == "mountd"
        assert machine.run("ls", "/var/cache/mountd").stdout.strip() == "storage"

        # Outside of the unit: nothing fails for a credential that the unit passes.
        machine.run("mountd", "config", "check")
        examined = machine.run("mountd", "doctor", "-o", "json", check=False)
        checks = {check["name"]: check for check in json.loads(examined.stdout)["checks"]}
        assert [check for check in checks.values() if check["result"] == "fail"] == []
        assert checks["credential s3-secret"]["result"] == "ok"
        assert checks["mounting"]["result"] == "ok"

        # An edited version, noticed before somebody asks for a reload.
        machine.write("/etc/mountd/mountd.yaml", CONFIG.replace("v23", "v22"))
        link = "/srv/mountd/cache_hub"
        until(lambda: machine.run("readlink", link).stdout.strip().endswith("cache_hub_v22"), 60, "the switch")
        machine.run("systemctl", "reload", "mountd")

        machine.run("sh", "-c", f"kill -KILL {status['mounts']['storage']['pid']}")
        until(lambda: "4" in {each["PRIORITY"] for each in journal(machine)}, 30, "a warning in the journal")
        entries = journal(machine)
        assert {each["PRIORITY"] for each in entries} <= {"3", "4", "6"}
        texts = [each["MESSAGE"] for each in entries]
        assert any(text.startswith("mountd starts version=") for text in texts)
        assert not [text for text in texts if text.startswith(("{", "<")) or re.match(r"\d{4}-", text)]


def journal(machine: Machine) -> list[dict[str, str]]:
    """What mountd has written."""
    words = ("journalctl", "-b", "-t", "mountd", "-o", "json", "--no-pager")
    return [json.loads(line) for line in machine.run(*words).stdout.splitlines()]
