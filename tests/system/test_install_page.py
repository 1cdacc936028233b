"""docs/install.md as a newcomer uses it: each of its lines, in order, on a machine that has nothing of mountd."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.support import nspawn, wheels
from tests.support.installed import KEY, S3, SECRET
from tests.support.nspawn import PROJECT, Machine
from tests.support.wait import until
from tests.system.conftest import MakeDisk

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = PROJECT / "docs/install.md"
CLONE = "/root/mountd"
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}
LINE_S = 240.0
MOST_COMMANDS = 6
"""From a fresh machine to a page that is served, with no line edited."""
ANSWERS = (
    "--yes --store minio --endpoint http://127.0.0.1:9000 --bucket hub --directory cache_hub_{version}"
    " --model-version v23 --app other --app-directory /srv/app --user ''"
    " --app-command 'python3 -m http.server 7860 --bind 127.0.0.1' --keys -"
)
"""In place of those that somebody gives to `mountd init` at a terminal."""
SERVED = (
    "import urllib.request as r; print(r.urlopen('http://127.0.0.1:7860/model/gpt.pth', timeout=10).read().decode())"
)
LEFT_BEHIND = (
    "etc/.pwd.lock",
    "etc/subgid",
    "etc/subuid",
    "root/",
    "tmp/",
    "var/cache/apt/",
    "var/lib/apt/",
    "var/lib/systemd/",
    "var/log/",
    "var/tmp/",
    "run/",
    "srv/",
)
"""Of the machine, not of mountd; mount points and links are where the configuration says."""


def sections() -> dict[str, list[str]]:
    """Headline → the lines of the commands below it."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        if lines := [line for block in blocks for line in block.splitlines() if line]:
            found[title] = lines
    return found


def test_few_commands_lead_to_a_served_model() -> None:
    """All lines of these sections but those that only look."""
    looks = ("mountd config check", "mountd doctor", "mountd status", "mountd wait")
    lines = [line for title in ("Install", "Configure", "Start") for line in sections().get(title, [])]
    assert len([line for line in lines if not line.startswith(looks)]) <= MOST_COMMANDS


@pytest.mark.parametrize("suite", ["bookworm", pytest.param("trixie", marks=pytest.mark.thorough)])
def test_this_page_installs_and_removes_mountd(make_disk: MakeDisk, suite: str) -> None:
    disk = make_disk(suite)
    try:
        shelf = wheels.directory(PYTHONS[suite])
    except OSError as error:
        pytest.skip(f"pip cannot get what mountd needs: {error}")
    prepare(disk, shelf)
    machine = Machine(disk, shelf)
    with machine:
        machine.run("systemctl", "start", "s3")  # what any first boot leaves on a disk
    before, found = listed(disk), sections()
    with machine:
        machine.run("systemctl", "start", "s3")
        for title in ("Install", "Configure", "Start"):
            follow(machine, shelf, found.pop(title))
        until(lambda: served(machine) == "v23", 60.0, "the app to serve its page")
    with machine:  # enabled: it comes with the machine
        machine.run("systemctl", "start", "s3")
        machine.run("mountd", "wait", "--for", "ready", "--timeout", "2m", timeout_s=150)
        until(lambda: served(machine) == "v23", 60.0, "the app to serve its page again")
        follow(machine, shelf, found.pop("Upgrade"))
        machine.run("mountd", "wait", "--for", "ready", "--timeout", "2m", timeout_s=150)
        follow(machine, shelf, [line.replace("--uninstall", "--uninstall --purge") for line in found.pop("Uninstall")])
        assert found == {}, "each section is run"
        assert machine.run("systemctl", "cat", "mountd", check=False).returncode != 0
        assert machine.run("id", "mountd", check=False).returncode != 0
        assert "mountd:" not in machine.out("cat", "/proc/self/mountinfo")
    assert listed(disk) == before


def prepare(disk: Path, shelf: Path) -> None:
    """The clone, the bucket, the app's directory, and a place for the wheels."""
    (disk / "srv/app").mkdir()
    ignored = shutil.ignore_patterns(".venv", ".git", "build", ".*_cache", "__pycache__", "*.egg-info", ".hypothesis")
    shutil.copytree(PROJECT, disk / CLONE.lstrip("/"), symlinks=True, ignore=ignored)
    (disk / str(shelf).lstrip("/")).mkdir(parents=True, exist_ok=True)
    nspawn.write(disk, "/etc/systemd/system/s3.service", S3)
    nspawn.write(disk, "/srv/s3/hub/cache_hub_v23/gpt.pth", "v23")


def served(machine: Machine) -> str:
    return machine.run("python3", "-c", SERVED, check=False).stdout.strip()


def follow(machine: Machine, shelf: Path, lines: list[str]) -> None:
    """As somebody types them, in the clone."""
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(shelf), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for line in lines:
        given = f"printf '%s\\n' {KEY} {SECRET} | {line} {ANSWERS}" if line == "mountd init" else line
        machine.run("sh", "-c", f"cd {CLONE} && {given}", timeout_s=LINE_S, environment=offline)


def listed(disk: Path) -> set[str]:
    """What is on the disk, but for what any machine leaves behind when it runs."""
    found = set()
    for room in ("etc", "opt", "usr/local", "usr/lib/systemd", "var/lib", "var/cache"):
        for path in (disk / room).rglob("*"):
            name = str(path.relative_to(disk))
            if not name.startswith(LEFT_BEHIND) and not name.endswith("-"):
                found.add(name)
    return found
