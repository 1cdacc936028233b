"""Data → Settings, with everything that is wrong in it: what is broken is taken out, and the rest is tried again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from mountd.settings.fields import ANY_NAME
from mountd.settings.schema import Settings
from mountd.settings.source import Place
from mountd.settings.words import Finding, explain, look_up

TRIES = 8


def validate(
    data: dict[str, Any], fill_in: Callable[[dict[str, Any]], None]
) -> tuple[Settings | None, list[Finding], list[Place]]:
    """Settings, what is wrong, and the places that are no longer what was written.

    Where something is wrong the settings hold a default or a stand-in there, so that the names, paths and secrets
    around it can be checked at once; no finding below such a place means anything. `fill_in` adds what a file may leave
    out.
    """
    findings: dict[Finding, None] = {}
    replaced: list[Place] = []
    context: dict[str, Any] = {}
    for _ in range(TRIES):
        try:
            return Settings.model_validate(data, context=context), [*findings], replaced
        except ValidationError as error:
            found = explain(error, data)
        for each in found:
            if not any(place[: len(each.place)] == each.place for place in replaced):
                findings[each] = None
        if not context:  # said once; what stands under a wrong name is checked as well
            context = {ANY_NAME: True}
            continue
        data = copy.deepcopy(data)
        gone: list[Place] = []
        for each in found:
            if not any(each.place[: len(place)] == place for place in gone):
                gone.append(_replace(data, each.place))
        replaced += gone
        data = {"remotes": {}, "mounts": _stand_in(("mounts",))} | data
        fill_in(data)
    return None, [*findings], replaced


def is_below(place: Place, replaced: list[Place]) -> bool:
    """Whether the place is one of `replaced`, or lies in one."""
    return any(place[: len(each)] == each for each in replaced)


def _replace(data: dict[str, Any], place: Place) -> Place:
    """Takes out the thing at the place (of a list: all of it), or when it is missing, what it is missing from; puts
    something that is right where there must be something."""
    target = place[: next((index for index, part in enumerate(place) if isinstance(part, int)), len(place))]
    for end in range(len(target), 0, -1):
        there, last = look_up(data, target[: end - 1]), target[end - 1]
        if not isinstance(there, dict):
            continue
        if (stand_in := _stand_in(target[:end])) is not None:
            there[last] = stand_in
            return target[:end]
        if last in there:
            del there[last]
            return target[:end]
    return place


def _stand_in(place: Place) -> Any:
    """A value that is right for a key that must be there, and at odds with no other; None elsewhere."""
    own = "/" + "/".join(("mountd-stand-in", *map(str, place)))
    match place:
        case ("mounts",):
            return {"stand-in": {"remote": "x:y", "path": own, "cache": {"dir": f"{own}-cache"}}}
        case ("remotes", _, "type"):
            return "x"
        case ("mounts", _, "remote"):
            return "x:y"
        case ("mounts", _, "path") | ("mounts", _, "cache", "dir") | ("models", _, "link"):
            return own
        case ("models", _, "mount" | "version"):
            return "x"
        case ("models", _, "desired"):
            return {"file": own}
        case ("models", _, "directory"):
            return "{version}"
        case ("apps", _, "command"):
            return ["x"]
    return None
