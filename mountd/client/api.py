"""Requests to the daemon: HTTP/1.1 over its Unix socket or its TCP port, with `socket` and `json` alone.

Imports cost most. Where a daemon is asked is the path of its socket, or an http:// or https:// address.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any

from mountd import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mountd.errors import MountdError

SCHEMA = 1
TIMEOUT_S = 10.0
POST_TIMEOUT_S = 30.0
"""For what changes something: it is first checked, and written down."""
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/lib/systemd/system",
)
Document = dict[str, Any]


def get(socket_path: str, path: str, *, timeout_s: float = TIMEOUT_S, **parameters: object) -> Document:
    """The document at `path`. Raises what the daemon's error document says, Unreachable."""
    return _wanted(*request(socket_path, "GET", with_query(path, parameters), timeout_s=timeout_s))


def post(socket_path: str, path: str, body: Document, *, timeout_s: float = POST_TIMEOUT_S) -> Document:
    """The answer to what is not None in `body`. Raises what the daemon's error document says, Unreachable."""
    return _wanted(*request(socket_path, "POST", path, _given(body), timeout_s=timeout_s))


def request(
    socket_path: str, method: str, path: str, body: Document | None = None, *, timeout_s: float = TIMEOUT_S
) -> tuple[int, Document]:
    """One exchange → HTTP status and document. Raises Unreachable when there is no whole answer in `timeout_s`."""
    exchange = _Exchange(socket_path, time.monotonic() + timeout_s)
    try:
        status, headers = exchange.ask(method, path, body)
        data = exchange.body(headers)
    finally:
        exchange.close()
    return status, _document(data, socket_path)


def stream(socket_path: str, path: str, *, prefix: bytes = b"", **parameters: object) -> Iterator[Document]:
    """The documents of an endless answer, one a line, until the daemon ends it. Raises as `get` does.

    `prefix`: what stands before each of them, `data: ` in server-sent events; other lines are passed over.
    """
    exchange = _Exchange(socket_path, time.monotonic() + TIMEOUT_S)
    try:
        status, headers = exchange.ask("GET", with_query(path, parameters), None)
        if status >= 400:
            _wanted(status, _document(exchange.body(headers), socket_path))
        exchange.deadline = None
        rest = b""
        for chunk in exchange.chunks(headers):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_BODY_BYTES:
                raise _unreachable(socket_path, "it sent a line over 64 MiB")
            for line in lines:
                if line.startswith(prefix) and line.strip():
                    yield _document(line.removeprefix(prefix), socket_path)
    finally:
        exchange.close()


def with_query(path: str, parameters: dict[str, object]) -> str:
    """`path` with the parameters that are not None."""
    given = _given(parameters)
    if not given:
        return path
    from urllib.parse import urlencode

    # Words of a command line may be bytes that are no UTF-8: they go as they are, and the daemon knows no such name.
    return f"{path}?{urlencode(given, errors='surrogateescape')}"


def _given(values: Document) -> Document:
    return {name: value for name, value in values.items() if value is not None}


def failure(error: Document) -> MountdError:
    """The `error` of a document → the exception that ends the command with the same text, hint and exit code."""
    from mountd import errors

    text, hint = str(error.get("text") or "the daemon gave no reason"), str(error.get("hint") or "")
    kinds = (
        errors.UsageError, errors.NotFound, errors.StillRunning, errors.RolledBack, errors.Refused,
        errors.Unreachable, errors.Bug,
    )  # fmt: skip
    if error.get("exit") == errors.Busy.exit_code:
        return errors.Busy(text, hint=hint, holder=str(error.get("holder") or ""))
    kind = next((kind for kind in kinds if kind.exit_code == error.get("exit")), errors.MountdError)
    return kind(text, hint=hint)


