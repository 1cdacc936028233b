"""The address of a TCP port, the token that is sent there, and what a client says when it cannot be reached."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mountd import errors
from mountd.client import api, tcp
from mountd.client.tcp import Address

TOKEN = "operator-0123456789abcdef"
ANSWER = b'HTTP/1.1 200 OK\r\n\r\n{"schema": 1}'


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MOUNTD_TOKEN", "MOUNTD_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def answering(answer: bytes = ANSWER) -> Iterator[tuple[str, list[bytes]]]:
    """An address that answers one request, and what was sent there."""
    seen: list[bytes] = []
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def run() -> None:
            with listener.accept()[0] as connection:
                connection.settimeout(60)
                seen.append(connection.recv(65536))
                connection.sendall(answer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
        thread.join(60)


@pytest.mark.parametrize(
    ("place", "address", "name"),
    [
        ("http://hub", Address(False, "hub", 8780, ""), "hub:8780"),
        ("https://hub", Address(True, "hub", 443, ""), "hub:443"),
        ("https://hub:8780/", Address(True, "hub", 8780, ""), "hub:8780"),
        ("https://gate.example.com/mountd/", Address(True, "gate.example.com", 443, "/mountd"), "gate.example.com:443"),
        ("http://[::1]:1", Address(False, "::1", 1, ""), "[::1]:1"),
    ],
)
def test_addresses(place: str, address: Address, name: str) -> None:
    assert tcp.is_address(place)
    assert tcp.parse(place) == address
    assert address.name == name


@pytest.mark.parametrize(
    "place",
    ["http://", "https://:8780", "http://hub:x", "http://hub:99999", "http://hub\r\nX: y", "http://hüb", "ftp://hub",
     "http://[::1", "http://a b"],
)  # fmt: skip
def test_what_is_no_address(place: str) -> None:
    with pytest.raises(errors.UsageError):
        tcp.parse(place)


@pytest.mark.parametrize("place", [f"http://{TOKEN}@hub", f"https://ci:{TOKEN}@hub", f"http://hub?token={TOKEN}"])
def test_an_address_that_holds_a_secret_is_refused(place: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        tcp.parse(place)
    assert TOKEN not in refused.value.text


def test_the_token_comes_from_a_variable_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tcp.token() == ""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    monkeypatch.setenv("MOUNTD_TOKEN_FILE", str(tmp_path / "token"))
    assert tcp.token() == TOKEN
    monkeypatch.setenv("MOUNTD_TOKEN", "another")
    assert tcp.token() == "another"
    for wrong in ("two words", "a\r\nX: y", "声"):
        monkeypatch.setenv("MOUNTD_TOKEN", wrong)
        with pytest.raises(errors.UsageError) as refused:
            tcp.token()
        assert wrong not in refused.value.text
    monkeypatch.delenv("MOUNTD_TOKEN")
    monkeypatch.setenv("MOUNTD_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(errors.UsageError, match="none"):
        tcp.token()


@pytest.mark.parametrize("token", ["", TOKEN])
def test_what_is_sent(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("MOUNTD_TOKEN", token)
    with answering() as (place, seen):
        assert api.post(f"{place}/mountd", "/api/v1/switch", {"version": "v23"}) == {"schema": 1}
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /mountd/api/v1/switch HTTP/1.1"
    assert f"Host: {place.removeprefix('http://')}" in lines
    assert ("Authorization: Bearer " + TOKEN in lines) is bool(token)
    assert body == b'{"version": "v23"}'


@pytest.mark.parametrize(
    ("status", "exit_code"), [(401, 2), (403, 2), (429, 2), (409, 6)], ids=["401", "403", "429", "409"]
)
def test_a_refusal_keeps_its_exit_code(status: int, exit_code: int) -> None:
    body = b'{"schema":1,"error":{"exit":%d,"text":"cannot x: y","hint":"do z","holder":""}}' % exit_code
    answer = b"HTTP/1.1 %d X\r\n\r\n" % status + body
    with answering(answer) as (place, _), pytest.raises(errors.MountdError) as raised:
        api.get(place, "/api/v1/status")
    assert (raised.value.exit_code, raised.value.text) == (exit_code, "cannot x: y")


def test_nobody_answers() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        place = f"http://127.0.0.1:{listener.getsockname()[1]}"
    for where in (place, "http://no-such-host.invalid:1"):
        with pytest.raises(errors.Unreachable) as raised:
            api.get(where, "/api/v1/status")
        assert where in raised.value.text
        assert "socket" not in raised.value.hint


def test_what_speaks_no_tls_is_unreachable() -> None:
    with answering() as (place, _), pytest.raises(errors.Unreachable, match="TLS"):
        api.get(place.replace("http:", "https:"), "/api/v1/status")
