"""The routes as an OpenAPI document: what each reads and answers, by the types that its handler uses."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from mountd import __version__
from mountd.api.documents.failures import ErrorDocument
from mountd.api.roles import Route, RouteAccess

JSON = "application/json"
SCHEMAS = "#/components/schemas/"
LARGEST_ID = 2**63 - 1
BEARER = "bearer"
COOKIE = "session"
SECURITY_SCHEMES: Mapping[str, Any] = {
    BEARER: {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of `http.tokens`, for requests over TCP. On the control socket none is needed.",
    },
    COOKIE: {
        "type": "apiKey",
        "in": "cookie",
        "name": "mountd",
        "description": "The session of a browser, after a login. A change also needs the header `X-Mountd-CSRF`.",
    },
}
SECURITY: Mapping[RouteAccess, list[dict[str, list[str]]]] = {
    RouteAccess.OPEN: [],
    RouteAccess.READ: [{}, {BEARER: []}, {COOKIE: []}],
    RouteAccess.WRITE: [{BEARER: []}, {COOKIE: []}],
    RouteAccess.SIGNED: [],
    RouteAccess.LOGIN: [],
}
WHO: Mapping[RouteAccess, str] = {
    RouteAccess.OPEN: "For everybody.",
    RouteAccess.READ: "For readers and operators; on a loopback address without a token, too.",
    RouteAccess.WRITE: "For operators.",
    RouteAccess.SIGNED: "For everybody who knows the secret of the webhook.",
    RouteAccess.LOGIN: "For everybody who has a token, from a page of this mountd.",
}
ERRORS: Mapping[int, str] = {
    400: "The request is wrong (`exit` 2).",
    401: "A token or a signature is needed, or the one that was sent is not valid.",
    403: "The token is that of a reader, or there are no tokens.",
    404: "There is no such model, version, mount, app or operation (`exit` 3).",
    409: "Another operation runs; `holder` says whose (`exit` 6).",
    413: "The body is too large.",
    422: "It was checked and refused; nothing was changed (`exit` 7).",
    429: "Too many wrong tokens came from this address; `Retry-After` says for how long.",
    500: "A bug in mountd (`exit` 20), or a failure without a status of its own.",
    503: "A part that is needed is not there now; trying again can help (`exit` 1).",
}
FAILURES: Mapping[RouteAccess, tuple[int, ...]] = {
    RouteAccess.OPEN: (400, 404, 500, 503),
    RouteAccess.READ: (400, 401, 403, 404, 429, 500, 503),
    RouteAccess.WRITE: (400, 401, 403, 404, 409, 413, 422, 429, 500, 503),
    RouteAccess.SIGNED: (401, 429, 500, 503),
    RouteAccess.LOGIN: (400, 401, 403, 413, 429, 500, 503),
}
LAST_EVENT = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "As `after`, for a stream: what a browser sends when it reconnects.",
    "schema": {"type": "integer", "minimum": 0, "maximum": LARGEST_ID},
}
EVENT_STREAM = "text/event-stream"
ABOUT = """\
The HTTP API of mountd, on its control socket and on its TCP port (`http.listen`).

