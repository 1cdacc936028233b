"""The client against bytes on a Unix socket, as they are and as they should not be."""

import contextlib
import grp
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mountd import errors
from mountd.client import api


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that answers may get no processor for a while."""
    monkeypatch.setattr(api, "TIMEOUT_S", 60.0)
    for function in (api.get, api.post, api.request):
        monkeypatch.setattr(function, "__kwdefaults__", {"timeout_s": 60.0})


class Serve:
    """Each call starts a listener that answers its one request with these pieces and closes; gives its path."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.seen: list[bytes] = []
        self._done = threading.Event()
        self._threads: list[threading.Thread] = []

    def __call__(self, *pieces: bytes, answers: bool = True) -> str:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen()

        def run() -> None:
            with listener, listener.accept()[0] as connection:
                connection.settimeout(60)
                self.seen.append(connection.recv(65536))
                if not answers:
                    self._done.wait(60)
                with contextlib.suppress(BrokenPipeError):  # the client may have seen enough
                    for piece in pieces:
                        connection.sendall(piece)

        thread = threading.Thread(target=run)
        thread.start()
        self._threads.append(thread)
        return self.path

    def close(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    made = Serve(tmp_path / "s")
    yield made
    made.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
DOCUMENT = '{"schema": 1, "名": "值"}'.encode()
WANTED = {"schema": 1, "名": "值"}


@pytest.mark.parametrize(
    "pieces",
    [
        [HEAD + b"Content-Length: %d\r\n\r\n" % len(DOCUMENT) + DOCUMENT],
        [HEAD + b"content-length: %d\r\n" % len(DOCUMENT), b"\r\n", DOCUMENT[:5], DOCUMENT[5:]],
        [HEAD + b"\r\n" + DOCUMENT],
        [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"4\r\n" + DOCUMENT[:4] + b"\r\n",
         b"%x;x=y\r\n" % len(DOCUMENT[4:]) + DOCUMENT[4:] + b"\r\n0\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + b"\r\n" + DOCUMENT],
        [bytes([byte]) for byte in HEAD + b"Content-Length: %d\r\n\r\n" % len(DOCUMENT) + DOCUMENT],
    ],
    ids=["length", "length in pieces", "closed", "chunked", "continue", "byte by byte"],
)  # fmt: skip
def test_bodies(serve: Serve, pieces: list[bytes]) -> None:
    assert api.get(serve(*pieces), "/api/v1/status") == WANTED


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (b"", "whole"),
        (b"220 smtp ready\r\n\r\n", "HTTP"),
        (HEAD + b"Content-Length: 50\r\n\r\n" + DOCUMENT, "middle"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "'zz'"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nab", "middle"),
        (HEAD + b"Content-Length: 99999999999\r\n\r\n", "'99999999999'"),
        (HEAD + b"Content-Length: -1\r\n\r\n", "'-1'"),
        (HEAD + b"\r\n<html>", "JSON"),
        (HEAD + b"\r\n[1]", "JSON"),
        (HEAD + b"\r\n\xff\xfe{", "JSON"),
        (b"x" * 300_000, "line"),
    ],
)
def test_broken_answers_are_unreachable(serve: Serve, answer: bytes, cause: str) -> None:
    with pytest.raises(errors.Unreachable, match=cause):
        api.get(serve(answer), "/")


def test_body_without_a_length_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_BODY_BYTES", 1000)
    with pytest.raises(errors.Unreachable, match="64 MiB"):
        api.get(serve(HEAD + b"\r\n" + b" " * 2000), "/")


def test_silence_ends_at_the_deadline(serve: Serve) -> None:
    with pytest.raises(errors.Unreachable, match="not answer"):
        api.get(serve(answers=False), "/", timeout_s=0.1)


def test_a_daemon_that_accepts_nothing_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    """Such as one that was stopped: a full queue is said at once, each time."""
    path = str(tmp_path / "s")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        began = time.monotonic()
        with pytest.raises(errors.Unreachable, match="not answer"):
            api.get(path, "/", timeout_s=0.1)
        assert time.monotonic() - began >= 0.1, "room may come"


def test_a_full_queue_may_have_room_a_moment_later(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)

        def accept() -> None:
            listener.accept()[0].close()

        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            later = threading.Timer(0.1, accept)
            later.start()
            api.connect(path, time.monotonic() + 60).close()
            later.join()


def test_another_schema_is_named(serve: Serve) -> None:
    with pytest.raises(errors.MountdError, match="schema 2"):
        api.get(serve(HEAD + b'\r\n{"schema": 2}'), "/")


@pytest.mark.parametrize("exit_code", [1, 2, 3, 4, 5, 6, 7, 8, 20])
def test_errors_keep_their_exit_code_text_and_hint(serve: Serve, exit_code: int) -> None:
    body = b'{"schema":1,"error":{"exit":%d,"text":"cannot x: y","hint":"do z","holder":"h"}}' % exit_code
    path = serve(b"HTTP/1.1 409 Conflict\r\n\r\n" + body)
    with pytest.raises(errors.MountdError) as raised:
        api.post(path, "/api/v1/switch", {"version": "v23"})
    assert (raised.value.exit_code, raised.value.text, raised.value.hint) == (exit_code, "cannot x: y", "do z")
    assert getattr(raised.value, "holder", "h") == "h"


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (b'HTTP/1.1 500 X\r\n\r\n{"schema": 1}', 1, "HTTP 500"),
        (b'HTTP/1.1 400 X\r\n\r\n{"schema": 1, "error": "no"}', 1, "HTTP 400"),
        (b'HTTP/1.1 404 X\r\n\r\n{"schema": 1, "error": {"exit": 3}}', 3, "no reason"),
        (b'HTTP/1.1 409 X\r\n\r\n{"schema": 1, "error": {"exit": 99, "text": "t"}}', 1, "t"),
    ],
)
def test_an_error_without_a_reason_is_one_all_the_same(serve: Serve, answer: bytes, code: int, text: str) -> None:
    with pytest.raises(errors.MountdError) as raised:
        api.get(serve(answer), "/")
    assert raised.value.exit_code == code
    assert text in raised.value.text


