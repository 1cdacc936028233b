"""mountd's own log: one line an event, for people on a terminal, as JSON everywhere else.

Written by a thread from a bounded queue: whoever reads our stderr may stall, go away or run out of disk, and none of
that may stop the daemon. What does not fit is dropped and counted.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
from typing import TextIO

import structlog

from mountd.settings.schema import Log

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
QUEUE_LINES = 10_000
FLUSH_S = 1.0
_level = logging.INFO
"""Asked for each line, since loggers are made once and the level may change."""


class Writer:
    """A file for structlog: `write` and `flush` never block and never raise."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(QUEUE_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1
        return len(text)

    def flush(self) -> None:
        """Done by the thread."""

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            with contextlib.suppress(OSError, ValueError):
                if dropped:
                    self._stream.write(f"mountd: {dropped} lines of the log were dropped: it is not read fast enough\n")
                self._stream.write(text)
                if self._lines.empty():
                    self._stream.flush()

    def close(self) -> None:
        """What is queued goes out, as far as that is possible within a second."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(FLUSH_S)


def configure(log: Log) -> Writer:
    console = log.format == "console" or (log.format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    set_level(log.level)
    writer = Writer(sys.stderr)
    structlog.configure(
        processors=[
            _drop_below_level,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info if not console else _keep,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(writer),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    return writer


def set_level(level: str) -> None:
    """From the next line on."""
    global _level  # noqa: PLW0603 (one log a process)
    _level = LEVELS[level]


def _drop_below_level(_: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    if LEVELS.get(method, logging.ERROR) < _level:
        raise structlog.DropEvent
    return event


def _keep(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return event
