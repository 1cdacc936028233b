"""pydantic's errors → findings: the place as it stands in the file, and what would be right, in a few plain words.

No finding repeats a value that may be a secret: below a remote or an environment only keys are named.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from mountd.settings.remotes import RemoteSettings, Value
from mountd.settings.schema import NeedSettings, Settings, keys_of
from mountd.settings.secret import EXACTLY_ONE, SecretRef
from mountd.settings.source import Place
from mountd.settings.units import format_duration


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem or a warning at a place of the file."""

    place: Place
    text: str
    warning: bool = False


MAX_PROBLEMS = 50
"""So many are looked for and shown: a search for what was meant takes milliseconds for each."""
_EITHER: dict[type, str] = {
    bool: "text, true, false or a list of texts",
    SecretRef: "text or a reference to a secret",
    NeedSettings: "a name, or a model with its level, such as {model: NAME, level: data}",
}
"""Where several types may stand, by one of them."""
_SIMPLE = {
    "bool": "must be true or false",
    "int": "must be a whole number",
    "float": "must be a number",
    "finite": "must be a number",
}
_PATTERNS = {
    "remote": "must be REMOTE:BUCKET or REMOTE:BUCKET/PREFIX, such as compshare:index-tts-data",
    "type": "must be the name of an rclone backend, such as s3",
    "listen": "must be HOST:PORT, such as 127.0.0.1:8780",
    "env": "must be the name of an environment variable, such as MOUNTD_SECRET",
    "credential": "must be the name of a systemd credential, such as secret_key",
}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` or nothing."""
    known = list(known)
    for spelling in (word, word.replace("-", "_"), word.lower()):
        if close := difflib.get_close_matches(spelling, known, 1, 0.6):
            return f", did you mean {close[0]!r}?"
    return ""


def explain(error: ValidationError, data: Any) -> list[Finding]:
    """The errors of validating `data` as Settings, once each, up to MAX_PROBLEMS; several of one alternative become
    one."""
    findings: dict[Finding, None] = {}
    for detail in error.errors(include_url=False, include_input=False):
        if len(findings) > MAX_PROBLEMS:
            break
        if finding := _explain(dict(detail), data):
            findings[finding] = None
    return list(findings)


def look_up(data: Any, place: Place) -> Any:
    """The value at the place; None when nothing stands there."""
    for part in place:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _explain(detail: dict[str, Any], data: Any) -> Finding | None:
    place: Place = ()
    section: type[BaseModel] | None = None  # that holds the last part of the place
    expected: Any = Settings
    loc = detail["loc"]
    if detail["type"] == "value_error" and loc[-1:] == ("[key]",):  # the name of an entry, not what it holds
        loc = loc[:-1]
    for part in loc:
        kinds = _alternatives(expected)
        if len(kinds) > 1:  # `part` names the alternative that pydantic tried
            raw = look_up(data, place)
            if raw is None:
                return Finding(place, "is empty")
            expected = _meant(raw, kinds)
            if expected is None:
                return Finding(place, f"must be {next(text for kind, text in _EITHER.items() if kind in kinds)}")
            if expected.__name__ not in str(part):
                return None
        else:
            place = (*place, part)
            section, expected = _below(kinds[0] if kinds else None, part)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return Finding(place, "is missing")
    raw = look_up(data, place)
    if kind == "extra_forbidden":
        return _unknown_key(place, section)
    if kind.startswith("model_") and raw is not None and _alternatives(expected) == [SecretRef]:
        return Finding(place, EXACTLY_ONE)
    if section is SecretRef and kind != "string_pattern_mismatch":
        return Finding(place, "must be text" if kind.endswith("_type") else _own_words(detail))
    return Finding(place, _words(kind, context, place, raw) or _own_words(detail))


def _meant(raw: Any, kinds: list[Any]) -> Any:
    """Which of several types that may stand there; None when `raw` is none of them."""
    if isinstance(raw, dict):
        return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    shape = list[str] if isinstance(raw, list) else str
    return shape if shape in kinds else None


def _alternatives(at: Any) -> list[Any]:
    """The types that may stand there, without None."""
    if get_origin(at) is Annotated:
        return _alternatives(get_args(at)[0])
    if get_origin(at) in (Union, types.UnionType):
        return [kind for each in get_args(at) for kind in _alternatives(each)]
    return [] if at in (None, types.NoneType) else [at]


def _below(kind: Any, part: str | int) -> tuple[type[BaseModel] | None, Any]:
    """The section that `kind` is, if it is one, and the type of what stands at a key or an index of it."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if name := keys_of(kind).get(str(part)):
            return kind, kind.model_fields[name].annotation
        return kind, Value if kind is RemoteSettings else None
    return None, get_args(kind)[-1] if get_origin(kind) in (dict, list) else None


def _own_words(detail: dict[str, Any]) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return str(detail["msg"]).removeprefix("Input should be ").strip()


def _words(kind: str, context: dict[str, Any], place: Place, raw: Any) -> str:
    """The short sentence for an error of this kind; empty when pydantic's own must do."""
    last = str(place[-1]) if place else ""
    shown = f", not {raw!r}" if isinstance(raw, str) and len(raw) <= 64 else ""
    if raw is None and kind != "value_error":
        return "is empty"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return "must be a mapping of keys"
    if kind == "list_type":
        return "must be a list, such as [a, b]"
    if kind in ("string_type", "path_type"):
        return "must be text"
    if simple := next((text for start, text in _SIMPLE.items() if kind.startswith(start)), ""):
        return f"{simple}{shown}"
    if kind == "literal_error":
        return f"must be {context['expected']}{shown}"
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(last, "")
    if kind in ("too_short", "string_too_short"):
        return f"needs at least one {last.removesuffix('s')}" if len(place) == 1 else "must not be empty"
    if kind in ("too_long", "string_too_long"):
        return f"must not have more than {context['max_length']} {'entries' if kind == 'too_long' else 'characters'}"
    for name, text in (("gt", "must be more than"), ("ge", "must be at least"), ("le", "must be at most")):
        if name in context:
            bound = context[name]
            with_unit = isinstance(raw, str) and re.search(r"[a-z]$", raw)
            return f"{text} {format_duration(bound) if with_unit else bound}{shown}"
    return ""


def _unknown_key(place: Place, section: type[BaseModel] | None) -> Finding:
    known = list(keys_of(section)) if section else []
    meant = did_you_mean(str(place[-1]), known)
    if section is SecretRef:  # the key may be the secret itself, written as {secret}
        return Finding(place[:-1], f"unknown key {place[-1]!r}{meant}" if meant else EXACTLY_ONE)
    return Finding(place, f"unknown key{meant or ': here can stand ' + ', '.join(known)}")