def test_the_failure_of_an_operation_is_part_of_its_document(serve: Serve) -> None:
    """Asking for it has not failed."""
    document = b'{"schema": 1, "result": "failed", "error": {"exit": 5, "text": "it crashed"}}'
    assert api.get(serve(HEAD + b"\r\n" + document), "/")["result"] == "failed"


def test_an_answer_that_comes_before_the_request_was_read_counts(tmp_path: Path) -> None:
    """As to a body that is too large: the daemon answers, and reads no more of it."""
    path, refusal = str(tmp_path / "s"), b'{"schema":1,"error":{"exit":2,"text":"too large"}}'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def refuse() -> None:
            with listener.accept()[0] as connection:
                head = b"HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n" % len(refusal)
                connection.sendall(head + refusal)

        thread = threading.Thread(target=refuse)
        thread.start()
        with pytest.raises(errors.UsageError, match="too large"):
            api.post(path, "/api/v1/switch", {"reason": "x" * 5_000_000})
        thread.join()


def test_what_is_sent(serve: Serve) -> None:
    path = serve(HEAD + b"\r\n" + DOCUMENT)
    api.post(path, "/api/v1/switch", {"version": "v23"})
    head, _, body = serve.seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /api/v1/switch HTTP/1.1\r\nHost: localhost\r\nUser-Agent: mountd/")
    assert b"Content-Length: 18" in head
    assert b"Content-Type: application/json" in head
    assert b"Connection: close" in head
    assert body == b'{"version": "v23"}'


def test_a_read_sends_no_body(serve: Serve) -> None:
    assert api.get(serve(HEAD + b"\r\n" + DOCUMENT), "/api/v1/logs", name="webui", lines=0, since=None) == WANTED
    head, _, body = serve.seen[0].partition(b"\r\n\r\n")
    assert head.splitlines()[0] == b"GET /api/v1/logs?name=webui&lines=0 HTTP/1.1"
    assert (b"Content-Length" in head, body) == (False, b"")


def test_parameters_are_quoted_and_none_left_out() -> None:
    assert api.with_query("/x", {"a": "b&c 声", "d": None}) == "/x?a=b%26c+%E5%A3%B0"
    assert api.with_query("/x", {"d": None}) == "/x"


