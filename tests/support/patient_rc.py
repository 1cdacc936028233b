"""A client of rclone's API that no busy machine makes impatient."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Container, Mapping
from typing import Any

import aiohttp

from mountd.rclone.command import RcAddress
from mountd.rclone.rc import RcClient

LIMIT_S = 60.0


class PatientRcClient(RcClient):
    """The limit of a call is at least LIMIT_S, but for those whose answer is None, and those that are held."""

    def __init__(self, address: RcAddress, answers: Mapping[str, Any], held: Container[str]) -> None:
        super().__init__(address)
        self._answers, self._held = answers, held

    @contextlib.asynccontextmanager
    async def _request(
        self, verb: str, path: str, lacks: str, timeout_s: float, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        is_answered = path not in self._held and self._answers.get(path, "") is not None
        limit_s = max(timeout_s, LIMIT_S) if is_answered else timeout_s
        async with super()._request(verb, path, lacks, limit_s, **more) as answer:
            yield answer
