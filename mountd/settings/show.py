"""Settings → what a person would have to write for them: with defaults, secrets as references, plain ones hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mountd.settings import masking
from mountd.settings.masking import HIDDEN
from mountd.settings.schema import Settings

__all__ = ["HIDDEN", "effective"]


def effective(settings: Settings) -> dict[str, Any]:
    """Plain data in the units of the file, ready for YAML or JSON.

    Parsing it again gives equal settings, but for what `masking` hides. A key that has no value (`uid` of a mount, say)
    is left out.
    """
    shown: dict[str, Any] = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    for remote in shown["remotes"].values():
        _mask(remote, masking.option)
    for mount in shown["mounts"].values():
        _mask(mount["options"], masking.option)
    for app in shown["apps"].values():
        _mask(app["environment"], masking.variable)
    masked: dict[str, Any] = _everywhere(shown)
    return masked


def _mask(group: dict[str, Any], mask: Callable[[str, str], str]) -> None:
    for name, value in group.items():
        if isinstance(value, str):
            group[name] = mask(name, value)
        elif isinstance(value, list):
            group[name] = [mask(name, each) for each in value]


def _everywhere(shown: Any, key: str = "") -> Any:
    """Commands and addresses, wherever a key has one."""
    match shown:
        case dict():
            return {name: _everywhere(value, name) for name, value in shown.items()}
        case list() if key == "command":
            return masking.command(shown)
        case list():
            return [_everywhere(each, key) for each in shown]
        case str() if "://" in shown:
            return masking.text(shown)
    return shown