@pytest.mark.parametrize("unit", [True, False], ids=["unit", "no-unit"])
@pytest.mark.parametrize("name", ["missing", "x" * 200])
def test_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, unit: bool) -> None:
    """What to do names systemd only where its unit is installed."""
    monkeypatch.setattr(api, "UNIT_DIRECTORIES", (str(tmp_path / "none"), str(tmp_path)))
    if unit:
        (tmp_path / "mountd.service").touch()
    with pytest.raises(errors.Unreachable) as raised:
        api.get(str(tmp_path / name), "/")
    assert raised.value.exit_code == 8
    assert ("systemctl start mountd" in raised.value.hint) is unit
    assert ("mountd run" in raised.value.hint) is not unit


def test_socket_that_is_not_for_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(api, "connect", refuse)  # as root nothing is ever denied
    with pytest.raises(errors.Unreachable) as raised:
        api.get(str(tmp_path), "/")
    assert "sudo" in raised.value.hint
    assert "`control.group`" in raised.value.hint


def test_a_socket_of_a_group_names_the_group_to_join(tmp_path: Path) -> None:
    known = [each for each in grp.getgrall() if each.gr_gid in (os.getgroups() if os.geteuid() else range(1, 1000))]
    if not known:
        pytest.skip("no group to give the socket to")
    (tmp_path / "s").touch()
    os.chown(tmp_path / "s", -1, known[0].gr_gid)
    assert f"usermod -aG {grp.getgrgid(known[0].gr_gid).gr_name} " in api._permission_hint(str(tmp_path / "s"))
    assert "usermod" not in api._permission_hint(str(tmp_path / "none"))


def test_stream_gives_lines_as_they_come(serve: Serve) -> None:
    chunks = [b'{"text":"a"}\n{"te', b'xt":"b"}\n\n', b'{"text":"c"}\n']
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    path = serve(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    assert [line["text"] for line in api.stream(path, "/api/v1/logs", follow=1)] == ["a", "b", "c"]


def test_of_a_stream_of_events_only_the_data_are_documents(serve: Serve) -> None:
    body = b'retry: 1000\n\nid: 7\ndata: {"id":7}\n\n:\n\nid: 8\ndata: {"id":8}\n\n'
    path = serve(HEAD + b"\r\n" + body)
    assert [event["id"] for event in api.stream(path, "/api/v1/events", prefix=b"data: ")] == [7, 8]


def test_a_line_of_a_stream_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_BODY_BYTES", 1000)
    lines = api.stream(serve(HEAD + b'\r\n{"a":1}\n' + b" " * 2000), "/api/v1/logs")
    with pytest.raises(errors.Unreachable, match="64 MiB"):
        list(lines)


def test_a_stream_may_be_silent_for_longer_than_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(api, "time", SimpleNamespace(monotonic=lambda: now))
    path, begun = str(tmp_path / "s"), threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve_slowly() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(HEAD + b'\r\n{"n":1}\n')
                begun.wait(60)
                time.sleep(0.05)  # who still had a limit gives up meanwhile
                connection.sendall(b'{"n":2}\n')

        thread = threading.Thread(target=serve_slowly)
        thread.start()
        seen = []
        for line in api.stream(path, "/api/v1/logs", follow=1):
            seen.append(line["n"])
            now += 2 * api.TIMEOUT_S
            begun.set()
        thread.join()
    assert seen == [1, 2]


def test_stream_reports_an_error(serve: Serve) -> None:
    body = b'{"schema":1,"error":{"exit":3,"text":"no such thing","hint":""}}'
    path = serve(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    with pytest.raises(errors.NotFound):
        list(api.stream(path, "/api/v1/logs"))


def test_an_error_in_place_of_a_stream_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MAX_BODY_BYTES", 1000)
    path = serve(b"HTTP/1.1 404 Not Found\r\n\r\n" + b" " * 2000)
    with pytest.raises(errors.Unreachable, match="64 MiB"):
        list(api.stream(path, "/api/v1/logs"))


def test_stream_that_breaks_off_is_unreachable(serve: Serve) -> None:
    lines = api.stream(serve(HEAD + b'Transfer-Encoding: chunked\r\n\r\n6\r\n{"a":1'), "/api/v1/logs")
    with pytest.raises(errors.Unreachable):
        list(lines)


def test_a_word_that_is_no_utf8_goes_as_it_is() -> None:
    assert api.with_query("/logs", {"name": "caf\udce9 声", "n": None}) == "/logs?name=caf%E9+%E5%A3%B0"
