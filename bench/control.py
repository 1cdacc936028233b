"""The control socket, asked directly: a command of mountd costs 50 ms before it has asked anything."""

from __future__ import annotations

import http.client
import json
import socket
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TIMEOUT_S = 10.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Control:
    """Over one connection, as long as the daemon keeps it."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._date = ""
        self._connection: _UnixConnection | None = None

    def status(self) -> dict[str, Any] | None:
        """None while nobody answers."""
        for _ in range(2):  # a kept connection may be that of a daemon that has ended
            fresh = self._connection is None
            connection = self._connection = self._connection or _UnixConnection(self._path)
            try:
                connection.request("GET", "/api/v1/status")
                answer = connection.getresponse()
                self._date = answer.headers.get("Date", "")
                document: dict[str, Any] = json.loads(answer.read())
                return document
            except (OSError, http.client.HTTPException, ValueError):
                self.close()
                if fresh:
                    return None
        return None

    def date(self) -> str:
        """When it answers now, by its own wall clock. Raises ValueError when it does not."""
        self.status()
        return parsedate_to_datetime(self._date).isoformat()

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