def connect(socket_path: str, deadline: float | None) -> socket.socket:
    """A connected socket. Raises OSError, TimeoutError at the `deadline`; for an address UsageError, Unreachable."""
    if "://" in socket_path:
        from mountd.client import tcp

        return tcp.connect(socket_path, deadline)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        while True:
            connection.settimeout(_left(deadline))
            try:
                connection.connect(socket_path)
            except BlockingIOError:  # what a Unix socket says at once when the listener's queue is full
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError("the queue of the socket is full") from None
                time.sleep(0.05)
            else:
                return connection
    except BaseException:
        connection.close()
        raise


class _Exchange:
    """One request and its answer on a connection of its own."""

    def __init__(self, socket_path: str, deadline: float | None) -> None:
        self.path = socket_path
        self.deadline = deadline
        self._buffer = b""
        try:
            self._socket = connect(socket_path, deadline)
        except OSError as error:
            raise _cannot_connect(socket_path, error) from None

    def close(self) -> None:
        self._socket.close()

    def ask(self, method: str, path: str, body: Document | None) -> tuple[int, dict[str, str]]:
        """Send, and read the answer's status and headers (names in lower case)."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {_target(self.path, path)}User-Agent: mountd/{__version__}\r\n"
        head += "Accept: application/json\r\nConnection: close\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        try:
            self._socket.settimeout(_left(self.deadline))
            self._socket.sendall(head.encode("ascii") + b"\r\n" + data)
        except TimeoutError:
            raise _silent(self.path) from None
        except OSError as error:  # an early answer, such as a refusal, may stand behind a closed connection
            if error.errno not in {errno.EPIPE, errno.ECONNRESET}:
                raise _cannot_connect(self.path, error) from None
        while True:
            status_line, *lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
            version, _, rest = status_line.partition(" ")
            if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
                raise _unreachable(self.path, "what answers there does not speak HTTP")
            if rest[0] != "1":  # 1xx: the real answer follows
                break
        pairs = (line.partition(":") for line in lines)
        return int(rest[:3]), {name.strip().lower(): value.strip() for name, _, value in pairs}

    def body(self, headers: dict[str, str]) -> bytes:
        """All of it. Raises as `chunks` does, also when it is too large."""
        data = bytearray()
        for chunk in self.chunks(headers):
            data += chunk
            if len(data) > MAX_BODY_BYTES:
                raise _unreachable(self.path, "its answer is over 64 MiB")
        return bytes(data)

    def chunks(self, headers: dict[str, str]) -> Iterator[bytes]:
        """The body as it comes. Raises Unreachable when the connection ends before the body does."""
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while size := self._number(self._until(b"\r\n").split(b";")[0], 16):
                yield from self._exactly(size)
                self._until(b"\r\n")
        elif "content-length" in headers:
            yield from self._exactly(self._number(headers["content-length"].encode(), 10))
        else:
            while data := self._some(1 << 16):
                yield data

    def _number(self, digits: bytes, base: int) -> int:
        try:
            number = int(digits, base)
        except ValueError:
            number = -1
        if not 0 <= number <= MAX_BODY_BYTES:
            raise _unreachable(self.path, f"its answer gives {digits.decode('latin-1')!r} as a length")
        return number

    def _some(self, most: int) -> bytes:
        """Up to `most` bytes; b"" at the end."""
        if not self._buffer:
            try:
                self._socket.settimeout(_left(self.deadline))
                self._buffer = self._socket.recv(1 << 16)
            except TimeoutError:
                raise _silent(self.path) from None
            except OSError as error:
                raise _unreachable(self.path, f"the connection broke: {_cause(error)}") from None
        data, self._buffer = self._buffer[:most], self._buffer[most:]
        return data

    def _exactly(self, count: int) -> Iterator[bytes]:
        while count:
            data = self._some(count)
            if not data:
                raise _unreachable(self.path, "it closed the connection in the middle of its answer")
            count -= len(data)
            yield data

    def _until(self, end: bytes) -> bytes:
        data = b""
        while end not in data:
            more = self._some(1 << 16)
            if not more:
                raise _unreachable(self.path, "it closed the connection without a whole answer")
            data += more
            if len(data) > MAX_HEAD_BYTES + (1 << 16):
                raise _unreachable(self.path, "its answer has no end of line")
        line, _, rest = data.partition(end)
        self._buffer = rest + self._buffer
        return line


def _target(place: str, path: str) -> str:
    """The rest of the request line, and the headers that depend on where it is sent."""
    if "://" not in place:
        return f"{path} HTTP/1.1\r\nHost: localhost\r\n"
    from mountd.client import tcp

    address, token = tcp.parse(place), tcp.token()
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"{address.prefix}{path} HTTP/1.1\r\nHost: {address.name}\r\n{authorization}"


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.001)


def _wanted(status: int, document: Document) -> Document:
    if isinstance(document.get("error"), dict) and status >= 400:
        raise failure(document["error"])
    if status >= 400:
        raise failure({"exit": 1, "text": f"the daemon answered with HTTP {status} and no reason"})
    if document.get("schema") != SCHEMA:
        text = f"the daemon speaks schema {document.get('schema')}, this mountd schema {SCHEMA}"
        raise failure(
            {"exit": 1, "text": text, "hint": "restart the daemon: it is of another version than the command"}
        )
    return document


def _document(data: bytes, socket_path: str) -> Document:
    try:
        document = json.loads(data)
    except ValueError:  # also of text that is not UTF-8
        document = None
    if not isinstance(document, dict):
        raise _unreachable(socket_path, "its answer is not a JSON document")
    return document


def _cause(error: OSError) -> str:
    if reason := getattr(error, "reason", ""):  # of TLS, whose numbers are none of the system's
        return str(reason).lower().replace("_", " ")
    if isinstance(error, socket.gaierror):  # of names, whose numbers are others as well
        return (error.strerror or "the name is not known").lower()
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def _unreachable(socket_path: str, cause: str, hint: str = "") -> MountdError:
    from mountd.errors import Unreachable

    if "://" in socket_path:
        hint = hint or "is it the address of mountd's TCP port (`http.listen`)?"
    hint = hint or "is it mountd's socket?" + (" `journalctl -u mountd` shows what the daemon says" * has_unit())
    return Unreachable(f"cannot reach mountd at {socket_path}: {cause}", hint=hint)


def _silent(socket_path: str) -> MountdError:
    hint = "the daemon may be stopped or overloaded"
    if "://" in socket_path:
        return _unreachable(socket_path, "it does not answer in time", hint)
    hint += ": `systemctl status mountd`, `journalctl -u mountd`" * has_unit()
    return _unreachable(socket_path, "it takes connections but does not answer", hint)


def _cannot_connect(socket_path: str, error: OSError) -> MountdError:
    if "://" in socket_path and not isinstance(error, TimeoutError):
        hint = "see `http.listen` on that machine, and what filters connections between"
        return _unreachable(socket_path, _cause(error), hint)
    if error.errno in {errno.EACCES, errno.EPERM}:
        return _unreachable(socket_path, "your user may not use the socket", _permission_hint(socket_path))
    if isinstance(error, TimeoutError):
        return _silent(socket_path)
    return _unreachable(socket_path, _cause(error), f"start the daemon (`{how_to_start()}`), or try `mountd demo`")


def has_unit() -> bool:
    return any(os.path.lexists(os.path.join(directory, "mountd.service")) for directory in UNIT_DIRECTORIES)


def how_to_start() -> str:
    return "systemctl start mountd" if has_unit() else "mountd run -c FILE"


def _permission_hint(socket_path: str) -> str:
    try:
        gid = os.stat(socket_path).st_gid
        import grp

        group = grp.getgrgid(gid).gr_name
    except (OSError, KeyError):
        gid, group = 0, ""
    join = f", or join the group {group} (`sudo usermod -aG {group} $USER`, then log in again)" if gid and group else ""
    return f"use sudo{join}; `control.group` names the group that may use it"
