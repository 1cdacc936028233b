"""What stderr gets when it leads to systemd's journal: text without a time, each line with its priority."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from mountd.daemon.logs import as_text
from mountd.journald import PRIORITIES, for_stderr, leads_to_journal, prefixed


def test_only_the_stream_that_systemd_names_is_the_journal() -> None:
    reader, writer = os.pipe()
    try:
        found = os.fstat(writer)
        named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert leads_to_journal(writer, named)
        assert not leads_to_journal(writer, {})
        assert not leads_to_journal(writer, {"JOURNAL_STREAM": ""})
        assert not leads_to_journal(writer, {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"})
    finally:
        os.close(reader)
        os.close(writer)
    assert not leads_to_journal(writer, named), "closed"


def test_each_line_has_the_priority() -> None:
    assert prefixed("one\ntwo\n", "warning") == "<4>one\n<4>two\n"
    assert prefixed("one", "error") == "<3>one"
    assert prefixed("", "info") == "<6>"
    assert prefixed("one", "no such level") == "<3>one"


def test_a_failure_has_its_priority_only_in_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    assert for_stderr("one\ntwo") == "<3>one\n<3>two"
    assert for_stderr("one", "warning") == "<4>one"
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
    assert for_stderr("one\ntwo") == "one\ntwo"


def test_an_event_is_its_phrase_and_its_keys() -> None:
    event = {
        "event": "mount is ready",
        "level": "info",
        "mount": "storage",
        "after_s": 1.5,
        "why": 'a "b" c',
        "none": None,
    }
    assert as_text(None, "info", event) == 'mount is ready mount=storage after_s=1.5 why="a \\"b\\" c" none=null'
    assert as_text(None, "info", {"event": "x", "keys": ["a"], "path": "/数据"}) == 'x keys=["a"] path=/数据'


def test_a_traceback_follows_on_lines_of_its_own() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        event: structlog.typing.EventDict = {"event": "bug", "exc_info": True}
        text = as_text(None, "error", structlog.processors.format_exc_info(None, "error", event))
    first, *rest = text.split("\n")
    assert first == "bug"
    assert rest[0].startswith("Traceback")
    assert rest[-2:] == ["ValueError: two", "lines"]


@pytest.mark.parametrize("form", ["auto", "json", "console"])
def test_the_journal_gets_the_priority_in_each_form(form: str) -> None:
    """In a process of its own: there is one log a process."""
    code = (
        "import structlog; from mountd.daemon import logs; from mountd.settings.schema import LogSettings;"
        f"logs.FLUSH_S = 60.0; writer = logs.configure(LogSettings(format={form!r}));"
        "structlog.get_logger().warning('it is full', mount='m'); writer.close()"
    )
    reader, writer = os.pipe()
    try:
        found = os.fstat(writer)
        environment = {**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        subprocess.run([sys.executable, "-c", code], stderr=writer, env=environment, check=True, timeout=60)
        said = os.read(reader, 4096).decode()
        assert said.startswith("<4>")
        if form == "auto":
            assert said == "<4>it is full mount=m\n", "the journal has a time of its own"
        if form == "json":
            assert json.loads(said.removeprefix("<4>"))["event"] == "it is full"
    finally:
        os.close(reader)
        os.close(writer)


@given(st.text(), st.text(), st.sampled_from(sorted(PRIORITIES)))
def test_no_text_breaks_a_line_or_forges_a_priority(phrase: str, value: str, level: str) -> None:
    text = prefixed(as_text(None, level, {"event": phrase, "key": value}), level)
    assert text.startswith(f"<{PRIORITIES[level]}>")
    assert len(text.split("\n")) == 1
    assert not re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff]", text)
