"""A request that is not an operation, as an event: so that the events say who asked for it."""

from __future__ import annotations

import structlog

from mountd.errors import JournalError
from mountd.journal.journal import Journal

log = structlog.get_logger()


async def record(journal: Journal, code: str, object_: str, text: str) -> None:
    """When the journal cannot be written, the request is carried out all the same, and the log has it."""
    try:
        await journal.event(code, object_, text)
    except JournalError as error:
        log.warning("cannot record a request", request=text, cause=error.text)
