"""What `doctor` tries as the user of an app: whether the app can reach what it needs, and read there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mountd.cli.examine import Check
from mountd.errors import MountdError
from mountd.process import tool
from mountd.process.child import User
from mountd.settings.schema import AppSettings, Settings

DEADLINE_S = 10.0
# A directory that cannot be entered is named; the last one is read as well. A child may hang on a mount: it is killed.
_SCRIPT = """
for each in "$@"; do cd -- "$each" 2>/dev/null || { printf 'enter %s' "$each"; exit 1; }; done
ls . >/dev/null 2>&1 || { printf 'read %s' "$each"; exit 1; }
"""


async def access(settings: Settings, *, running: bool) -> list[Check]:
    """A line for each app with a `user`; through mounts and links only while they are there."""
    checks = []
    for name, app in settings.apps.items():
        if app.user is None:
            continue
        try:
            user = await tool.find_user(app.user, timeout_s=DEADLINE_S)
            if user is None or os.geteuid() not in (0, user.uid):
                continue  # another check reports it
            checks.append(await _access(name, user, _ways(settings, app, running=running)))
        except MountdError as error:
            checks.append(Check(f"access of {name}", "fail", error.text, error.hint))
    return checks


def _ways(settings: Settings, app: AppSettings, *, running: bool) -> list[list[str]]:
    ways = [_way(app.directory, itself=True)]
    for need in app.needs:
        model = settings.models.get(need)
        mount = settings.mounts[model.mount if model else need]
        ways.append(_way(mount.path, itself=running))
        if model is not None:
            ways.append(_way(model.link, itself=running and os.path.islink(model.link)))
    return ways


def _way(path: Path, *, itself: bool) -> list[str]:
    """The directories from the root to `path`; without `itself` those above it, as far as they are there.

    With `itself` nothing on the way is touched here, only by the child: it may lie on a mount that hangs. What lies
    above a mount point or a link is on local disk.
    """
    above = [str(each) for each in reversed(path.parents) if itself or os.path.lexists(each)]
    return [*above, str(path)] if itself else above


async def _access(name: str, user: User, ways: Sequence[Sequence[str]]) -> Check:
    where = f"access of {name}"
    own = user if user.uid != os.geteuid() else None
    for way in ways:
        outcome = await tool.run(["/bin/sh", "-c", _SCRIPT, "sh", *way], timeout_s=DEADLINE_S, user=own)
        if outcome.code != 0:
            hint = "allow that user to enter it (chmod o+x), or for a mount set allow_other, umask, uid or gid"
            return Check(where, "fail", f"user {user.name} cannot {outcome.output or 'look there'}", hint)
    return Check(where, "ok", f"user {user.name} can reach {', '.join(way[-1] for way in ways if way)}")
