"""The routes of the access profiles: which files an app opened at its start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from mountd.api.documents import access as documents
from mountd.api.documents.access import ForgottenDocument, ProfileDocument
from mountd.api.documents.requests import ForgetBody, ProfileQuery
from mountd.api.history import answer
from mountd.api.roles import Route
from mountd.api.route import get, post
from mountd.errors import NotFound
from mountd.journal.journal import Journal
from mountd.operation.results import report_event
from mountd.operation.switch import Operations
from mountd.settings.names import check_version
from mountd.warm.access import AccessProfile
from mountd.warm.profiles import Profiles

log = structlog.get_logger()


class ProfileRoutes:
    """`version`: only what was recorded with that one."""

    def __init__(
        self, operations: Operations, profiles: Profiles, journal: Journal, operator: Callable[[], Awaitable[str]]
    ) -> None:
        self._operations = operations
        self._profiles = profiles
        self._journal = journal
        self._operator = operator

    def reads(self) -> list[Route]:
        return [get("/api/v1/profile", self.profile, ProfileQuery, {200: ProfileDocument})]

    def writes(self) -> list[Route]:
        return [post("/api/v1/profile/forget", self.forget, ForgetBody, {200: ForgottenDocument})]

    async def profile(self, _: web.Request, query: ProfileQuery) -> web.Response:
        """Which files each app opened at its last start, in which order."""
        model = self._operations.model(query.get("model")).name
        version = query.get("version")
        known = await self._profiles.read(model) or AccessProfile()
        found = known if version is None else known.of_version(check_version(version))
        if not found.starts:
            raise _not_found("show", model, version, known)
        return answer(documents.profile(model, found))

    async def forget(self, _: web.Request, body: ForgetBody) -> web.Response:
        """Removes what is recorded of the starts of apps; the next start is recorded again."""
        model, version = self._operations.model(body.get("model")).name, body.get("version")
        if version is not None:
            check_version(version)
        operator = await self._operator()
        known = await self._profiles.read(model) or AccessProfile()
        gone = await self._profiles.forget(model, version)
        if not gone:
            raise _not_found("remove", model, version, known)
        log.info("access profile removed", model=model, apps=gone, operator=operator)
        said = f"{operator} removed the access profile of {model}"
        await report_event(self._journal, "profile-removed", model, said)
        return answer(documents.forgotten(model, gone))


def _not_found(what: str, model: str, version: str | None, known: AccessProfile) -> NotFound:
    recorded = ", ".join(sorted({start.version for start in known.starts.values()}))
    if version is not None and recorded:
        hint = f"recorded with {recorded}: `mountd profile` shows it, and the next warm of {version} uses it"
        return NotFound(f"cannot {what} the access profile of {model}: none was recorded with {version}", hint=hint)
    hint = "it is recorded when an app that needs the model gets ready and has opened files of it"
    return NotFound(f"cannot {what} the access profile of {model}: there is none", hint=hint)
