"""Compares the live version in the bucket every 10 minutes with what went live; it must never change.

A look costs one listing and one HEAD, each in place of a bucket probe. It reads the manifest again only if the store
says that it was written again. The start-up has compared everything just before.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from mountd.errors import MountdError
from mountd.journal.journal import Journal, KnownContent
from mountd.model import manifest
from mountd.model.changes import holding, recorded
from mountd.model.content import Content, Touch
from mountd.model.known import alarm, changed_since, differences
from mountd.model.look import differences_of, list_files, manifest_digest
from mountd.model.model import Model
from mountd.status.board import Board
from mountd.status.snapshot import Health, Snapshot

log = structlog.get_logger()

INTERVAL_S = 600.0
"""How long a changed version may go unnoticed."""
SPREAD_S = 60.0
"""The first look, and the first after an outage, comes at a random moment within this time: many pods that start
together do not ask at once."""


@dataclass(slots=True)
class AuditState:
    """What is known of one model's live version."""

    key: object
    due: float
    digest: str
    """of its manifest as it was read last"""
    fingerprint: str | None = None
    """what the store reported of the manifest then; None: it was not asked"""


class Audit:
    """A reload may change `models` at any time."""

    def __init__(self, models: Mapping[str, Model], board: Board, journal: Journal) -> None:
        self._models = models
        self._board = board
        self._journal = journal
        self._states: dict[str, AuditState] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            for model in list(self._models.values()):
                await self._attend(model)
            for name in self._states.keys() - self._models.keys():
                del self._states[name]
            due = min((state.due for state in self._states.values()), default=None)
            await self._board.changed(None if due is None else max(0.0, due - time.monotonic()))

    async def _attend(self, model: Model) -> None:
        content, snapshot, now = model.content, self._board.snapshot, time.monotonic()
        status = snapshot.models.get(model.name)  # a reload has just added it, if it is not there yet
        if status is None or (content is None and not (status.linked and status.pinned)):
            return
        key = (content, status.current, status.mount_restarts)
        state = self._states.get(model.name)
        if state is None or state.key != key:
            digest = content.digest if content else ""
            state = AuditState(key, now + random.uniform(0, SPREAD_S), digest)  # noqa: S311
            self._states[model.name] = state
        if now < state.due:
            return
        if not _may_ask(model, snapshot):
            state.due = now + random.uniform(SPREAD_S / 2, SPREAD_S)  # noqa: S311
            return
        state.due = now + INTERVAL_S
        try:
            if content is None:
                await self._look_for(model, status.current or "")
            else:
                await self._look(model, content, state)
        except MountdError as error:
            log.info("cannot check whether the live version has changed", model=model.name, cause=error.text)

    async def _look(self, model: Model, content: Content, state: AuditState) -> None:
        """Reports a change once a second look has found it and the bucket gives valid answers: a proxy that answers in
        the store's place may show a version without its files. Raises MountdError."""
        known = await self._recorded(model, content)
        problems, more = await self._problems(model, content, state, known)
        if problems:
            await model.versions.disk.confirm()
            problems, more = await self._problems(model, content, state, known)
        reason = alarm(model.name, content.version, known, problems, more) if problems else None
        if model.content is not content:
            return  # it is no longer live
        model.changes.show(content.version, reason)

    async def _look_for(self, model: Model, version: str) -> None:
        """Of a pinned version that went live without the bucket: whether that holds it. Raises MountdError."""
        content, lost = await model.versions.at_start(version, Touch.NONE, lambda _: None)
        await model.changes.compare(content, lost)
        if model.content is None and model.status.current == version:
            model.changes.show(version, model.changes.of(version))

    async def _problems(
        self, model: Model, content: Content, state: AuditState, known: KnownContent
    ) -> tuple[list[str], int]:
        """The first of them, and how many more there are."""
        disk, before = model.versions.disk, content.files
        async with disk.in_turn():
            now = await list_files(disk, content.directory)
        if before.has_manifest and now.has_manifest:
            async with disk.in_turn():
                fingerprint = await disk.fingerprint(f"{content.directory}/{manifest.NAME}")
            # Where the store reports no digest, two writes within a second have the same time.
            if state.fingerprint not in (None, fingerprint) or state.digest != known.digest:
                state.digest = await manifest_digest(disk, content.directory)
            state.fingerprint = fingerprint
        named, more = await differences_of(disk, before, now)
        digest = state.digest if before.has_manifest else now.digest
        return differences(known, before, digest, now, named), more

    async def _recorded(self, model: Model, content: Content) -> KnownContent:
        """A live version that was never recorded, as after a lost journal, counts as it is now."""
        known = await recorded(self._journal, model.name, content)
        if known is None:
            known = holding(model.name, content)
            await self._journal.record_content(known)
        return known


async def changed(journal: Journal, model: str, contents: Sequence[Content]) -> dict[str, str]:
    """Of versions that were live: version → why it is not what it was. Raises MountdError."""
    found = {}
    for content in contents:
        if content.files:  # else it could not be listed
            why = changed_since(await journal.content(model, content.version), content)
            if why is not None:
                found[content.version] = why
    return found


def _may_ask(model: Model, snapshot: Snapshot) -> bool:
    """Never while the bucket is not well, and never beside an operation that changes something."""
    mount = snapshot.mounts.get(model.settings.mount)
    well = mount is not None and mount.usable and mount.backend.health is Health.HEALTHY
    is_quiet = all(each.only_loads for each in snapshot.operations)
    return well and snapshot.models[model.name].linked and is_quiet and not snapshot.stopping
