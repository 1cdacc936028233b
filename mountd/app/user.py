"""Who an app runs as."""

from __future__ import annotations

import os

from mountd.errors import CannotStart, MountdError
from mountd.process import tool
from mountd.process.child import User

USER_LIMIT_S = 30.0
"""A directory service may be asked, and be slow."""


async def resolve_user(app: str, name: str | None) -> User | None:
    """None: mountd's own user. Raises CannotStart, also when nobody knows in USER_LIMIT_S."""
    if name is None:
        return None
    try:
        user = await tool.find_user(name, timeout_s=USER_LIMIT_S)
    except MountdError as error:
        raise CannotStart(
            f"cannot start {app}: {error.text}",
            hint=f"see that `getent passwd {name}` answers: the directory service of the machine may be down",
            code="no-user",
        ) from None
    if user is None:
        raise CannotStart(
            f"cannot start {app}: there is no user {name}", hint=f"create it: useradd --system {name}", code="no-user"
        )
    if user.uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise CannotStart(
            f"cannot start {app} as {name}: only root may change users", hint="run mountd as root, or drop `user:`"
        )
    return user
