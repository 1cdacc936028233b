"""What must hold before an app is started: free memory on its GPU, and a command that exits 0."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from mountd.settings.fields import PositiveDuration
from mountd.settings.section import Section
from mountd.settings.units import Size

_DEVICE = r"([0-9]{1,3}(:[0-9]{1,3})?|(GPU|MIG)-[0-9A-Za-z/-]{1,80})"
"""An index, `GPU:PART` of a MIG device, or a UUID, as `nvidia-smi -L` shows them."""


def _device(value: str) -> str:
    if not re.fullmatch(_DEVICE, value):
        raise ValueError(f"{value!r} is not a GPU: write its index or UUID as `nvidia-smi -L` shows it, or 0:1 for MIG")
    return value


def _memory(value: Size) -> Size:
    if value.of(1 << 40) == 0:
        raise ValueError("must be more than 0; leave it out to start without looking")
    return value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


_DEVICE_SCHEMA = {"type": "string", "pattern": f"^{_DEVICE}$", "examples": ["0", "0:1", "GPU-5d5ba0d6-d33d-2b2c"]}
Device = Annotated[str, AfterValidator(_device), WithJsonSchema(_DEVICE_SCHEMA)]
Devices = Annotated[
    list[Device],
    BeforeValidator(_as_list),
    Field(min_length=1, max_length=64),
    WithJsonSchema(
        {
            "anyOf": [
                _DEVICE_SCHEMA,
                {"type": "integer", "minimum": 0, "maximum": 999},
                {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 64,
                    "items": {"anyOf": [_DEVICE_SCHEMA, {"type": "integer", "minimum": 0, "maximum": 999}]},
                },
            ]
        }
    ),
]


class PreflightSettings(Section):
    """Checks before each start of the app, in a switch too. While one fails, mountd tries again by restart.backoff."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["gpu_memory"]}, {"required": ["command"]}],
            "dependentRequired": {"gpu": ["gpu_memory"]},
        },
    )

    gpu_memory: Annotated[Size, AfterValidator(_memory)] | None = Field(
        None, description="memory that must be free on the app's GPU, such as 8G, or 90% of what the GPU has"
    )
    gpu: Devices | None = Field(
        None,
        description="GPUs to check, by index or UUID, a MIG device also as GPU:PART; each must have gpu_memory free;"
        " default: the first one that the app sees (CUDA_VISIBLE_DEVICES)",
    )
    command: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="command that must exit 0, such as one that loads the model; it runs as the app does"
    )
    timeout: PositiveDuration = Field(900.0, description="time for all checks together")

    @model_validator(mode="after")
    def _check(self) -> PreflightSettings:
        if self.gpu_memory is None and self.command is None:
            raise ValueError("write gpu_memory, command or both")
        if self.gpu is not None and self.gpu_memory is None:
            raise ValueError("gpu belongs to gpu_memory: write how much of it must be free")
        return self
