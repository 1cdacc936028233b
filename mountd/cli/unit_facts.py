"""What systemd knows of mountd's unit: its properties and the last lines of its log; nothing without systemd."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence

from mountd.settings.masking import text as masked

ASK_S = 5.0
SYSTEMD = "/run/systemd/system"
"""Is there where systemd is process 1, see sd_booted(3)."""
CONFIG_DIRECTORY = "/etc/mountd"
SHOWN = ("ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts", "StateChangeTimestamp")


def unit_of(config: str | None) -> str:
    """`mountd@NAME.service` for /etc/mountd/NAME.yaml, else `mountd.service`."""
    directory, file = os.path.split(os.path.abspath(config or ""))
    name, extension = os.path.splitext(file)
    if directory == CONFIG_DIRECTORY and extension == ".yaml" and name != "mountd":
        return f"mountd@{name}.service"
    return "mountd.service"


def properties(unit: str, names: Sequence[str] = SHOWN) -> dict[str, str]:
    """Empty when the unit is not installed."""
    wanted = ["LoadState", *names] if names else []
    words = [f"--property={','.join(wanted)}"] if wanted else []
    pairs = (line.partition("=") for line in _said("systemctl", "show", "--no-pager", *words, unit).splitlines())
    found = {name: value for name, _, value in pairs}
    return found if found.get("LoadState") == "loaded" else {}


def shown(unit: str, found: Mapping[str, str]) -> list[str]:
    if not found:
        return []
    state = f"{unit}: {found.get('ActiveState')} ({found.get('SubState')}), result {found.get('Result')}"
    code, restarts = found.get("ExecMainStatus", ""), found.get("NRestarts", "")
    since = found.get("StateChangeTimestamp", "")
    return [f"{state}, exit code {code}, {restarts} restarts, since {since}"]


def last_lines(unit: str, count: int) -> list[str]:
    """Of its log, masked; the oldest first."""
    said = _said("journalctl", "--no-pager", "--quiet", "--output=cat", f"--lines={count}", f"--unit={unit}")
    return [masked(line) for line in said.splitlines() if line.strip()]


def _said(*argv: str) -> str:
    if not os.path.isdir(SYSTEMD):
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            argv, capture_output=True, timeout=ASK_S, stdin=subprocess.DEVNULL, check=False, encoding="utf-8",
            errors="replace",
        )  # fmt: skip
        return done.stdout
    return ""