Keys may be added to answers; `schema` changes when one is removed or gets another meaning. Each failure is a document
with `error`, whose `exit` is the exit code that the command has for it.
"""


class _Untitled(GenerateJsonSchema):
    """Keys are their own titles."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def document(routes: Iterable[Route]) -> dict[str, Any]:
    """An OpenAPI 3.1 document of all of them."""
    table = list(routes)
    kinds = {id(kind): kind for route in table for kind in _kinds(route)} | {id(ErrorDocument): ErrorDocument}
    adapters = [(key, "serialization", TypeAdapter(kind)) for key, kind in kinds.items()]
    found, definitions = TypeAdapter.json_schemas(
        adapters,  # type: ignore[arg-type]  # its keys are whatever identifies a type
        ref_template=SCHEMAS + "{model}",
        schema_generator=_Untitled,
    )
    schemas = {key: schema for (key, _), schema in found.items()}
    components = definitions["$defs"]
    for body in {each.body.__name__ for each in table if each.body is not None}:
        _allow_null(components[body])
    paths: dict[str, dict[str, Any]] = {}
    for route in table:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas, components)
    for query in {each.query.__name__ for each in table}:  # their fields are parameters
        del components[query]
    return {
        "openapi": "3.1.0",
        "info": {"title": "mountd", "version": __version__, "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                f"Error{status}": {"description": text, "content": {JSON: {"schema": schemas[id(ErrorDocument)]}}}
                for status, text in ERRORS.items()
            },
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def _kinds(route: Route) -> Iterator[Any]:
    """The types of which schemas are made."""
    if route.body is not None:
        yield route.body
    for answer in route.answers.values():
        yield from answer.values() if isinstance(answer, Mapping) else [answer]
    yield route.query


def _operation(route: Route, schemas: Mapping[int, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    summary, _, rest = route.about.partition("\n\n")
    parameters = [*_in_path(route.path), *_in_query(components[route.query.__name__])]
    responses = {str(status): _answer(status, kind, schemas) for status, kind in route.answers.items()}
    if EVENT_STREAM in str(responses):
        parameters.append(LAST_EVENT)
    for status in FAILURES[route.access]:
        if status != 404 or route.access is RouteAccess.WRITE or _may_name_nothing(parameters):
            _add_failure(responses, status, schemas)
    found: dict[str, Any] = {
        "operationId": _identifier(route),
        "summary": " ".join(summary.split()),
        "description": "\n\n".join(part for part in (rest.strip(), WHO[route.access]) if part),
        "security": SECURITY[route.access],
        "x-mountd-access": route.access.value,
        "parameters": parameters,
        "responses": dict(sorted(responses.items())),
    }
    if route.body is not None:
        required = bool(components[route.body.__name__].get("required"))
        found["requestBody"] = {"required": required, "content": {JSON: {"schema": schemas[id(route.body)]}}}
    elif route.access is RouteAccess.SIGNED:
        found["requestBody"] = {"required": True, "content": {JSON: {"schema": {}}}}
    return found


def _answer(status: int, answer: Any, schemas: Mapping[int, Any]) -> dict[str, Any]:
    kinds = answer if isinstance(answer, Mapping) else {JSON: answer}
    content = {media: {"schema": schemas[id(kind)]} for media, kind in kinds.items()}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _add_failure(responses: dict[str, Any], status: int, schemas: Mapping[int, Any]) -> None:
    """Beside the document that the route itself answers with this status, where there is one."""
    if str(status) in responses:
        content = responses[str(status)]["content"][JSON]
        content["schema"] = {"anyOf": [content["schema"], schemas[id(ErrorDocument)]]}
    else:
        responses[str(status)] = {"$ref": f"#/components/responses/Error{status}"}


def _in_path(path: str) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        number = {"type": "integer", "minimum": 0, "maximum": LARGEST_ID}
        schema = number if name == "id" else {"type": "string"}
        yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, found in query["properties"].items():
        schema = dict(found)
        about = {"description": schema.pop("description")} if "description" in schema else {}
        if schema.get("type") == "integer":
            schema |= {"minimum": 0, "maximum": LARGEST_ID}
        yield {"name": name, "in": "query", "required": False, **about, "schema": schema}


def _may_name_nothing(parameters: Iterable[Mapping[str, Any]]) -> bool:
    return any(each["in"] == "path" or each["name"] in ("model", "name") for each in parameters)


def _allow_null(body: dict[str, Any]) -> None:
    """In place: null is as if the field was not given, and no other field is known."""
    body["additionalProperties"] = False
    for name, schema in body["properties"].items():
        if schema.get("type") == "integer":
            schema |= {"minimum": -LARGEST_ID, "maximum": LARGEST_ID}
        if name not in body.get("required", ()) and isinstance(schema["type"], str):
            schema["type"] = [schema["type"], "null"]


def _identifier(route: Route) -> str:
    words = re.sub(r"{(\w+)}", r"by_\1", route.path.removeprefix("/api/v1"))
    return f"{route.method.lower()}{re.sub(r'[^a-z]+', '_', words)}"
