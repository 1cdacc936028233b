"""The shipped units: what their lines promise together (under a real systemd: tests/system)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"
SERVICE = UNITS / "mountd.service"
READY = UNITS / "mountd-ready.service"
NAMESPACES = {
    "BindPaths", "DynamicUser", "InaccessiblePaths", "PrivateDevices", "PrivateTmp", "PrivateUsers", "ProcSubset",
    "ProtectControlGroups", "ProtectHome", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
    "ProtectProc", "ProtectSystem", "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "TemporaryFileSystem",
}  # fmt: skip
NO_NEW_PRIVILEGES = {
    "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges", "ProtectClock", "ProtectHostname",
    "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID", "SystemCallArchitectures",
    "SystemCallFilter",
}  # fmt: skip


def lines(unit: Path) -> list[tuple[str, str]]:
    found = (line.partition("=") for line in unit.read_text().splitlines() if not line.startswith(("#", "[")))
    return [(name, value) for name, _, value in found if name]


def values(key: str, unit: Path = SERVICE) -> set[str]:
    return {word for name, value in lines(unit) if name == key for word in value.split()}


def value(key: str, unit: Path = SERVICE) -> str:
    (found,) = [value for name, value in lines(unit) if name == key]
    return found


def test_waiting_for_content_neither_holds_the_boot_nor_ends_the_daemon() -> None:
    """READY=1 is early; what is ordered after mountd-ready.service waits, with no limit."""
    assert value("Type") == "notify"
    assert values("WantedBy") == {"multi-user.target"}
    assert value("Also") == "mountd-ready.service"
    assert values("WantedBy", READY) == {"mountd.service"}, "the boot is ordered after what its target wants"
    assert (value("Type", READY), value("RemainAfterExit", READY)) == ("oneshot", "yes")
    assert value("TimeoutStartSec", READY) == "infinity"
    assert value("BindsTo", READY) == value("After", READY) == "mountd.service"
    assert " wait " in value("ExecStart", READY)


def test_it_is_started_again_until_it_runs_but_not_with_a_file_that_cannot_be_used() -> None:
    assert value("StartLimitIntervalSec") == "0"
    assert value("Restart") == "on-failure"
    assert value("RestartPreventExitStatus") == "2"


def test_a_stopped_daemon_is_replaced_soon_after_the_watchdog_has_noticed() -> None:
    """SIGABRT does not end a process that is stopped: without it SIGKILL would come after TimeoutStopSec."""
    assert int(value("TimeoutAbortSec")) <= 5
    assert int(value("WatchdogSec")) <= 30


def test_a_stop_is_a_drain_and_the_kernels_choice_is_no_end() -> None:
    assert value("KillMode") == "mixed"
    assert value("OOMPolicy") == "continue"
    assert value("Delegate") == "yes"


@pytest.mark.parametrize("unit", [*sorted(UNITS.glob("*.service")), UNITS / "user.conf"], ids=lambda path: path.name)
def test_no_option_hides_the_mount_or_takes_fusermounts_right_and_why_stands_beside(unit: Path) -> None:
    names = {name for name, _ in lines(unit)}
    assert not names & (NAMESPACES | NO_NEW_PRIVILEGES | {"DevicePolicy", "IPAddressDeny", "PrivateNetwork"})
    if "ExecReload" in names:
        assert value("PrivateMounts", unit) == "no"
        comments = " ".join(line for line in unit.read_text().splitlines() if line.startswith("#"))
        assert {f"{name}=" for name in NAMESPACES | NO_NEW_PRIVILEGES} <= set(re.findall(r"\w+=", comments))


def test_what_a_child_may_need_is_not_taken_away() -> None:
    assert not values("CapabilityBoundingSet") & {
        "CAP_SYS_ADMIN", "CAP_SETUID", "CAP_SETGID", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_MKNOD",
        "CAP_SYS_MODULE", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE", "CAP_NET_BIND_SERVICE", "CAP_AUDIT_WRITE",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["mountd", "mountd-ready"])
def test_an_instance_differs_by_its_name_alone(name: str) -> None:
    """Its directories do not lie in those of mountd.service, which systemd removes with that."""
    text = (UNITS / f"{name}.service").read_text()
    for before, after in (
        ("Description=mountd:", "Description=mountd %i:"),
        ("Description=What mountd serves", "Description=What mountd %i serves"),
        ("mountd-ready.service", "mountd-ready@%i.service"),
        ("=mountd.service", "=mountd@%i.service"),
        ("/etc/mountd/mountd.yaml", "/etc/mountd/%i.yaml"),
        ("/etc/default/mountd", "/etc/default/mountd-%i"),
        ("Directory=mountd\n", "Directory=mountd-%i\n"),
        ("/run/mountd ", "/run/mountd-%i "),
        ("systemctl status mountd`", "systemctl status mountd@%i`"),
    ):
        text = text.replace(before, after)
    assert (UNITS / f"{name}@.service").read_text() == text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    units = []
    for unit in sorted(UNITS.glob("*.service")):
        # A machine for tests has no mountd, and an instance needs a name.
        named = tmp_path / unit.name.replace("@", "@gpu1")
        named.write_text(unit.read_text().replace("/usr/local/bin/mountd", "/bin/true"))
        units.append(str(named))
    words = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert not [line for line in done.stderr.splitlines() if "mountd" in line]  # there may be others
