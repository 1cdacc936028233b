"""What `doctor` asks systemd about the unit that runs mountd with this file; there may be none."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mountd.cli.examine import Check
from mountd.errors import MountdError
from mountd.i18n import M_
from mountd.process import tool

NAME = "mountd.service"
ASK_S = 5.0
_PASSED = (("LoadCredential", "LoadCredentialEncrypted"), ("SetCredential", "SetCredentialEncrypted"))
"""Both of a pair fill one list."""
_ID = re.compile(r"[^:\s]+")


NAMESPACES = (
    "BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "InaccessiblePaths", "MountImages", "NoExecPaths",
    "PrivateDevices", "PrivateMounts", "PrivateTmp", "PrivateUsers", "ProcSubset", "ProtectControlGroups",
    "ProtectHome", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem",
    "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem",
)  # fmt: skip
"""Options that make a mount namespace, in which mounts stay."""
NO_NEW_PRIVILEGES = (
    "DynamicUser", "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges", "ProtectClock", "ProtectHostname",
    "RestrictAddressFamilies", "RestrictFileSystems", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
    "SystemCallArchitectures", "SystemCallFilter", "SystemCallLog",
)  # fmt: skip
"""Options that, with User=, let no setuid program gain rights."""
_UNSET = ("", "no", "false", "off", "0", "default", "all", "root")


@dataclass(frozen=True, slots=True)
class Unit:
    """`text`: its file and drop-ins; `state`: as `systemctl is-active` says it."""

    text: str
    state: str

    def names(self, config: Path) -> bool:
        """Whether mountd is started with this file, as far as the unit shows."""
        word = re.compile(rf"(?<![^\s\"'=]){re.escape(os.path.abspath(config))}(?![^\s\"';])")
        return any(word.search(value) for key in ("ExecStart", "Environment") for value in _values(self.text, (key,)))

    def sets(self, name: str) -> str:
        """`NAME=value` when it is set to something else than what it is by default, else ""."""
        value = _values(self.text, (name,))[-1:]
        return f"{name}={value[0]}" if value and value[0].lower() not in _UNSET else ""

    def passes(self, credential: str) -> bool:
        named = {_id(value) for pair in _PASSED for value in _values(self.text, pair)}
        globs = map(_id, _values(self.text, ("ImportCredential",)))
        return credential in named or any(fnmatch.fnmatchcase(credential, glob) for glob in globs)


def _id(value: str) -> str:
    found = _ID.match(value)
    return found[0] if found else ""


def _values(text: str, names: Iterable[str]) -> list[str]:
    """What stands under these names, which fill one list: an empty value clears it."""
    found: list[str] = []
    for name, value in _lines(text):
        if name in names:
            found = [*found, value] if value else []
    return found


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Name and value of each line that is no comment; a line that ends with a backslash continues in the next one."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("#", ";")))
    for line in kept.replace("\\\n", " ").split("\n"):
        name, _, value = line.partition("=")
        yield name.strip(), value.strip()


async def find(config: Path) -> Unit | None:
    """The installed unit when it names this file."""
    try:
        text = await tool.run(["systemctl", "cat", "--no-pager", NAME], timeout_s=ASK_S)
        state = await tool.run(["systemctl", "is-active", NAME], timeout_s=ASK_S)
    except MountdError:  # no systemd, or it does not answer
        return None
    unit = Unit(text.output, state.output.strip())
    return unit if text.code == 0 and unit.names(config) else None


def how_to_start(unit: Unit | None, config: Path) -> str:
    if unit is None:
        return M_("start it: {command}", command=f"mountd run -c {config}")
    if unit.state == "failed":
        return M_("`systemctl status mountd` shows why it failed; then: systemctl restart mountd")
    if unit.state in ("active", "activating", "reloading", "deactivating"):
        return M_("its unit is {state}: see `systemctl status mountd`", state=unit.state)
    return M_("start it: {command}", command="systemctl start mountd")


def hardening(unit: Unit | None) -> list[Check]:
    """Options that take from mountd what it is for."""
    if unit is None:
        return []
    hides = list(filter(None, map(unit.sets, NAMESPACES)))
    forbids = list(filter(None, map(unit.sets, NO_NEW_PRIVILEGES))) if unit.sets("User") else []
    found = []
    if hides:
        text = M_(
            "only mountd and its apps see its mounts: {options} makes a mount namespace", options=", ".join(hides)
        )
        found.append(Check(M_("unit"), "fail", text, M_("systemctl edit mountd, and take it out")))
    if forbids:
        text = M_("fusermount3 may not mount: with User= {options} sets no_new_privs", options=", ".join(forbids))
        hint = M_("systemctl edit mountd, and take it out, or run mountd as root")
        found.append(Check(M_("unit"), "fail", text, hint))
    return found or [Check(M_("unit"), "ok", M_("no option of {unit} hides a mount or forbids it", unit=NAME))]


def credentials(unit: Unit | None, names: Iterable[str]) -> list[Check]:
    """Credentials that exist in the unit only, and cannot be read here."""
    return [_credential(unit, name) for name in dict.fromkeys(names)]


def _credential(unit: Unit | None, name: str) -> Check:
    where = M_("credential {name}", name=name)
    if unit is None:
        return Check(where, "warn", M_("not checked: systemd passes it to the unit, and no unit here uses this file"))
    if unit.passes(name):
        return Check(where, "ok", M_("is passed by {unit}", unit=NAME))
    hint = f"systemctl edit mountd: [Service] LoadCredential={name}:/path/to/secret"
    return Check(where, "fail", M_("is not passed by {unit}", unit=NAME), hint)
