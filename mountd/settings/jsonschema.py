"""The JSON Schema of the file, generated from the types, so that an editor completes and checks it.

It describes what a person writes: durations and sizes as text, and numbers and truth values wherever text may stand,
because an editor takes `7860` for a number and `true` for a truth value where mountd reads text.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, cast

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from mountd.settings import gates, http, remotes, schema, secret, supervision, sync

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FREE_TEXT = {"type": ["string", "number", "boolean"]}
_SECTIONS: list[type[BaseModel]] = [
    each
    for module in (schema, gates, supervision, http, sync, secret)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, BaseModel)
]


def render() -> str:
    """The text of config/mountd.schema.json."""
    return json.dumps(generate(), indent=2, ensure_ascii=False) + "\n"


def generate() -> dict[str, Any]:
    """The schema as plain data, draft 2020-12."""
    generated = schema.Settings.model_json_schema()
    definitions = generated.pop("$defs")
    named = {"Settings": generated, **definitions}
    for section in _SECTIONS:
        if section.__name__ in named:
            _finish(section, named[section.__name__])
    named["SecretRef"] |= {"minProperties": 1, "maxProperties": 1}
    tidy = {name: cast("dict[str, Any]", _tidy(each)) for name, each in sorted(named.items())}
    root = tidy.pop("Settings") | {"title": "mountd", "description": "What `mountd run` reads: mountd.yaml"}
    return {"$schema": DIALECT} | root | {"$defs": tidy}


def _finish(section: type[BaseModel], found: dict[str, Any]) -> None:
    """Defaults in the units of the file; only what a person must write is required."""
    found.pop("required", None)
    for key, name in schema.keys_of(section).items():
        field = section.model_fields[name]
        if field.is_required() and remotes.FILLED_IN not in field.metadata:
            found.setdefault("required", []).append(key)
        found["properties"][key].pop("default", None)
        if not field.is_required() and (default := _default(field)) is not None:
            found["properties"][key]["default"] = default


def _default(field: FieldInfo) -> Any:
    value = field.get_default(call_default_factory=True)
    if value is None or isinstance(value, BaseModel) or value in ({}, []):
        return None  # a section's own keys show their defaults
    whole: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return TypeAdapter(whole).dump_python(value, mode="json")


def _tidy(node: Any, *, names: bool = False) -> Any:
    """Without pydantic's titles and nulls; free text also takes numbers. `names`: the keys of `node` are a person's."""
    if isinstance(node, list):
        return [_tidy(each) for each in node]
    if not isinstance(node, dict):
        return node
    if names:
        return {name: _tidy(each) for name, each in node.items()}
    node = {key: each for key, each in node.items() if key != "title"}
    if "anyOf" in node:
        node = _without_null(node)
    if node.get("type") == "string" and not node.keys() & {"pattern", "enum", "const", "format"}:
        node |= _FREE_TEXT
    if "patternProperties" in node:
        node["additionalProperties"] = False
    values, named = ("default", "examples", "enum", "const"), ("properties", "patternProperties", "$defs")
    return {key: each if key in values else _tidy(each, names=key in named) for key, each in node.items()}


def _without_null(node: dict[str, Any]) -> dict[str, Any]:
    others = [each for each in node["anyOf"] if each != {"type": "null"}]
    if {"type": "string"} in others:
        others = [each for each in others if each != {"type": "boolean"}]  # free text takes them, see above
    rest = {key: value for key, value in node.items() if key != "anyOf"}
    if len(others) == 1:
        return {key: value for key, value in others[0].items() if key != "title"} | rest
    return rest | {"anyOf": others}
