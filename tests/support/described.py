"""An OpenAPI document as a judge of answers: each must be one that it describes, with no key more or less."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema

Answer = tuple[str, str, int, str]
"""method, path as the document has it, HTTP status, media type"""


class Described:
    """`seen`: the answers that were judged."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.seen: set[Answer] = set()
        self._components = {"components": _closed(document["components"])}

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Method, path, operation."""
        for path, item in self.document["paths"].items():
            for method, operation in item.items():
                yield method.upper(), path, operation

    def declared(self) -> set[Answer]:
        """What is described as answered, but for failures that all routes have in common."""
        return {
            (method, path, int(status), media)
            for method, path, operation in self.operations()
            for status, response in operation["responses"].items()
            for media in response.get("content", ())
        }

    def judge(self, method: str, path: str, status: int, media: str, text: str) -> Any:
        """The parsed answer. `path`: as it was asked, with its query. Raises AssertionError."""
        template, operation = self._find(method, path.partition("?")[0])
        assert str(status) in operation["responses"], (method, path, status, text[:500])
        response = self._resolved(operation["responses"][str(status)])
        assert media in response["content"], (method, path, status, media, text[:500])
        found = json.loads(text) if media.endswith("json") else text
        schema = {**_closed(response["content"][media]["schema"]), **self._components}
        problems = [*jsonschema.Draft202012Validator(schema).iter_errors(found)]
        assert problems == [], (method, path, status, [(each.json_path, each.message) for each in problems])
        self.seen.add((method, template, status, media))
        return found

    def _find(self, method: str, path: str) -> tuple[str, dict[str, Any]]:
        for each, template, operation in self.operations():
            if each == method and re.fullmatch(re.sub(r"{\w+}", "[^/]+", template.replace(".", r"\.")), path):
                return template, operation
        raise AssertionError(f"not described: {method} {path}")

    def _resolved(self, response: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = response
        if "$ref" in response:
            found = self.document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        return found


def _closed(schema: Any) -> Any:
    """A copy in which no object may have other keys than those that it lists."""
    found = copy.deepcopy(schema)

    def close(part: Any) -> None:
        for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            close(each)
        if isinstance(part, dict) and part.get("type") == "object" and "properties" in part:
            part["additionalProperties"] = False

    close(found)
    return found
