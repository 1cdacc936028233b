"""What doctor says of the GPU of each app whose preflight asks for its memory."""

from __future__ import annotations

import os

from mountd.app import preflight
from mountd.app.user import resolve_user
from mountd.cli.examine import Check
from mountd.errors import MountdError
from mountd.i18n import M_
from mountd.settings import environment as inherited
from mountd.settings.schema import AppSettings, Settings


async def checks(settings: Settings) -> list[Check]:
    """Only while no daemon runs: else its apps hold the memory."""
    asking = ((name, app) for name, app in settings.apps.items() if app.preflight and app.preflight.gpu_memory)
    return [await _gpu(name, app) for name, app in asking]


async def _gpu(name: str, app: AppSettings) -> Check:
    """Asked as the app's user, with the variables of it that are no secrets."""
    where = M_("gpu of {name}", name=name)
    own = {key: value for key, value in app.environment.items() if isinstance(value, str)}
    base = inherited.of_app(os.environ, hidden=(), own_user=app.user is None)
    try:
        user = await resolve_user(name, app.user)
        await preflight.check_gpu(name, app, environment={**base, **own}, user=user)
    except MountdError as error:
        return Check(where, "fail", error.text, error.hint)
    assert app.preflight is not None
    return Check(where, "ok", M_("{size} of memory are free", size=app.preflight.gpu_memory))
