"""How an app is looked after: when it is ready, how it is stopped, and when mountd restarts it."""

from __future__ import annotations

import signal as signals
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field, model_validator

from mountd.settings.fields import HttpAddress, PositiveDuration, Signal
from mountd.settings.section import Section
from mountd.settings.units import Limit

RestartCause = Literal["crash", "remount", "switch"]
RESTART_CAUSES: tuple[RestartCause, ...] = get_args(RestartCause)
"""What an app is restarted after."""


class ReadySettings(Section):
    """How mountd finds out that the app is ready. Exactly one of `http` and `command`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["http"]}, {"required": ["command"]}]})

    http: HttpAddress | None = Field(
        None, description="ready when this address of the app answers with a status below 400"
    )
    command: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="ready when this command exits 0; it runs as the app's user"
    )
    timeout: PositiveDuration = Field(900.0, description="an app that is not ready by then is restarted")

    @model_validator(mode="after")
    def _check(self) -> ReadySettings:
        if (self.http is None) == (self.command is None):
            raise ValueError("write exactly one of http and command")
        return self


class StopSettings(Section):
    """How mountd stops the app."""

    signal: Signal = Field(signals.SIGTERM, description="signal that asks the app to exit")
    grace: PositiveDuration = Field(30.0, description="time after which mountd kills what still runs")


class BackoffSettings(Section):
    """How long mountd waits before it starts the app again."""

    initial: PositiveDuration = Field(1.0, description="wait after the first failure")
    factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        2.0, description="the wait grows by this factor with each further failure"
    )
    max: PositiveDuration = Field(60.0, description="longest wait")


class RestartSettings(Section):
    """When mountd restarts the app by itself."""

    after: list[RestartCause] = Field(
        default_factory=lambda: [*RESTART_CAUSES],
        description="`crash`: it exited; `remount`: its mount was replaced, so its open files are dead; `switch`:"
        " another version is live",
    )
    backoff: BackoffSettings = BackoffSettings()
    limit: Limit = Field(
        Limit(5, 600.0), description="after more crashes than this, mountd stops trying (`app-failed`)"
    )
