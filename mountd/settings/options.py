"""A mount's `options`: rclone's flags under one spelling, without those that mountd or another key sets."""

from __future__ import annotations

import re
from typing import Any

from mountd.settings.schema import DEFAULT_PROFILE, MODEL_PROFILES
from mountd.settings.secret import is_secret
from mountd.settings.source import Place, line_of
from mountd.settings.words import Finding

# Flag → the key of the mount that decides instead.
SET_BY_KEY = {
    "allow-other": "allow_other",
    "uid": "uid",
    "gid": "gid",
    "umask": "umask",
    "vfs-cache-max-size": "cache.max_size",
    "vfs-cache-min-free-space": "cache.min_free",
}
_REFUSED = {
    "config": "mountd writes rclone.conf itself",
    "cache-dir": "write it as cache.dir",
    "log-file": "mountd reads rclone's log from a pipe; `mountd logs` shows it",
    "log-format": "mountd reads rclone's log from a pipe; `mountd logs` shows it",
    "use-json-log": "mountd reads rclone's log from a pipe; `mountd logs` shows it",
    "log-systemd": "mountd reads rclone's log from a pipe; `mountd logs` shows it",
    "syslog": "mountd reads rclone's log from a pipe; `mountd logs` shows it",
    "allow-non-empty": "it would hide files; empty the mount point instead",
}


def settle(mount: str, entry: dict[str, Any], lines: dict[Place, int]) -> list[Finding]:
    """Replaces the options of a mount: `--vfs_read_ahead` becomes `vfs-read-ahead`, text true/false a bool, and what
    has no effect or cannot be goes. `lines` gets the new names as well.
    """
    options: dict[str, Any] = {}
    written: dict[str, str] = {}
    findings: list[Finding] = []
    for key, value in entry["options"].items():
        place = ("mounts", mount, "options", key)
        name = re.sub(r"^--?", "", key).replace("_", "-")
        if name in written:
            findings.append(Finding(place, f"is the same flag as {written[name]!r}"))
            continue
        written[name] = key
        lines["mounts", mount, "options", name] = line_of(place, lines)
        if finding := _judge(place, name, value, entry.get("profile") or DEFAULT_PROFILE):
            findings.append(finding)
        else:
            options[name] = {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value
    entry["options"] = options
    return findings


def _judge(place: Place, name: str, value: Any, profile: Any) -> Finding | None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]*", name):
        return Finding(place, "is not the name of a flag of rclone")
    if why := _refusal(name):
        return Finding(place, f"cannot be set here: {why}")
    if name in SET_BY_KEY:
        return Finding(place, f"is ignored: mounts.{place[1]}.{SET_BY_KEY[name]} decides, write it there", warning=True)
    if name == "devname":
        return Finding(place, "is ignored: mountd finds its mounts by the name it gives them", warning=True)
    if name == "read-only" and value == "false" and profile in MODEL_PROFILES:
        return Finding(
            place, f"is ignored: the profile {profile} is read-only, outputs and plain are not", warning=True
        )
    if value is None:
        return Finding(place, "is empty: write true for a flag without a value")
    texts = [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]
    if any(is_secret(name, text) for text in texts):
        return Finding(place, "is a secret, which a command line would show to everybody: write it under remotes")
    if any(re.search(r"[\x00-\x1f\x7f]", text) for text in texts):
        return Finding(place, "must not contain line ends or other control characters")
    return None


def _refusal(name: str) -> str:
    if name == "rc" or name.startswith("rc-"):
        return "mountd runs rclone's remote control itself"
    if name.startswith("daemon"):
        return "mountd keeps rclone in the foreground and watches it"
    return _REFUSED.get(name, "")
