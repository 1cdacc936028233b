"""Asks a daemon over HTTP, on its TCP port or its control socket, and takes its answers apart."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.daemon import Daemon


class OverUnix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=30)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


class Answer:
    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.status = answer.status
        self.kind = answer.headers.get_content_type()
        self.text = answer.read().decode()

    @property
    def json(self) -> Any:
        assert self.kind == "application/json", self.text
        document = json.loads(self.text)
        assert document["schema"] == 1
        return document

    @property
    def error(self) -> dict[str, Any]:
        """The error of an error document."""
        document = self.json
        assert set(document) == {"schema", "error"}
        error: dict[str, Any] = document["error"]
        assert set(error) == {"exit", "text", "hint", "holder"}
        assert error["text"]
        return error


def ask(
    to: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    try:
        with contextlib.suppress(BrokenPipeError):  # it may answer, and close, before it has seen the body
            to.request(method, path, body, dict(headers or {}))
        return Answer(to.getresponse())
    finally:
        to.close()


class Asking:
    """A ready daemon, asked over TCP and over its socket."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon

    def tcp(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return ask(
            http.client.HTTPConnection("127.0.0.1", self.daemon.http_port, timeout=30), method, path, body, headers
        )

    def unix(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        return ask(OverUnix(self.daemon.socket), method, path, body, headers)

    def post(self, path: str, **body: object) -> Answer:
        return self.unix("POST", path, json.dumps(body))

    def raw(self, request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", self.daemon.http_port), timeout=30) as connection:
            connection.sendall(request)
            return connection.makefile("rb").readline()
