"""The variables that an app is given besides those that it inherits: its user's, the configured ones, its secrets."""

from __future__ import annotations

from mountd.process.child import User
from mountd.settings.schema import AppSettings
from mountd.settings.secret import ReadSecrets, SecretRef


async def own(settings: AppSettings, user: User | None, read_secrets: ReadSecrets) -> dict[str, str]:
    """`user`: whom it runs as, None: mountd's own user. Raises CannotStart for a secret that cannot be read."""
    found = {"PYTHONUNBUFFERED": "1"}
    if user is not None:
        found |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    given = settings.environment.items()
    found |= {key: value for key, value in given if not isinstance(value, SecretRef)}
    secrets = {key: value for key, value in given if isinstance(value, SecretRef)}
    return found | (await read_secrets(secrets) if secrets else {})
