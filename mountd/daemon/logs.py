"""mountd's own log: one line for each event, for people on a terminal and in the journal, as JSON everywhere else.

Written by a thread from a bounded queue: the reader of our stderr may stall, go away or run out of disk, and none of
that may stop the daemon. What does not fit is dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TextIO

import structlog

from mountd.daemon import foreign_logs, journal_stream
from mountd.daemon.journal_stream import JournalStream
from mountd.journald import for_stderr, leads_to_journal, native_socket, prefixed
from mountd.settings.schema import LogSettings
from mountd.text import dumps, printable, storable

Entry = dict[str, str]
"""Fields of an entry in the journal."""
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
QUEUE_LINES = 10_000
FLUSH_S = 1.0
LONGEST_VALUE = 16 * 1024
"""Characters of one value: a line of an app has at most 8 KiB, a traceback more than most."""
_level = logging.INFO
"""Checked for each line: loggers are made once, and the level may change."""


class Writer:
    """A file for structlog: `write` and `flush` never block and never raise."""

    def __init__(self, stream: TextIO | JournalStream) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | Entry | None] = queue.Queue(QUEUE_LINES)
        self._dropped = 0
        self.render_dropped: Callable[[int], str] = _render_dropped
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str | Entry) -> int:
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1
        return len(text)

    def flush(self) -> None:
        """Runs in the thread."""

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            with contextlib.suppress(OSError, ValueError):
                if dropped:
                    self._stream.write(self.render_dropped(dropped))
                self._stream.write(text)  # type: ignore[arg-type]  # entries are made for a JournalStream alone
                if self._lines.empty():
                    self._stream.flush()

    def close(self) -> None:
        """Writes what is queued, for at most a second."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(FLUSH_S)


def _render_dropped(lines: int) -> str:
    return for_stderr(f"mountd: {lines} lines of the log were dropped: it is not read fast enough\n", "warning")


def configure(log: LogSettings) -> Writer:
    """`auto` is console on a terminal, entries with fields in the journal, JSON elsewhere; text where the journal takes
    lines alone. It gets each line's priority."""
    journal = leads_to_journal(2, os.environ)
    native = native_socket(2) if journal else ""
    chosen: str = log.format
    if chosen == "auto":
        chosen = "console" if sys.stderr.isatty() else "text" if journal else "json"
    set_level(log.level)
    entries = chosen == "text" and bool(native)
    writer = Writer(JournalStream(native, sys.stderr) if entries else sys.stderr)
    render = _renderer(RENDERERS[chosen](), journal)
    if chosen == "json":
        dropped = {"event": "lines of the log were dropped: it is not read fast enough", "level": "warning"}
        writer.render_dropped = lambda lines: render(None, "warning", {**dropped, "lines": lines}) + "\n"
    structlog.configure(
        processors=[
            _drop_below_level,
            structlog.processors.add_log_level,
            *([] if chosen == "text" else [structlog.processors.TimeStamper(fmt="iso", utc=True)]),
            structlog.processors.format_exc_info,
            partial(_clean, shown=chosen == "console"),
            as_entry if entries else render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=(lambda *_: EntryLogger(writer)) if entries else structlog.WriteLoggerFactory(writer),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    foreign_logs.install()
    return writer


def set_level(level: str) -> None:
    """Takes effect with the next line."""
    global _level  # noqa: PLW0603 (one log a process)
    _level = LEVELS[level]


def _drop_below_level(_: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if LEVELS.get(method, logging.ERROR) < _level:
        raise structlog.DropEvent
    return event


def _clean(_: object, __: str, event: structlog.typing.EventDict, *, shown: bool) -> structlog.typing.EventDict:
    """A value from outside: bounded, and, where it is `shown` as text, without control characters."""
    return {key: _cleaned(value, shown) for key, value in event.items()}


def _cleaned(value: Any, shown: bool) -> Any:
    if isinstance(value, str):
        text = storable(value, LONGEST_VALUE)
        return printable(text, keep="\n\t") if shown else text
    if isinstance(value, dict):
        return {key: _cleaned(each, shown) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(each, shown) for each in value]
    return value


def _dumps(event: structlog.typing.EventDict, **_: Any) -> str:
    return dumps(event, default=repr)


def _renderer(render: structlog.typing.Processor, journal: bool) -> Callable[..., str]:
    """The last processor: an event → the text of its line or lines, in the journal with their priority."""

    def rendered(logger: object, method: str, event: structlog.typing.EventDict) -> str:
        text = str(render(logger, method, event))
        return prefixed(text, method) if journal else text

    return rendered


def as_text(_: object, __: str, event: structlog.typing.EventDict) -> str:
    """`phrase key=value …`; the journal adds time and priority. A traceback follows on lines of its own."""
    values = {key: value for key, value in event.items() if key not in ("event", "level", "exception")}
    words = [str(event.get("event", "")), *(f"{key}={_value(value)}" for key, value in values.items())]
    text = printable(" ".join(words))
    return text + "\n" + printable(event["exception"], keep="\n") if event.get("exception") else text


def as_entry(_: object, method: str, event: structlog.typing.EventDict) -> tuple[tuple[Entry], dict[str, Any]]:
    """The arguments of EntryLogger's methods."""
    return (journal_stream.fields(event, method, as_text(_, method, event)),), {}


class EntryLogger:
    """What structlog calls at the end, with an entry."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def msg(self, entry: Entry) -> None:
        self._writer.write(entry)

    debug = info = warning = error = critical = msg


def _value(value: object) -> str:
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, default=str)


_PLAIN = re.compile(r"""[^\s"=]+""")
RENDERERS: dict[str, Callable[[], structlog.typing.Processor]] = {
    "console": lambda: structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()),
    "json": lambda: structlog.processors.JSONRenderer(_dumps),
    "text": lambda: as_text,
}
