"""What a new version must pass before it stays: gates, and a time in which the app is watched."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, model_validator

from mountd.settings.fields import PositiveDuration, PrometheusAddress, WebAddress
from mountd.settings.section import Section
from mountd.settings.units import Duration


class WatchSettings(Section):
    """After a switch mountd watches the app. A crash or a failing gate brings the previous version back."""

    period: Duration = Field(30.0, alias="for", description="how long mountd watches; 0s: not at all")
    crashes: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="this many crashes bring the previous version back; after fewer mountd restarts the app"
    )


class GateSettings(Section):
    """A check that a new version must pass before it stays. Exactly one of `http`, `command` and `prometheus`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["http"]}, {"required": ["command"]}, {"required": ["prometheus", "query", "max"]}],
            "dependentRequired": {"query": ["prometheus"], "max": ["prometheus"]},
        }
    )

    http: WebAddress | None = Field(None, description="passes when this address answers with a status below 400")
    command: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="passes when this command exits 0; it runs as the app's user, with $MOUNTD_VERSION and"
        " $MOUNTD_MODEL",
    )
    prometheus: PrometheusAddress | None = Field(
        None, description="address of a Prometheus server; needs query and max as well"
    )
    query: Annotated[str, Field(min_length=1, max_length=4000)] | None = Field(
        None, description="PromQL whose result is one number"
    )
    max: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="passes when the result of the query is not above this number"
    )
    timeout: PositiveDuration = Field(60.0, description="a gate that takes longer fails")

    @model_validator(mode="after")
    def _check(self) -> GateSettings:
        if sum(each is not None for each in (self.http, self.command, self.prometheus)) != 1:
            raise ValueError("write exactly one of http, command and prometheus")
        for name, value in (("query", self.query), ("max", self.max)):
            if self.prometheus is not None and value is None:
                raise ValueError(f"prometheus needs {name} as well")
            if self.prometheus is None and value is not None:
                raise ValueError(f"{name} belongs to prometheus")
        return self
