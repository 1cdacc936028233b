"""Opens the TCP port of the API with its tokens and its certificate, read from disks that may not answer."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import structlog

from mountd.api.server import Admission, Server
from mountd.daemon.watch_files import trail
from mountd.errors import CannotStart
from mountd.process.slow_disk import SlowDisk
from mountd.settings import http_files
from mountd.settings.http import HttpSettings
from mountd.settings.secret import SecretRef, cannot_read
from mountd.settings.tokens import Tokens
from mountd.status.board import Board
from mountd.status.snapshot import Reason

log = structlog.get_logger()

READ_S = 5.0
PART = "http"


class TcpPort:
    def __init__(self, server: Server, board: Board, own_mounts: Callable[[], Collection[str]]) -> None:
        """`own_mounts`: our present mount points; none of them is touched."""
        self._server = server
        self._board = board
        self._own_mounts = own_mounts
        self._disk = SlowDisk()

    async def open(self, http: HttpSettings) -> None:
        """At the start: tokens that cannot be used keep nobody from the disk, they are shown and tried again.

        Raises MountdError when it cannot listen there, or not with that certificate: it never falls back to plain text.
        """
        try:
            admission = await self._read(http)
        except CannotStart as error:
            admission = await self._read(http.model_copy(update={"tokens": None}))
            admission = replace(admission, tokens=Tokens(is_configured=True))
            log.error("cannot use the tokens of the TCP port", cause=error.text, hint=error.hint)
            text = f"no token is valid on the TCP port: {error.text}"
            self._board.set_lack(PART, Reason(error.code, text, "config", "http.tokens", error.hint))
        await self._server.listen_tcp(http, admission)
        self._board.meters.certificate_expires = admission.expires

    async def change(self, http: HttpSettings, *, move: bool) -> None:
        """`move`: it listens elsewhere, or begins or ends to speak TLS. Raises MountdError; then all is as it was."""
        admission = await self._read(http)
        if move:
            await self._server.listen_tcp(http, admission)
        else:
            self._server.admit(http, admission)
        self._board.meters.certificate_expires = admission.expires
        self._board.set_lack(PART, None)

    async def retry(self, http: HttpSettings) -> None:
        """Tokens that could not be used when it was opened. Raises MountdError."""
        if PART in self._board.snapshot.lacks:
            await self.change(http, move=False)

    async def _read(self, http: HttpSettings) -> Admission:
        """Raises CannotStart."""
        mounts = self._own_mounts()
        try:
            return await self._disk.run(lambda: _read(http, mounts), READ_S)
        except TimeoutError:
            raise cannot_read(
                f"no answer in {READ_S:g} s from a disk that http.tokens or http.tls lies on",
                "put the files of secrets on a local disk",
            ) from None


def _read(http: HttpSettings, mounts: Collection[str]) -> Admission:
    """Blocks. Raises CannotStart."""
    references: list[SecretRef | None] = [http.tokens]
    references += [http.tls.certificate, http.tls.key] if http.tls else []
    for reference in references:
        path = reference.path if reference is not None else None
        if path is not None and (mount := trail(path, mounts).mount):
            raise cannot_read(f"{path} lies on the mount {mount}", "put it on a local disk")
    context, expires = http_files.read_context(http.tls), http_files.read_expiry(http.tls)
    return Admission(http_files.read_tokens(http), context, expires)
