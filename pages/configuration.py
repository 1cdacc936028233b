"""Each key of mountd.yaml, from the types of the settings: type, default, meaning, and what a change of it does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mountd.settings import fields, outbox, preflight, sync, units
from mountd.settings.change import Effect, effect_of
from mountd.settings.jsonschema import generate
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings
from pages.blocks import table

EFFECTS = {
    Effect.REFUSE: "needs a restart of mountd",
    Effect.IN_PLACE: "at once",
    Effect.CREDENTIALS: "at once, without a remount",
    Effect.REMOUNT: "remounts",
    Effect.REPLACE: "unmounts, then mounts with the new value",
    Effect.RESTART: "restarts the app",
    Effect.SWITCH: "requests a switch",
    Effect.RESTART_MODEL: "loads the model again, restarts its apps",
    Effect.RELINK: "moves the link",
    Effect.LISTEN: "opens the port again",
    Effect.ADMIT: "at once",
}
_SAMPLE = """
remotes: {store: {type: s3, provider: Other, endpoint: "http://127.0.0.1:9000"}}
mounts: {storage: {remote: "store:bucket", path: /mnt/storage}}
models: {hub: {mount: storage, directory: "hub_{version}", link: /srv/hub, version: v1}}
apps: {webui: {command: [webui], needs: [hub]}}
"""
_NAMES = {"remotes": "store", "mounts": "storage", "models": "hub", "apps": "webui"}
_TYPES: dict[str, Any] = {
    "duration": units.Duration,
    "duration, or `forever`": outbox.Keep,
    "size": units.Size,
    "rate": units.Rate,
    "limit": units.Limit,
    "absolute path": fields.AbsolutePath,
    "relative path": fields.RelativePath,
    "`REMOTE:PATH`": fields.RemotePath,
    "path with `{version}`": fields.Pattern,
    "name": fields.Name,
    "octal digits": fields.Umask,
    "signal": fields.Signal,
    "http address": fields.HttpAddress,
    "web address": fields.WebAddress,
    "address": fields.PrometheusAddress,
    "`HOST:PORT`": fields.Listen,
    "repository": sync.GitAddress,
    "GPU, or a list of them": preflight.Devices,
}
_TEXT = ({"type": ["string", "number", "boolean"]}, {"type": "string"})
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "minItems", "maxItems", "minLength", "maxLength", "maxProperties")


@dataclass(frozen=True, slots=True)
class Key:
    """One row. `place` has NAME for a name of the reader's choice, and [] for an entry of a list."""

    place: tuple[str, ...]
    type: str
    default: str
    meaning: str
    change: str


@dataclass(frozen=True, slots=True)
class SectionOfKeys:
    place: tuple[str, ...]
    text: str
    keys: tuple[Key, ...]


@cache
def sections() -> list[SectionOfKeys]:
    """The file as a whole first, then each section in its order."""
    schema = generate()
    return list(_sections((), schema, schema["$defs"]))


def render() -> str:
    return "\n\n".join(_section(each) for each in sections())


def _section(section: SectionOfKeys) -> str:
    place = dotted(section.place)
    depth = "##" if len(section.place) <= 2 else "###"
    title = f"{depth} `{place}`" if place else "## The file as a whole"
    rows = [(f"`{key.place[-1]}`", key.type, key.default, key.meaning, key.change) for key in section.keys]
    head = ("key", "type", "default", "meaning", "a change")
    return f"{title}\n\n{section.text}\n\n{table(head, rows)}"


def dotted(place: tuple[str, ...]) -> str:
    """`mounts.NAME.cache`; the entry of a list as `gates[]`."""
    return ".".join(place).replace(".[]", "[]")


def anchor(place: tuple[str, ...]) -> str:
    """Of the section's headline, as Markdown makes it."""
    return re.sub(r"[^a-z0-9_-]", "", dotted(place).lower())


def _sections(place: tuple[str, ...], node: dict[str, Any], defs: dict[str, Any]) -> Iterator[SectionOfKeys]:
    below, keys = [], []
    for name, value in node["properties"].items():
        here = (*place, name)
        keys.append(_key(here, value, node, defs))
        below += list(_below(here, value, defs))
    if place == ("remotes", "NAME"):
        keys.append(_options_of_a_remote(place))
    yield SectionOfKeys(place, _sentence(node.get("description", "")), tuple(keys))
    for inner, definition in below:
        yield from _sections(inner, definition, defs)


