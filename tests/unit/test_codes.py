"""The registry of event codes is what the package writes into its journal: collected from the source, both ways."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

import mountd
from mountd import codes
from mountd.codes import CODES, HEALING, MUST_KNOW
from mountd.gitops import wanted
from mountd.journal import journal, unsent
from mountd.journal.records import REPORTED_KINDS
from mountd.process.resources import _LACKS, SYSTEM_ERROR
from mountd.rclone.failures import _KINDS
from mountd.status.causes import CAUSES
from mountd.status.snapshot import State

TOP = Path(mountd.__file__).parent
TREES = {str(path.relative_to(TOP)): ast.parse(path.read_text()) for path in sorted(TOP.rglob("*.py"))}
WRITERS = {"Happening": 0, "event": 0, "report_event": 1, "_event": 0, "_report": 0, "_write": 0}
"""Functions that write an event, or hand it on to be written, and which argument is its code."""
ONLY_IN = {
    "_event": ("journal/journal.py",),
    "_report": ("operation/schedule.py", "operation/apps.py", "notify/target.py"),
    "_write": ("daemon/recorder.py",),
}
"""Names that mean something else elsewhere."""
KEBAB = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
STATES = {str(state) for state in State}

# What a writer is given that is no literal → the codes that it may be there. A new expression must be added here, and
# with it where its codes come from.
SOURCE_CODES = {wanted.NO_VERSION, wanted.UNREACHABLE, wanted.REFUSED}


def pairs(node: ast.Assign) -> list[tuple[ast.expr, ast.expr]]:
    """Name and value of each, also of `a, b = 1, 2`."""
    target, value = node.targets[0], node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=False))
    return [(target, value)]


def constants(tree: ast.AST) -> dict[str, str]:
    """NAME = "text" anywhere, also of several at once."""
    found = {}
    for node in ast.walk(tree):
        for name, text in pairs(node) if isinstance(node, ast.Assign) else ():
            if isinstance(name, ast.Name) and isinstance(text, ast.Constant) and isinstance(text.value, str):
                found[name.id] = text.value
    return found


def literals(node: ast.AST, known: dict[str, str]) -> set[str] | None:
    """The texts that an expression can be; None: its source does not say."""
    match node:
        case ast.Constant(value=str(text)):
            return {text}
        case ast.Name(id=name) if name in known:
            return {known[name]}
        case ast.IfExp(body=body, orelse=other):
            first, second = literals(body, known), literals(other, known)
            return None if first is None or second is None else first | second
    return None


def assigned(function: ast.AST, name: str, known: dict[str, str]) -> set[str] | None:
    """What a local variable is set to in the function."""
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and any(
            isinstance(each, ast.Name) and each.id == name for each in node.targets
        ):
            texts = literals(node.value, known)
            if texts is None:
                return None
            found |= texts
    return found or None


def written() -> Iterator[tuple[str, str, set[str] | None]]:
    """Module, the expression of the code as it is written, and the texts that it can be."""
    for module, tree in TREES.items():
        known = constants(TREES["journal/records.py"]) | constants(tree)
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for call in ast.walk(function):
                if not isinstance(call, ast.Call):
                    continue
                name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                if name not in WRITERS or len(call.args) <= WRITERS[name]:
                    continue
                if name == "event" and "journal" not in ast.unparse(call.func):
                    continue
                if module not in ONLY_IN.get(name, (module,)):
                    continue
                code = call.args[WRITERS[name]]
                texts = literals(code, known)
                if texts is None and isinstance(code, ast.Name):
                    texts = assigned(function, code.id, known)
                yield module, ast.unparse(code), texts


def keyword_codes(*modules: str) -> set[str]:
    """`code="…"` in calls of these modules, and assignments to `code`, `code, hint = "…" if … else …, …` among them."""
    found: set[str] = set()
    for module in modules:
        known = constants(TREES[module])
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.keyword) and node.arg == "code":
                found |= literals(node.value, known) or set()
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Reason", "needs_fix") and node.args:
                found |= literals(node.args[0], known) or set()
            for name, text in pairs(node) if isinstance(node, ast.Assign) else ():
                if getattr(name, "id", "") == "code":
                    for each in (text.body, text.orelse) if isinstance(text, ast.IfExp) else (text,):
                        found |= literals(each, known) or set()
    return found - {""}


def lacks() -> set[str]:
    return {code for code, _, _ in _LACKS.values()} | {SYSTEM_ERROR}


def of_a_bucket() -> set[str]:
    """What BucketProbe passes to `backend_status`: its own codes, and those that rclone's errors are taken for."""
    of_rclone = {code for _, code, _, _ in _KINDS} | {"bucket-error"}
    return of_rclone | {code for code in keyword_codes("mount/bucket.py") if KEBAB.fullmatch(code)}


