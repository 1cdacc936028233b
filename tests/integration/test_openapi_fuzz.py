"""Requests made from the OpenAPI document, valid ones and wrong ones, for every route of a real daemon that may do all:
none of them is answered with a bug or with what is not described, and the daemon goes on."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis import GenerationMode
from schemathesis.generation.case import Case
from schemathesis.specs.openapi import checks

from mountd.operation.apps import SIGNALS
from mountd.operation.drill_plan import DrillKind
from tests.support.admitted import LINES, OPERATOR, bearer
from tests.support.asking import Asking
from tests.support.daemon import Daemon
from tests.support.wait import until

ANSWER_S = 60.0
LONGEST_WAIT_S = 0.05
"""What a request may ask to wait."""
EXAMPLES = 4
"""Of one route and kind at a time."""
KNOWN: Mapping[str, list[str]] = {
    "model": ["cache_hub"],
    "version": ["v22", "v23", "v24"],
    "name": ["storage", "webui"],
    "mount": ["storage"],
    "kind": [*DrillKind, "switch"],
    "for": ["1s", "ready", "version=v22"],
    "at": ["+1h"],
    "level": ["metadata", "data", "pin"],
    "signal": [*SIGNALS],
    "object": ["webui"],
}
"""By the name of a field: what means something to the daemon."""
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
    checks.negative_data_rejection,
]


class Fuzzed:
    """A daemon, its document, and how often each route was asked and answered what."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.answers: dict[str, dict[int, int]] = {}
        document = json.loads(Asking(daemon).unix("GET", "/api/v1/openapi.json").text)
        # Names that the daemon knows, any text, and what no route takes.
        kinds = ((True, GenerationMode.POSITIVE), (False, GenerationMode.POSITIVE), (False, GenerationMode.NEGATIVE))
        self._works: list[tuple[Any, GenerationMode]] = [
            (each.ok(), mode)  # type: ignore[union-attr]  # else the document is wrong, and this raises
            for known, mode in kinds
            for each in schemathesis.openapi.from_dict(_prepared(document, known=known)).get_all_operations()
        ]
        assert len(self._works) == 3 * (sum(len(item) for item in document["paths"].values()) - 1), "all but one stream"

    def run(self, seconds: float, seed: int) -> None:
        """Every route at least once with each kind of requests; then again, until the time is over."""
        deadline, rng = time.monotonic() + seconds, random.Random(seed)
        for round_ in range(10_000):
            rng.shuffle(self._works)
            for operation, mode in self._works:
                if round_ and time.monotonic() > deadline:
                    return
                self._ask(operation, mode, rng.getrandbits(32))

    def _ask(self, operation: Any, mode: GenerationMode, seed: int) -> None:
        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # the daemon is not as it was: nothing could be made smaller
            suppress_health_check=list(HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def asked(case: Case[Any]) -> None:
            self._judge(case)

        try:
            asked()
        except hypothesis.errors.Unsatisfiable:  # a route without fields cannot be asked wrongly
            assert mode is GenerationMode.NEGATIVE

    def _judge(self, case: Case[Any]) -> None:
        _wait_less(case)
        base = f"http://127.0.0.1:{self.daemon.http_port}"
        answer = case.call(base, headers=bearer(OPERATOR), timeout=ANSWER_S)
        counts = self.answers.setdefault(case.operation.label, {})
        counts[answer.status_code] = counts.get(answer.status_code, 0) + 1
        assert answer.status_code < 500 or answer.status_code == 503, case.as_curl_command()
        case.validate_response(answer, checks=CHECKS)


def _prepared(document: dict[str, Any], *, known: bool) -> dict[str, Any]:
    """Without streams, which have no end; `known`: with names that mean something."""
    found = copy.deepcopy(document)
    del found["paths"]["/api/v1/stream"]
    for item in found["paths"].values():
        for operation in item.values():
            kept = [each for each in operation["parameters"] if each["name"] not in ("follow", "Last-Event-ID")]
            for parameter in kept:
                parameter["schema"] = _known(parameter["name"], parameter["schema"]) if known else parameter["schema"]
            operation["parameters"] = kept
    for name, schema in found["components"]["schemas"].items():
        if known and name.endswith("Body"):
            schema["properties"] = {key: _known(key, each) for key, each in schema["properties"].items()}
    return found


def _known(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "string", "enum": KNOWN[name]} if name in KNOWN else schema


def _wait_less(case: Case[Any]) -> None:
    """In place."""
    try:
        wait_s = float(case.query.get("wait", 0.0))
    except (TypeError, ValueError):
        return
    if wait_s > LONGEST_WAIT_S:
        case.query["wait"] = LONGEST_WAIT_S


@pytest.fixture
def fuzzed(make_daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch) -> Fuzzed:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    daemon = make_daemon()
    tokens = daemon.root / "tokens"
    tokens.touch(mode=0o600)
    tokens.write_text(LINES)
    daemon.config["http"]["tokens"] = {"file": str(tokens)}
    daemon.start_ready()
    return Fuzzed(daemon)


@pytest.mark.fuse
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(8.0, id="briefly"),
        pytest.param(240.0, id="longer", marks=[pytest.mark.thorough, pytest.mark.timeout(480)]),
    ],
)
def test_no_request_is_a_bug_or_answered_with_what_is_not_described(fuzzed: Fuzzed, seconds: float) -> None:
    daemon, seed = fuzzed.daemon, random.randrange(2**32)
    pid = daemon.status()["pid"]
    print("seed", seed)
    fuzzed.run(seconds, seed)
    print(json.dumps(fuzzed.answers, indent=1))
    assert daemon.status()["pid"] == pid
    said = daemon.own_log_text()
    assert "Traceback" not in said
    assert "request failed" not in said
    for operation in daemon.status()["operations"]:
        Asking(daemon).post("/api/v1/cancel", id=operation["id"])
    until(lambda: daemon.status()["operation"] is None, ANSWER_S, "what was begun to end")
    assert daemon.stop() == 0