def _below(
    place: tuple[str, ...], value: dict[str, Any], defs: dict[str, Any]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The sections that a key holds. A secret is described once, in the text of the page."""
    for where, name in _references(place, value):
        if name != "SecretRef":
            yield where, defs[name]


def _references(place: tuple[str, ...], value: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    if "$ref" in value:
        yield place, value["$ref"].rpartition("/")[2]
    for each in value.get("anyOf", ()):
        yield from _references(place, each)
    for each in value.get("patternProperties", {}).values():
        yield from _references((*place, "NAME"), each)
    if "items" in value:
        yield from _references((*place, "[]"), value["items"])


def _key(place: tuple[str, ...], value: dict[str, Any], node: dict[str, Any], defs: dict[str, Any]) -> Key:
    inner = [name for _, name in _references(place, value) if name != "SecretRef"]
    meaning = value.get("description") or (defs[inner[0]].get("description", "") if inner else "")
    if not meaning:
        raise ValueError(f"{dotted(place)} has no description")
    meaning, *more = re.split(r"[;.] [Dd]efault: ", meaning, maxsplit=1)
    default = "required" if place[-1] in node.get("required", ()) else _default(value) or "".join(more)
    where = [each for each, name in _references(place, value) if name != "SecretRef"]
    type_ = _type(value).replace("section", f"[section](#{anchor(where[0])})") if where else _type(value)
    return Key(place, type_, default, _linked(_sentence(meaning)), _change(place, value))


def _default(value: dict[str, Any]) -> str:
    if "default" not in value:
        return ""
    default = value["default"]
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`[{', '.join(map(str, default))}]`" if isinstance(default, list) else f"`{default}`"


def _sentence(text: str) -> str:
    text = text.strip()
    start = text if text[:1] in "`$" or text.startswith(("mountd", "rclone")) else text[:1].upper() + text[1:]
    return start if start.endswith((".", ":", "…")) or not start else f"{start}."


def _linked(text: str) -> str:
    link = "security.md#what-a-child-inherits-of-mountds-environment"
    return text.replace("the page on security", f"[the page on security]({link})")


def _type(value: dict[str, Any]) -> str:
    """In words. Raises ValueError for one that has none yet."""
    bare = {name: each for name, each in value.items() if name not in ("description", "default", "title")}
    if bare in _TEXT:
        return "text"
    for words, schema in _known():
        if {name: each for name, each in bare.items() if name not in _BOUNDS or name in schema} == schema:
            return words
    if "$ref" in bare:
        return _reference(bare["$ref"].rpartition("/")[2])
    if "enum" in bare:
        return ", ".join(f"`{each}`" for each in bare["enum"])
    if "anyOf" in bare:
        return " or ".join(dict.fromkeys(_type(each) for each in bare["anyOf"]))
    if "patternProperties" in bare or "additionalProperties" in bare:
        return "entries by name"
    if bare.get("type") == "array":
        return f"list: {_type(bare['items'])}"
    if bare.get("type") in ("integer", "number"):
        return _number(bare)
    if bare.get("type") == "boolean":
        return "true or false"
    if bare.get("type") == "string" or bare.get("type") == _TEXT[0]["type"]:
        return "text"
    raise ValueError(f"no words for the type {bare}")


def _reference(name: str) -> str:
    return "secret" if name == "SecretRef" else "section"


def _number(bare: dict[str, Any]) -> str:
    words = "number" if bare["type"] == "number" else "whole number"
    low, high = bare.get("minimum"), bare.get("maximum")
    if low is not None and high is not None:
        return f"{words}, {low} to {high}"
    return f"{words}, at least {low}" if low is not None else words


@cache
def _known() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for words, each in _TYPES.items():
        schema = TypeAdapter(each).json_schema()
        found.append((words, {name: value for name, value in schema.items() if name not in ("description", "title")}))
    return found


def _change(place: tuple[str, ...], value: dict[str, Any]) -> str:
    """What happens when the key changes in the file of a running mountd; nothing for a key that is a section."""
    if len(place) == 1 and "patternProperties" in value:
        return "an entry may come and go"
    if any(name != "SecretRef" for _, name in _references(place, value)) and "anyOf" not in value.get("items", {}):
        return ""
    if place[-1] == "needs":
        return f"{EFFECTS[Effect.RESTART]}; another level at once"
    named = tuple(_NAMES.get(place[0], "any") if part == "NAME" else part for part in place)
    settings = _sample()
    return EFFECTS[effect_of(named, settings, settings)]


@cache
def _sample() -> Settings:
    return parse(_SAMPLE, "sample.yaml", Places(Path("/s"), Path("/c"), Path("/r"))).settings


def _options_of_a_remote(place: tuple[str, ...]) -> Key:
    text = (
        "any option of the backend by rclone's name, such as `endpoint`, `region`, `access_key_id` and"
        " `secret_access_key`. Keys and other secrets are references"
    )
    return Key(
        (*place, "…"),
        "text or secret",
        "as the preset says",
        _sentence(text),
        "remounts; new keys at once, without one",
    )
