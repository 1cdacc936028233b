"""A remote as the file has it: rclone's own options, secrets by reference, or a preset in place of most of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from mountd.settings.presets import Network, PresetName
from mountd.settings.secret import SecretRef

FILLED_IN = "filled in"
"""A key that a file may leave out; its default hangs on other keys or on the user, and `load` fills it in."""
Value = str | SecretRef
"""An option of a remote, or a variable of an environment."""


class RemoteSettings(BaseModel):
    """A store: a `preset` or a `type`, and any option of that rclone backend, such as `endpoint`."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        json_schema_extra={
            "anyOf": [{"required": ["type"]}, {"required": ["preset"]}],
            "dependentRequired": {"network": ["preset"]},
        },
    )
    __pydantic_extra__: dict[str, Value] = Field(init=False)

    type: Annotated[
        str,
        Field(pattern=r"^[a-z0-9]+$", description="rclone's backend, such as s3; default: as the preset says"),
        FILLED_IN,
    ]
    preset: PresetName | None = Field(
        None, description="fills in type, provider, endpoint and the like for this store; options that you write win"
    )
    network: Network | None = Field(
        None,
        description="with a preset: the store's public address, or the internal one for machines of the same cloud and"
        " region; default: public",
    )

    @property
    def options(self) -> dict[str, Value]:
        return dict(self.__pydantic_extra__ or {})
