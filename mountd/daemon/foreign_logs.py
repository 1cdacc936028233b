"""Writes what libraries and Python report into mountd's log, a few lines a minute of each kind."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from aiohttp.http_exceptions import HttpProcessingError

from mountd.text import storable

log = structlog.get_logger()

WINDOW_S = 60.0
LINES = 5
"""In a window, of each kind of message; garbage sent to a port must not fill the disk."""
KINDS = 100
TEXT_CHARACTERS = 500
TRACE_CHARACTERS = 8000
_CLIENTS_FAULT = (HttpProcessingError, ConnectionError)
"""Logged without a traceback, which would not help."""


@dataclass(slots=True)
class _Window:
    began: float
    lines: int = 0
    left_out: int = 0


class Limiter:
    """Which messages are logged: LINES of a kind in a window, of the KINDS that came last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, _Window] = OrderedDict()
        self._lock = threading.RLock()  # a finalizer may report in the middle

    def admit(self, kind: str) -> int | None:
        """How many of this kind were left out before this one; None when it is left out as well."""
        with self._lock:
            now = self._clock()
            window = self._windows.get(kind)
            if window is None or now - window.began >= WINDOW_S:
                window = self._windows[kind] = _Window(now, left_out=window.left_out if window else 0)
            self._windows.move_to_end(kind)
            while len(self._windows) > KINDS:
                self._windows.popitem(last=False)
            if window.lines == LINES:
                window.left_out += 1
                return None
            window.lines += 1
            left_out, window.left_out = window.left_out, 0
            return left_out


class Foreign(logging.Handler):
    """The one handler of Python's own logging."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._limiter = Limiter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:
            text = _text_of(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        method = "error" if record.levelno >= logging.ERROR else "warning"
        self.report(record.name, text, error, kind=_text_of(record.msg), method=method)

    def report(
        self, source: str, text: str, error: BaseException | None, *, kind: str = "", method: str = "error"
    ) -> None:
        """Never raises, in whatever thread and state it is called."""
        first = (kind or text).partition("\n")[0][:TEXT_CHARACTERS]
        left_out = self._limiter.admit(f"{source}: {first}")
        if left_out is None:
            return
        fields: dict[str, Any] = {"source": source, "text": _line(text)}
        if error is not None:
            fields["cause"] = _line(f"{type(error).__name__}: {_text_of(error)}")
            if not isinstance(error, _CLIENTS_FAULT):
                fields["exception"] = "".join(traceback.format_exception(error))[-TRACE_CHARACTERS:]
        if left_out:
            fields["left_out"] = left_out
        getattr(log, method)("a library reports", **fields)


def _text_of(value: object) -> str:
    """`str(value)`; says so where that raises: what a library reports may be broken itself."""
    try:
        return str(value)
    except Exception as error:
        return f"a {type(value).__name__} whose text cannot be had: {type(error).__name__}"


def _line(text: str) -> str:
    return storable(" ".join(text.split()), TEXT_CHARACTERS)


def install() -> None:
    """From now on nothing else writes to stderr: loggers, warnings, exceptions that nothing could catch."""
    foreign = Foreign()
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.handlers = [foreign]
    root.setLevel(logging.WARNING)

    def unraisable(found: sys.UnraisableHookArgs) -> None:
        foreign.report("python", found.err_msg or "exception ignored", found.exc_value)

    def in_thread(found: threading.ExceptHookArgs) -> None:
        if found.exc_type is not SystemExit:
            foreign.report("python", "a thread has failed", found.exc_value)

    sys.unraisablehook = unraisable
    threading.excepthook = in_thread
