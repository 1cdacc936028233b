"""The OpenAPI document: valid, complete, and of the fields and codes that the routes themselves use."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from mountd.api import openapi
from mountd.api.documents import requests
from mountd.api.roles import Route, RouteAccess
from mountd.api.routes import HTTP_OF_EXIT
from tests.support.described import Described
from tests.support.shelf import Shelf

BODIES = [name for name in vars(requests) if name.endswith("Body")]


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[Route]:
    return Shelf(tmp_path_factory.mktemp("shelf")).server()._routes.table()


@pytest.fixture(scope="module")
def document(routes: list[Route]) -> dict[str, Any]:
    return openapi.document(routes)


def references(part: Any) -> Iterator[str]:
    for key, each in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        if key == "$ref":
            yield each
        yield from references(each)


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)
    assert json.loads(json.dumps(document)) == document
    broken = copy.deepcopy(document)
    del broken["paths"]["/healthz"]["get"]["responses"]["200"]["description"]
    with pytest.raises(Exception, match="responses"):
        validate(broken)


def test_it_has_every_route_and_no_other(routes: list[Route], document: dict[str, Any]) -> None:
    described = {(method, path): each for method, path, each in Described(document).operations()}
    assert list(described) == [(route.method, route.path) for route in routes]
    for route in routes:
        found = described[route.method, route.path]
        assert found["x-mountd-access"] == route.access.value
        assert found["summary"].endswith(".") or ": " in found["summary"], route.path
        assert {int(status) for status in found["responses"]} >= {*route.answers}
        assert min(route.answers) in (200, 202), route.path
    assert len({each["operationId"] for each in described.values()}) == len(routes)


def test_each_operation_says_what_it_asks_for(routes: list[Route], document: dict[str, Any]) -> None:
    for route in routes:
        found = document["paths"][route.path][route.method.lower()]
        bearer, none = {"bearer": []} in found["security"], {} in found["security"]
        assert bearer is (route.access in (RouteAccess.READ, RouteAccess.WRITE))
        assert ({"session": []} in found["security"]) is bearer
        assert none is (route.access is RouteAccess.READ)
    assert list(document["components"]["securitySchemes"]) == ["bearer", "session"]


def test_each_failure_has_its_document(document: dict[str, Any]) -> None:
    assert {*HTTP_OF_EXIT.values(), 500} <= {*openapi.ERRORS}
    for status in openapi.ERRORS:
        content = document["components"]["responses"][f"Error{status}"]["content"]
        assert content["application/json"]["schema"]["$ref"].endswith("/ErrorDocument")
    for _, path, found in Described(document).operations():
        changes = found["x-mountd-access"] == "write"
        needed = {"400", "401", "403", "404", "409", "413", "422", "429", "500", "503"} if changes else {"500"}
        if found["x-mountd-access"] not in ("signed", "login"):
            assert needed <= {*found["responses"]}, path


def test_nothing_is_left_over(document: dict[str, Any]) -> None:
    """Types of queries, which are parameters, and such."""
    used = {each.rpartition("/")[2] for each in references(document)}
    assert {*document["components"]["schemas"], *document["components"]["responses"]} == used


@pytest.mark.parametrize("name", BODIES)
def test_every_body_is_that_of_a_route_and_its_fields_say_what_they_are(name: str, routes: list[Route]) -> None:
    assert any(route.body is getattr(requests, name) for route in routes)
    schema = openapi.document(routes)["components"]["schemas"][name]
    assert schema["additionalProperties"] is False
    for key, field in schema["properties"].items():
        assert field["description"], key
        assert ("null" in field["type"]) is (key not in schema.get("required", ())), key


def test_every_parameter_says_what_it_is(document: dict[str, Any]) -> None:
    for _, path, operation in Described(document).operations():
        for each in operation["parameters"]:
            assert each["in"] == "path" or each["description"], path
            assert each["required"] is (each["in"] == "path")


def test_a_key_that_is_missing_or_not_described_is_noticed(document: dict[str, Any], tmp_path: Path) -> None:
    described = Described(document)
    alive = {"schema": 1, "alive": True}
    described.judge("GET", "/healthz", 200, "application/json", json.dumps(alive))
    assert described.seen == {("GET", "/healthz", 200, "application/json")}
    for wrong in ({"schema": 1}, {**alive, "more": 1}, {**alive, "alive": "yes"}):
        with pytest.raises(Exception, match=r"alive|more"):
            described.judge("GET", "/healthz", 200, "application/json", json.dumps(wrong))
    for method, path, status in (("GET", "/healthz", 202), ("POST", "/healthz", 200), ("GET", "/nothing", 200)):
        with pytest.raises(AssertionError):
            described.judge(method, path, status, "application/json", json.dumps(alive))
