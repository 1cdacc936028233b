"""How patient the supervisor of an app is."""

from __future__ import annotations

from mountd.process.backoff import Backoff
from mountd.process.lifecycle import Policy
from mountd.settings.schema import AppSettings


def policy_of(app: AppSettings, *, held: bool = False) -> Policy:
    """`held`: during an operation, which decides itself what comes after a failure."""
    backoff = app.restart.backoff
    return Policy(
        grace_s=app.stop.grace,
        backoff=Backoff(backoff.initial, backoff.factor, backoff.max),
        crash_limit=(app.restart.limit.count, app.restart.limit.window_s),
        restart_after_crash="crash" in app.restart.after,
        retry=not held,
    )
