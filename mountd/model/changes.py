"""Versions of one model that have changed since they went live: each change is found, and reported once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from mountd.clock import now_text
from mountd.errors import MountdError
from mountd.journal.journal import Journal
from mountd.journal.records import KnownContent
from mountd.model.content import Content
from mountd.model.known import alarm, differences
from mountd.status.snapshot import Reason

log = structlog.get_logger()


class Changes:
    def __init__(self, model: str, journal: Journal, show: Callable[[Reason | None], None]) -> None:
        self._model = model
        self._journal = journal
        self._show = show
        self._reported: dict[str, Reason] = {}

    def of(self, version: str) -> Reason | None:
        """Why it is no longer what it was, as far as is known; None: it is."""
        return self._reported.get(version)

    async def compare(self, content: Content, lost: str = "") -> None:
        """Before it is linked: compares it with what the journal says of it, if that can be read.

        `lost`: why the bucket no longer holds it, of a pinned copy. One that goes live without the bucket says nothing
        of what that holds.
        """
        if not content.files and not lost:
            return
        try:
            known = await recorded(self._journal, self._model, content)
        except MountdError as error:
            log.warning("cannot check whether the version has changed", model=self._model, cause=error.text)
            return
        await rename(self._journal, self._model, content)
        problems = [lost] if lost else []
        if known and not lost:
            problems = differences(known, content.files, content.digest, content.files)
        reason = alarm(self._model, content.version, known, problems) if known and problems else None
        self._note(content.version, reason)

    def show(self, version: str, reason: Reason | None) -> None:
        """Reports it of the live version; None: it is what it was."""
        self._note(version, reason)
        self._show(reason)

    def accept(self, version: str) -> None:
        """It is live as it is now, and the journal says so."""
        self._reported.pop(version, None)
        self._show(None)

    def _note(self, version: str, reason: Reason | None) -> None:
        before = self._reported.pop(version, None)
        if reason is not None:
            self._reported[version] = reason
        if before is None and reason is not None:
            log.error(
                "version has changed since it was live",
                model=self._model,
                version=version,
                cause=reason.text,
                hint=reason.hint,
            )
        elif before is not None and reason is None:
            log.info("version is what it was again", model=self._model, version=version)


def holding(model: str, content: Content) -> KnownContent:
    """What the journal is to know of it from now on."""
    return KnownContent(model, content.version, content.digest, content.listing, now_text())


async def recorded(journal: Journal, model: str, content: Content) -> KnownContent | None:
    """What the journal knows of this version, even under its digest of mountd 0.1. Raises MountdError."""
    known = await journal.content(model, content.version)
    if known is not None and content.former and known.digest == content.former:
        return replace(known, digest=content.digest)
    return known


async def rename(journal: Journal, model: str, content: Content) -> None:
    """What the journal knows under the digest of mountd 0.1, in quarantine too, it knows under the digest of now from
    now on. Until that can be written mountd looks for both."""
    if not content.former:
        return
    try:
        known = await journal.content(model, content.version)
        if content.former in {known.digest if known else "", *await journal.quarantined(model)}:
            await journal.rename_digest(model, content.former, content.digest)
    except MountdError as error:
        log.warning("cannot rename a digest yet", model=model, version=content.version, cause=error.text)
