"""What somebody asked for that is no operation, as an event: so that the history says who asked for everything."""

from __future__ import annotations

import structlog

from mountd.errors import JournalError
from mountd.journal.journal import Journal

log = structlog.get_logger()


async def record(journal: Journal, code: str, object_: str, text: str) -> None:
    """A journal that cannot be written does not keep anybody from a restart; the log has it then."""
    try:
        await journal.event(code, object_, text)
    except JournalError as error:
        log.warning("cannot record a request", request=text, cause=error.text)
