"""What `doctor` asks systemd about the unit that runs mountd with this file; there may be none."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mountd.cli.examine import Check
from mountd.errors import MountdError
from mountd.process import tool

NAME = "mountd.service"
ASK_S = 5.0
_CREDENTIAL = re.compile(r"^\s*(?:Load|Set)Credential(?:Encrypted)?\s*=\s*([^:\s]+)", re.MULTILINE)
_IMPORTED = re.compile(r"^\s*ImportCredential\s*=\s*([^:\s]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Unit:
    """`text`: its file and drop-ins; `state`: as `systemctl is-active` says it."""

    text: str
    state: str

    def passes(self, credential: str) -> bool:
        named = credential in _CREDENTIAL.findall(self.text)
        return named or any(fnmatch.fnmatchcase(credential, glob) for glob in _IMPORTED.findall(self.text))


async def find(config: Path) -> Unit | None:
    """The installed unit when it names this file."""
    try:
        text = await tool.run(["systemctl", "cat", "--no-pager", NAME], timeout_s=ASK_S)
        state = await tool.run(["systemctl", "is-active", NAME], timeout_s=ASK_S)
    except MountdError:  # no systemd, or it does not answer
        return None
    if text.code != 0 or str(config) not in text.output:
        return None
    return Unit(text.output, state.output.strip())


def how_to_start(unit: Unit | None, config: Path) -> str:
    if unit is None:
        return f"start it: mountd run -c {config}"
    if unit.state == "failed":
        return "`systemctl status mountd` says why it has failed; then: systemctl restart mountd"
    if unit.state in ("active", "activating", "reloading", "deactivating"):
        return f"its unit is {unit.state}: see `systemctl status mountd`"
    return "start it: systemctl start mountd"


def credentials(unit: Unit | None, names: Iterable[str]) -> list[Check]:
    """Those that are there in the unit only, and so cannot be read here."""
    return [_credential(unit, name) for name in dict.fromkeys(names)]


def _credential(unit: Unit | None, name: str) -> Check:
    where = f"credential {name}"
    if unit is None:
        return Check(where, "warn", "was not checked: systemd passes it to the unit, and no unit here uses this file")
    if unit.passes(name):
        return Check(where, "ok", f"is passed by {NAME}")
    hint = f"systemctl edit mountd: [Service] LoadCredential={name}:/path/to/secret"
    return Check(where, "fail", f"is not passed by {NAME}", hint)
