"""mountd as `mountd install` puts it on a machine of `nspawn`, its bucket beside it, and a unit that needs it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support import nspawn
from tests.support.nspawn import Machine

CONFIG = """\
remotes:
  store:
    type: s3
    provider: Other
    endpoint: http://127.0.0.1:9000
    access_key_id: mountd-test-key
    secret_access_key: {file: /etc/mountd/secrets/key}
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
control: {group: mountd}
"""
KEY, SECRET = "mountd-test-key", "mountd-test-secret"
S3 = f"""\
[Service]
ExecStart={sys.prefix}/bin/rclone serve s3 --addr 127.0.0.1:9000 --auth-key {KEY},{SECRET} --etag-hash "" \
 --dir-cache-time 100ms --poll-interval 0 /srv/s3
[Install]
WantedBy=multi-user.target
"""
CONSUMER = """\
[Unit]
Requires=mountd-ready.service
After=mountd-ready.service
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=mountd-ready.service
"""
DROP_INS = "/etc/systemd/system/mountd.service.d"
MOUNT, LINK = "/srv/mountd/storage", "/srv/mountd/cache_hub"
INSTALL = [f"{sys.prefix}/bin/mountd", "install"]


def prepare(tree: Path, *options: str, config: str = CONFIG, bucket: bool = True) -> Machine:
    """Not booted yet: mountd is installed and starts with the machine, with `options` of install; `bucket`: that as
    well, with v22 and v23."""
    subprocess.run([*INSTALL, "--root", str(tree), *options], check=True, capture_output=True, timeout=60)
    for path, text in {
        "/etc/systemd/system/s3.service": S3,
        "/etc/systemd/system/consumer.service": CONSUMER,
        "/etc/mountd/mountd.yaml": config,
        # The watchdog is patient: half a minute is the product's, and two workers share two processors.
        f"{DROP_INS}/watchdog.conf": "[Service]\nWatchdogSec=10\n",
    }.items():
        nspawn.write(tree, path, text)
    nspawn.write(tree, "/etc/mountd/secrets/key", f"{SECRET}\n", 0o600)
    for version in ("v22", "v23"):
        nspawn.write(tree, f"/srv/s3/hub/cache_hub_{version}/gpt.pth", version)
    (tree / "srv/mountd").mkdir(exist_ok=True)
    enable(tree, "mountd", "consumer", *(["s3"] if bucket else []))
    return Machine(tree)


def enable(tree: Path, *units: str) -> None:
    subprocess.run(["systemctl", f"--root={tree}", "enable", *units], check=True, capture_output=True, timeout=60)


def status(machine: Machine) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(machine.run("mountd", "status", "-o", "json", check=False).stdout)
    return found


def is_live(machine: Machine) -> bool:
    """mountd is ready, and so what is ordered after that has started."""
    return machine.state("mountd-ready") == "active" and machine.state("consumer") == "active"


def has_reason(machine: Machine, code: str) -> bool:
    return any(reason["code"] == code for reason in status(machine)["reasons"])


def version(machine: Machine) -> str:
    """The live one, by what is read there."""
    return machine.out("cat", f"{LINK}/gpt.pth")


def mounts(machine: Machine, path: str = MOUNT) -> int:
    """How many mounts there are at `path`."""
    lines = machine.out("cat", "/proc/self/mountinfo").splitlines()
    return sum(line.split()[4] == path for line in lines)


def processes(machine: Machine, words: str) -> int:
    """How many have these words in their command line."""
    lines = machine.out("sh", "-c", "for each in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$each; echo; done 2>/dev/null")
    return sum(words in line and "/proc/" not in line for line in lines.splitlines())


def journal(machine: Machine, *matches: str) -> list[dict[str, str]]:
    words = ("journalctl", "-b", "-o", "json", "--no-pager", *matches)
    return [json.loads(line) for line in machine.run(*words).stdout.splitlines()]


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
