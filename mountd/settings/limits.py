"""What an app may use of the machine: memory and processors, with all that it starts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from mountd.settings.section import Section
from mountd.settings.units import Size

SMALLEST_BYTES = 1 << 20


class AppLimitSettings(Section):
    """What the app, with everything that it starts, may use at most. Needs cgroup v2."""

    memory: Size | None = Field(
        None,
        description="memory, such as 12G, or 50% of the machine's; above it the kernel kills the app, and mountd"
        " restarts it",
    )
    cpu: Annotated[float, Field(ge=0.01, le=4096, allow_inf_nan=False)] | None = Field(
        None, description="processors, such as 2.5"
    )

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, value: Size | None) -> Size | None:
        if value is not None and value.percent is None and value.bytes < SMALLEST_BYTES:
            raise ValueError("must be 1M at least; leave it out for no limit")
        if value is not None and value.percent == 0:
            raise ValueError("must be more than 0%; leave it out for no limit")
        return value
