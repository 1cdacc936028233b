"""What an app is started with: a list of mountd's own environment, the app's variables and secrets, its marks."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from mountd.process.child import User
from mountd.settings import environment as inherited
from mountd.settings.secret import ReadSecrets, SecretRef


async def build(
    given: Mapping[str, str | SecretRef],
    *,
    user: User | None,
    hidden: Collection[str],
    marks: Mapping[str, str],
    read_secrets: ReadSecrets,
) -> dict[str, str]:
    """`given`: those of its settings. Raises CannotStart when a secret cannot be read."""
    base = inherited.of_app(os.environ, hidden=hidden, own_user=user is None)
    if user is not None:
        base |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    own = {key: value for key, value in given.items() if not isinstance(value, SecretRef)}
    secrets = {key: value for key, value in given.items() if isinstance(value, SecretRef)}
    own |= await read_secrets(secrets) if secrets else {}
    return {**base, "PYTHONUNBUFFERED": "1", **own, **marks}
