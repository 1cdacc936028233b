"""What an app may use of the machine: memory and processors, with all that it starts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from mountd.settings.section import Section
from mountd.settings.units import Size

SMALLEST_BYTES = 1 << 20


class AppLimitSettings(Section):
    """Kept by the app's cgroup (cgroup v2). `memory`: of what it holds itself, and of the machine's with %."""

    memory: Size | None = Field(
        None, description="beyond it the kernel ends the app, which is started again; 50% is half of the machine's"
    )
    cpu: Annotated[float, Field(ge=0.01, le=4096, allow_inf_nan=False)] | None = Field(
        None, description="processors: 2.5 is the time of two and a half"
    )

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, value: Size | None) -> Size | None:
        if value is not None and value.percent is None and value.bytes < SMALLEST_BYTES:
            raise ValueError("must be 1M at least; leave it out for no limit")
        if value is not None and value.percent == 0:
            raise ValueError("must be more than 0%; leave it out for no limit")
        return value
