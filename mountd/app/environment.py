"""The environment of an app: some of mountd's own, and the variables and secrets that its configuration names."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from mountd.process.child import User
from mountd.settings import environment as inherited
from mountd.settings.remotes import Value
from mountd.settings.secret import ReadSecrets, SecretRef


async def build(
    given: Mapping[str, Value], user: User | None, hidden: Collection[str], read_secrets: ReadSecrets
) -> dict[str, str]:
    """`given`: of the configuration. `user`: None for mountd's own. `hidden`: variables of mountd that no app inherits.

    Raises CannotStart when a secret cannot be read.
    """
    base = inherited.of_app(os.environ, hidden=hidden, own_user=user is None)
    if user is not None:
        base |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    own = {key: value for key, value in given.items() if not isinstance(value, SecretRef)}
    secrets = {key: value for key, value in given.items() if isinstance(value, SecretRef)}
    own |= await read_secrets(secrets) if secrets else {}
    return {**base, "PYTHONUNBUFFERED": "1", **own}
