"""Schemas of custom resources → what tests need of them: strict JSON Schemas without descriptions, one file a kind.

    python -m tests.schemas.shorten FILE.yaml…       CustomResourceDefinitions
    python -m tests.schemas.shorten FILE.json KIND    a JSON Schema with definitions, as Argo Workflows has one

Strict: a key that the definition does not know is an error here. A cluster drops it silently, which is worse.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
KEPT = ("type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "required")
MANY = ("oneOf", "anyOf", "allOf")
GENERATORS = {"list", "git", "selector"}
"""Of the generators of an ApplicationSet, which are nine tenths of its definition: the others count as unknown."""
FREE = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}


def shorten(schema: dict[str, Any]) -> dict[str, Any]:
    """One structural schema of Kubernetes as JSON Schema."""
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    short: dict[str, Any] = {key: schema[key] for key in KEPT if key in schema}
    if "items" in schema:
        short["items"] = shorten(schema["items"])
    if isinstance(more := schema.get("additionalProperties"), dict):
        short["additionalProperties"] = shorten(more)
    if "properties" in schema:
        short["properties"] = {name: shorten(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            short.setdefault("additionalProperties", False)
    for key in MANY:
        if key in schema and all("properties" not in each for each in schema[key]):
            short[key] = [shorten(each) for each in schema[key]]
    if schema.get("nullable") and "type" in short:
        short["type"] = [short["type"], "null"]
    return short


def _few_generators(spec: dict[str, Any]) -> None:
    every = spec["generators"]["items"]["properties"]
    for name in every.keys() - GENERATORS:
        del every[name]
    for generator in every.values():
        generator.get("properties", {}).pop("template", None)


def pick(document: dict[str, Any], kind: str) -> dict[str, Any]:
    """Of the definitions of all kinds those that one kind needs."""
    definitions, found = document["definitions"], dict[str, Any]()
    (start,) = (name for name in definitions if name.rpartition(".")[2] == kind)
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _strict(definitions[name])
            waiting += re.findall(r'"#/definitions/([^"]+)"', json.dumps(found[name]))
    return {"$ref": f"#/definitions/{start}", "definitions": found}


def _strict(part: Any, *, names: bool = False) -> Any:
    """`names`: the keys of this object are names of properties, not words of JSON Schema."""
    if isinstance(part, list):
        return [_strict(each) for each in part]
    if not isinstance(part, dict):
        return part
    words = {key: _strict(value, names=key == "properties" and not names) for key, value in part.items()}
    if names:
        return words
    short = {key: value for key, value in words.items() if key not in ("description", "title", "default")}
    if "properties" in short:
        short.setdefault("additionalProperties", False)
    return short


def main() -> None:
    if sys.argv[1].endswith(".json"):
        name, kind = sys.argv[1:]
        schema = pick(json.loads(Path(name).read_text("utf-8")), kind)
        text = json.dumps(schema, separators=(",", ":"), sort_keys=True)
        (HERE / f"argoproj.io_v1alpha1_{kind}.json").write_text(text + "\n", "utf-8")
        return
    found = (each for name in sys.argv[1:] for each in yaml.load_all(Path(name).read_text("utf-8"), yaml.CSafeLoader))
    for definition in (each["spec"] for each in found if each):
        for version in definition["versions"]:
            schema = shorten(version["schema"]["openAPIV3Schema"])
            schema["properties"] = FREE | {k: v for k, v in schema["properties"].items() if k not in FREE}
            if definition["names"]["kind"] == "ApplicationSet":
                _few_generators(schema["properties"]["spec"]["properties"])
            kind = f"{definition['group']}_{version['name']}_{definition['names']['kind']}.json"
            (HERE / kind).write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n", "utf-8")
            print(kind)


if __name__ == "__main__":
    main()
