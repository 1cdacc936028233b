"""What a gate's answer means: an address, a command, Prometheus; and a gate in one line of a plan, without secrets."""

import asyncio
import contextlib
import itertools
import json
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.errors import GateFailed
from mountd.operation.gates import MAX_ANSWER_BYTES, NoValue, check, value_of, words
from mountd.settings.gates import GateSettings


def answer(kind: str, result: Any) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}}).encode()


def sample(value: Any) -> dict[str, Any]:
    return {"metric": {"instance": "a"}, "value": [1700000000.123, value]}


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (answer("scalar", [1700000000, "1.5"]), 1.5),
        (answer("vector", [sample("-2e-3")]), -0.002),
        (answer("vector", [sample("+Inf")]), math.inf),
    ],
)
def test_one_figure(body: bytes, value: float) -> None:
    assert value_of(body) == value


NO_PROMETHEUS = "no Prometheus"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (answer("vector", []), "no sample"),
        (answer("vector", [sample("1"), sample("2")]), "2 samples"),
        (answer("vector", [sample("NaN")]), "NaN"),
        (answer("scalar", [1, "-Inf"]), "-Inf"),
        (answer("vector", [{"metric": {}, "histogram": [1, {}]}]), "histogram"),
        (answer("matrix", []), "matrix"),
        (answer("string", [1, "x"]), "string"),
        (b'{"status":"error","errorType":"bad_data","error":"parse error"}', "bad_data: parse error"),
        (answer("scalar", [1, "x"]), NO_PROMETHEUS),
        (answer("scalar", [1, 1.5]), NO_PROMETHEUS),
        (answer("vector", ["x"]), NO_PROMETHEUS),
        (answer("vector", {}), NO_PROMETHEUS),
        (answer("tensor", []), NO_PROMETHEUS),
        (b'{"status":"success"}', NO_PROMETHEUS),
        (b"[]", NO_PROMETHEUS),
        (b"<html>", NO_PROMETHEUS),
        (b"\xff", NO_PROMETHEUS),
        (b"", NO_PROMETHEUS),
        (b"[" * 100_000, NO_PROMETHEUS),
    ],
)  # fmt: skip
def test_no_figure(body: bytes, named: str) -> None:
    with pytest.raises(NoValue, match=named):
        value_of(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "metric", "x"]), inner),
    max_leaves=8,
)


@given(st.sampled_from(["scalar", "vector"]), json_values)
def test_whatever_answers_it_is_a_figure_or_none(kind: str, result: Any) -> None:
    try:
        value = value_of(answer(kind, result))
    except NoValue:
        return
    assert not math.isnan(value)


@pytest.mark.parametrize(
    ("gate", "text"),
    [
        ({"http": "http://127.0.0.1:7860/config"}, "http http://127.0.0.1:7860/config"),
        ({"command": ["say", "你好 a"]}, "command say '你好 a'"),
        ({"command": ["python", "-c", "a\n  b\x1b[2J"]}, "command python -c 'a b\N{REPLACEMENT CHARACTER}[2J'"),
        ({"prometheus": "http://p:9090/", "query": "max(up)", "max": 2.5}, "prometheus max(up) <= 2.5"),
        ({"command": ["x" * 200]}, f"command {'x' * 91}…"),
        ({"http": "http://h:1/p?key=hunter2"}, "http http://h:1/p?key=********"),
        ({"command": ["ask", "--token", "hunter2"]}, "command ask --token '********'"),
    ],
)
def test_the_words_of_a_plan(gate: dict[str, Any], text: str) -> None:
    assert words(GateSettings(**gate)) == text


# -- asked ------------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def answering(head: str, body: bytes = b"") -> AsyncIterator[tuple[str, list[str]]]:
    """The address of a server with one answer, and what it was asked for; none to an empty `head`."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            asked.append((await reader.read(65536)).decode(errors="replace").split("\r\n")[0])
            if head:
                length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(f"HTTP/1.1 {head}\r\n{length}".encode() + body)
                await writer.drain()
            else:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def outcome(gate: dict[str, Any]) -> tuple[str, bool]:
    """Code and retryable of its failure; code "" when it passes."""
    settings = GateSettings.model_validate(gate)
    try:
        await check(settings, number=1, model="hub", version="v23", environment={"GIVEN": "1"})
    except GateFailed as failed:
        return failed.code, failed.retryable
    return "", False


PASSED, FAILED = ("", False), ("gate-failed", False)
UNANSWERED, MAY_PASS = ("gate-unanswered", False), ("gate-unanswered", True)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ("200 OK", PASSED),
        ("302 Found\r\nLocation: /login", PASSED),
        ("399 Odd", PASSED),
        ("400 Bad Request", FAILED),
        ("503 Unavailable", FAILED),
        ("", FAILED),
    ],
)
async def test_an_address_is_asked_once_and_its_status_decides(head: str, expected: tuple[str, bool]) -> None:
    async with answering(head) as (url, asked):
        assert await outcome({"http": f"{url}/ready", "timeout": "60s" if head else "50ms"}) == expected
    if head:  # otherwise its time may be over before it has asked
        assert asked == ["GET /ready HTTP/1.1"]


async def test_an_address_that_refuses_is_a_version_that_does_not_serve_and_one_without_tls_a_mistake() -> None:
    async with answering("200 OK") as (url, _):
        assert await outcome({"http": url.replace("http:", "https:")}) == MAY_PASS
    assert await outcome({"http": url}) == FAILED


@pytest.mark.parametrize(
    ("head", "body", "expected"),
    [
        ("200 OK", answer("scalar", [1, "2.5"]), PASSED),
        ("200 OK", answer("scalar", [1, "2.6"]), FAILED),
        ("200 OK", answer("scalar", [1, "+Inf"]), FAILED),
        ("200 OK", b"<html>", UNANSWERED),
        ("400 Bad Request", b'{"status":"error","errorType":"bad_data","error":"parse error"}', UNANSWERED),
        ("499 Odd", b"", UNANSWERED),
        ("500 Internal Server Error", b"", MAY_PASS),
        ("200 OK", answer("scalar", [1, "1"]) + b" " * MAX_ANSWER_BYTES, UNANSWERED),
        ("200 OK", answer("scalar", [1, "1"]).ljust(MAX_ANSWER_BYTES), PASSED),
        ("", b"", MAY_PASS),
    ],
    ids=itertools.count(),
)
async def test_prometheus_is_asked_for_one_figure(head: str, body: bytes, expected: tuple[str, bool]) -> None:
    async with answering(head, body) as (url, asked):
        gate = {"prometheus": url, "query": "max(up)", "max": 2.5, "timeout": "60s" if head else "50ms"}
        assert await outcome(gate) == expected
    if head:
        assert asked == ["GET /api/v1/query?query=max(up) HTTP/1.1"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["true"], PASSED),
        (["false"], FAILED),
        (["sh", "-c", 'test "$MOUNTD_MODEL $MOUNTD_VERSION $GIVEN" = "hub v23 1"'], PASSED),
        (["sleep", "600"], FAILED),
        (["/nonexistent/gate"], UNANSWERED),
    ],
)
async def test_a_command_passes_with_exit_code_0(command: list[str], expected: tuple[str, bool]) -> None:
    assert await outcome({"command": command, "timeout": "50ms" if command[0] == "sleep" else "60s"}) == expected
