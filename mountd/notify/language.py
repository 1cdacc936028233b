"""The texts of the language in which a target is written to."""

from __future__ import annotations

import asyncio

from mountd.i18n import ENGLISH, translation
from mountd.notify.texts import Translate


async def in_language(language: str | None) -> Translate:
    """Its catalogue is read at the first use, not in the event loop. For English it is `str`, as `explain` expects."""
    if language in (None, ENGLISH):
        return str
    found = translation(str(language))
    await asyncio.to_thread(found.messages)
    return found.text
