"""What a gate's answer means: the one figure in Prometheus' JSON; and a gate in one line of a plan, without secrets."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.operation.gates import NoValue, value_of, words
from mountd.settings.schema import GateSettings


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