OF_RESULTS = {journal.UPLOADED, unsent.LOST, unsent.REFUSED, unsent.FAILED}
"""Written in one transaction with what happened to a file, by statements of journal/results.py and unsent.py."""
FLOWS: dict[tuple[str, str], set[str]] = {
    ("status/events.py", "code"): {"ready", "not-ready", "link-drifted", "link-blocked"}
    | lacks()
    # the lacks of the parts of mountd, of the TCP port, and of a mount that is apart
    | {"tokens-unusable", "tls-unusable", "secret-readable", "secret-missing", "mount-not-visible"}
    | {"sync-window-closed", "sync-window-opened"},
    ("status/events.py", "now.code"): {"content-changed"},
    ("status/events.py", "new.code"): SOURCE_CODES | {"secret-missing", "conf-unwritable"} | lacks(),
    ("status/events.py", "remote.reason.code"): of_a_bucket(),
    ("status/events.py", "outbox.reason.code"): {code for code, cause in CAUSES.items() if cause.layer == "outbox"},
    ("status/events.py", "f'{kind}-{status.state}'"): {
        f"{kind}-{state}" for kind, state in product(("mount", "app"), STATES)
    },
    ("status/alarms.py", "end"): set(HEALING),
    ("operation/schedule.py", "f'schedule-{result}'"): {"schedule-missed", "schedule-failed"},
    ("journal/journal.py", "f'{record.kind}-{record.result}'"): {
        f"{kind}-{result}"
        for kind in REPORTED_KINDS
        for result in ("committed", "rolled-back", "failed", "refused", "cancelled", "interrupted")
    },
    # Handed on: what calls them stands above.
    ("operation/results.py", "code"): set(),
    ("operation/schedule.py", "code"): set(),
    ("operation/apps.py", "code"): set(),
    ("notify/target.py", "code"): set(),
    ("journal/journal.py", "code"): set(),
    ("daemon/recorder.py", "code"): set(),
    ("daemon/recorder.py", "happening.code"): set(),
    ("daemon/recorder.py", "event.code"): set(),
}
"""Also what a journal of another schema holds is one of these: no code is ever renamed."""


def test_every_code_that_is_written_is_registered() -> None:
    unknown, seen = {("journal/results.py", code) for code in OF_RESULTS - set(CODES)}, set()
    for module, expression, texts in written():
        if texts is None:
            assert (module, expression) in FLOWS, f"{module} writes {expression}: say in FLOWS which codes that can be"
            seen.add((module, expression))
        for text in texts or FLOWS[module, expression]:
            if text not in CODES:
                unknown.add((module, text))
    assert unknown == set()
    assert {key for key in FLOWS if key not in seen} == set(), "nothing writes these any more"


def test_every_code_that_is_registered_is_written() -> None:
    found = set(OF_RESULTS)
    for module, expression, texts in written():
        found |= texts or FLOWS.get((module, expression), set())
    assert set(CODES) - found == set()


def test_the_codes_of_results_are_those_of_the_runner() -> None:
    found = set()
    for module in ("operation/runner.py", "operation/recover.py", "operation/switch.py"):
        for node in ast.walk(TREES[module]):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "OperationOutcome":
                found |= literals(node.args[0], {}) or set()
            if isinstance(node, ast.keyword) and node.arg == "result":
                found |= literals(node.value, {}) or set()
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "result":
                for each in ast.walk(node.value):
                    found |= literals(each, {}) or set()
    assert {f"switch-{result}" for result in found} <= set(CODES)
    assert found == {"committed", "rolled-back", "failed", "refused", "cancelled", "interrupted"}


def test_what_ends_an_alarm_is_no_alarm_itself() -> None:
    assert set(CODES) >= HEALING
    assert not any(CODES[code].healed_by for code in HEALING)


def test_codes_and_their_meanings_are_fit_for_a_table() -> None:
    for code, each in CODES.items():
        assert KEBAB.fullmatch(code)
        assert len(code) <= 40
        assert 5 < len(each.meaning) <= 80
        assert "\n" not in each.meaning
        assert not each.meaning.endswith(".")


@pytest.mark.parametrize(
    ("pattern", "wanted_codes"),
    [
        ("ready", ["ready"]),
        ("*-ready", ["not-ready"]),
        ("switch-*", [code for code in CODES if code.startswith("switch-")]),
        ("*", list(CODES)),
        ("app-*ed", ["app-stopped", "app-failed", "app-stop-asked", "app-start-asked", "app-signalled"]),
        ("r.ady", []),
        ("read", []),
    ],
)
def test_a_pattern_means_whole_codes(pattern: str, wanted_codes: list[str]) -> None:
    assert sorted(codes.matching(pattern)) == sorted(wanted_codes)


@pytest.mark.parametrize(
    ("text", "fine"), [("switch-*", True), ("*", True), ("", False), ("A*", False), ("a b", False)]
)
def test_what_can_be_a_pattern(text: str, fine: bool) -> None:
    assert codes.is_pattern(text) is fine


def test_people_must_know_what_needs_them() -> None:
    assert {"not-ready", "app-failed", "mount-failed", "content-changed", "switch-rolled-back"} <= set(MUST_KNOW)
    assert not set(MUST_KNOW) & {"ready", "app-running", "data-loading", "restart-requested"}
