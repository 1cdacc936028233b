"""What rclone's remote control may answer, and what lies in a file that was fetched in part."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from mountd.warm import from_rc, sources
from mountd.warm.from_rc import BLOCK, FromRc, check_answer, extents, shows_holes
from mountd.warm.sources import STEP_BYTES, RateLimit, ReadFault, Span, Target, ThroughMount
from tests.support.disk_order import DiskOrder


def head(status: str, **fields: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *(f"{k.replace('_', '-')}: {v}" for k, v in fields.items())]).encode()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (head("206 Partial Content", Content_Length="10", Content_Range="bytes 20-29/50"), None),
        (head("200 OK", content_length="10", content_range="bytes 20-29/50"), None),
        (head("200 OK", Content_Length="50"), "again"),  # all of it, although a part was asked for
        (head("200 OK", Content_Length="49"), "file"),
        (head("206 Partial Content", Content_Length="10", Content_Range="bytes 20-29/51"), "file"),
        (head("206 Partial Content", Content_Length="1", Content_Range="bytes 20-19/20"), "file"),
        (head("206 Partial Content", Content_Length="9", Content_Range="bytes 20-28/50"), "again"),
        (head("206 Partial Content", Content_Length="9", Content_Range="bytes 20-29/50"), "again"),
        (head("206 Partial Content", Content_Range="bytes 20-29/50"), "again"),
        (head("206 Partial Content", Content_Length="10", Content_Range="bytes 10-19/50"), "again"),
        (head("206 Partial Content", Content_Length="10", Content_Range="nonsense"), "again"),
        (head("404 Not Found", Content_Length="10"), "again"),
        (head("500 Internal Server Error", Content_Length="50"), "again"),
        (b"", "again"),
        (b"SSH-2.0-OpenSSH", "again"),
    ],
)
def test_only_the_range_that_was_asked_for_is_taken(answer: bytes, kind: str | None) -> None:
    if kind is None:
        check_answer(answer, 20, 30, 50)
        return
    with pytest.raises(ReadFault) as fault:
        check_answer(answer, 20, 30, 50)
    assert fault.value.cause["kind"] == kind


def test_a_whole_object_needs_no_range_in_its_answer() -> None:
    check_answer(head("200 OK", Content_Length="50"), 0, 50, 50)


def test_the_status_is_passed_on() -> None:
    with pytest.raises(ReadFault) as fault:
        check_answer(head("503 Service Unavailable"), 0, 50, 50)
    assert fault.value.cause["status"] == 503


def test_what_was_written_shows_block_by_block(tmp_path: Path) -> None:
    if not shows_holes(str(tmp_path)):
        pytest.skip("the file system of the test does not report holes")
    with open(tmp_path / "file", "w+b") as file:
        fd = file.fileno()
        os.ftruncate(fd, 100 * BLOCK + 7)
        assert extents(fd, 100 * BLOCK + 7) == []
        os.pwrite(fd, bytes(2 * BLOCK), 3 * BLOCK)
        os.pwrite(fd, b"1234567", 100 * BLOCK)
        assert extents(fd, 100 * BLOCK + 7) == [(3 * BLOCK, 5 * BLOCK), (100 * BLOCK, 100 * BLOCK + 7)]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_knows_no_holes_shows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: int) -> int:
        raise OSError(code, "")

    monkeypatch.setattr(os, "lseek", refuse)
    assert not shows_holes(str(tmp_path))


def test_a_file_system_that_calls_all_of_a_file_data_shows_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 2 * STEP_BYTES
    monkeypatch.setattr(os, "lseek", lambda fd, at, how: size if how == os.SEEK_HOLE else at)
    assert not shows_holes(str(tmp_path))


def test_a_span_is_not_trimmed_below_what_is_being_read() -> None:
    span = Span(1, 0, 100)
    assert span.take(30) == 30
    assert span.trim(10) == 30
    span.at = 30
    assert span.take(30) == 0
    assert span.trim(50) == 30


def test_the_front_is_what_was_read_without_a_gap() -> None:
    target = Target(0, path="x", url="", size=100, sha256=None, there=[(50, 60), (0, 10)])
    assert target.front() == 10
    spans = [Span(1, 10, 50), Span(2, 60, 100)]
    for span in spans:
        target.begin(span)
    spans[1].at = 70
    assert target.front() == 10
    spans[0].at = 50
    assert target.front() == 70
    target.end(spans[0])
    assert target.front() == 70


def test_below_a_root_that_is_not_there_no_file_is_missing(tmp_path: Path) -> None:
    target = Target(0, path="x", url="", size=100, sha256=None, there=[])
    for root, kind in ((tmp_path, "file"), (tmp_path / "mount", "again")):
        with pytest.raises(ReadFault) as fault:
            ThroughMount(str(root)).open(target)
        assert (fault.value.cause["kind"], fault.value.cause["errno"]) == (kind, errno.ENOENT)


@pytest.mark.parametrize(
    ("size", "make", "kind"),
    [
        (5, lambda path: path.write_bytes(b"12345"), ""),
        (6, lambda path: path.write_bytes(b"12345"), "file"),
        (0, lambda path: path.mkdir(), "file"),
        (5, lambda path: path.symlink_to(path), "file"),
    ],
    ids=["file", "another-size", "directory", "loop"],
)
def test_what_is_opened_through_a_mount(tmp_path: Path, size: int, make: Callable[[Path], object], kind: str) -> None:
    make(tmp_path / "x")
    target = Target(0, path="x", url="", size=size, sha256=None, there=[])
    if not kind:
        assert not ThroughMount(str(tmp_path)).open(target)
        assert target.descriptor is not None
        return
    with pytest.raises(ReadFault) as fault:
        ThroughMount(str(tmp_path)).open(target)
    assert fault.value.cause["kind"] == kind
    assert target.descriptor is None


def test_how_far_a_reader_is_is_reported_after_each_step(tmp_path: Path) -> None:
    size = 2 * STEP_BYTES + 5
    (tmp_path / "x").write_bytes(bytes(size))
    source, target = ThroughMount(str(tmp_path)), Target(0, path="x", url="", size=size, sha256=None, there=[])
    span, moves = Span(1, 0, size), list[int]()
    source.read(target, span, RateLimit(0), lambda: moves.append(span.at))
    assert (span.at, moves) == (size, [STEP_BYTES, 2 * STEP_BYTES])


def test_a_read_that_fails_through_a_mount_is_tried_with_a_new_descriptor(tmp_path: Path) -> None:
    """That of a mount that was replaced would never work again."""
    (tmp_path / "x").write_bytes(b"12345")
    source, target = ThroughMount(str(tmp_path)), Target(0, path="x", url="", size=5, sha256=None, there=[])
    source.open(target)
    fault = source.unreadable(target, OSError(errno.ENOTCONN, "Transport endpoint is not connected"))
    assert (fault.cause["kind"], fault.cause["errno"], target.descriptor) == ("again", errno.ENOTCONN, None)
    span = Span(1, 0, 5)
    source.read(target, span, RateLimit(0), lambda: None)
    assert span.at == 5
    os.truncate(tmp_path / "x", 3)
    with pytest.raises(ReadFault) as ended:
        source.read(target, Span(2, 0, 5), RateLimit(0), lambda: None)
    assert ended.value.cause["kind"] == "file"


def test_a_rate_is_that_of_all_together_and_nothing_is_saved_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 100.0, list[float]()
    clock = SimpleNamespace(monotonic=lambda: now, sleep=slept.append)
    monkeypatch.setattr(sources, "time", clock)
    limit = RateLimit(1000)
    for count in (500, 1000, 1000):
        limit.wait(count)
    assert slept == [0.5, 1.5], "the first goes at once, each other one after what was let through before"
    now = 200.0
    slept.clear()
    limit.wait(1000)
    limit.wait(1000)
    assert slept == [1.0]
    RateLimit(0).wait(10**12)
    assert slept == [1.0], "0 is no limit"


# -- past the mount ---------------------------------------------------------------------------------------------------

SHA, SIZE = "ab" * 32, 40 * BLOCK + 5


class FakeRcServer:
    """Answers each connection with the bytes that a test gives, in the pieces that it gives, and hangs up."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.pieces: list[bytes] = []
        self.asked: list[str] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self.address)
        self._listening.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # closed
            with connection, contextlib.suppress(OSError):  # it may have heard enough
                self.asked.append(connection.recv(65536).decode())
                for piece in self.pieces:
                    connection.sendall(piece)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it is closed already
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeRcServer]:
    server = FakeRcServer(tmp_path / "rc")
    yield server
    server.close()


@pytest.fixture
def fetched(tmp_path: Path, server: FakeRcServer) -> tuple[FromRc, Target]:
    (tmp_path / "into").mkdir()
    target = Target(0, path="a b", url="/%5Bs%3Ab%5D/a%20b", size=SIZE, sha256=SHA, there=[])
    source = FromRc(server.address, "Basic eA==", str(tmp_path / "into"))
    assert not source.open(target)
    return source, target


def ranged(begin: int, end: int) -> bytes:
    fields = {"Content_Length": str(end - begin), "Content_Range": f"bytes {begin}-{end - 1}/{SIZE}"}
    return head("206 Partial Content", **fields) + b"\r\n\r\n"


BODY = os.urandom(SIZE)


def test_a_range_is_written_where_it_belongs(server: FakeRcServer, fetched: tuple[FromRc, Target]) -> None:
    source, target = fetched
    server.pieces = [ranged(BLOCK, SIZE)[:20], ranged(BLOCK, SIZE)[20:] + BODY[BLOCK : BLOCK + 9], BODY[BLOCK + 9 :]]
    span = Span(1, BLOCK, SIZE)
    source.read(target, span, RateLimit(0), lambda: None)
    assert span.at == SIZE
    assert target.descriptor is not None
    assert os.pread(target.descriptor.fd, SIZE, 0) == bytes(BLOCK) + BODY[BLOCK:]
    first, *fields = server.asked[0].split("\r\n")
    assert first == "GET /%5Bs%3Ab%5D/a%20b HTTP/1.1"
    assert {f"Range: bytes={BLOCK}-{SIZE - 1}", "Authorization: Basic eA==", "Accept-Encoding: identity"} <= {*fields}


def test_of_an_answer_that_breaks_off_whole_blocks_are_kept(
    server: FakeRcServer, fetched: tuple[FromRc, Target]
) -> None:
    """What the file system calls data is then what was fetched."""
    source, target = fetched
    server.pieces = [ranged(0, SIZE) + BODY[: 30 * BLOCK + 10]]
    span = Span(1, 0, SIZE)
    with pytest.raises(ReadFault) as fault:
        source.read(target, span, RateLimit(0), lambda: None)
    assert (fault.value.cause["kind"], span.at) == ("again", 30 * BLOCK)
    assert target.descriptor is not None
    there = os.pread(target.descriptor.fd, SIZE, 0)
    assert (there[: 30 * BLOCK] == BODY[: 30 * BLOCK], there[30 * BLOCK :].strip(b"\0")) == (True, b"")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", "again"),
        (b"HTTP/1.1 206 Partial", "again"),
        (ranged(0, BLOCK) + BODY[: 2 * BLOCK], "again"),  # longer than it says
        (head("404 Not Found") + b"\r\n\r\n", "again"),
        (head("200 OK", Content_Length="7") + b"\r\n\r\n1234567", "file"),
    ],
)
def test_an_answer_of_which_nothing_can_be_used(
    server: FakeRcServer, fetched: tuple[FromRc, Target], answer: bytes, kind: str
) -> None:
    source, target = fetched
    server.pieces = [answer]
    span = Span(1, 0, BLOCK)
    with pytest.raises(ReadFault) as fault:
        source.read(target, span, RateLimit(0), lambda: None)
    assert (fault.value.cause["kind"], span.at) == (kind, 0)


def test_an_rclone_that_is_gone_may_come_back(server: FakeRcServer, fetched: tuple[FromRc, Target]) -> None:
    source, target = fetched
    server.close()
    with pytest.raises(ReadFault) as fault:
        source.read(target, Span(1, 0, BLOCK), RateLimit(0), lambda: None)
    assert (fault.value.cause["kind"], fault.value.cause["errno"]) == ("again", errno.ECONNREFUSED)


def test_what_is_kept_is_on_disk_and_whole_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetched: tuple[FromRc, Target]
) -> None:
    source, target = fetched
    partial, whole = tmp_path / "into" / f"{SHA}{from_rc.PARTIAL}", tmp_path / "into" / SHA
    assert (partial.stat().st_mode & 0o777, whole.exists()) == (0o600, False)
    order = DiskOrder(monkeypatch, tmp_path / "into")
    source.keep(target)
    assert order.events == [f"sync {SHA}.partial", f"put {SHA}", "sync ."]
    assert whole.stat().st_size == SIZE
    assert source.open(Target(1, path="a", url="", size=SIZE, sha256=SHA, there=[])), "the next one need not be fetched"
    assert not source.open(Target(2, path="a", url="", size=SIZE + 1, sha256=SHA, there=[]))


def test_what_is_dropped_is_fetched_from_nothing(tmp_path: Path, fetched: tuple[FromRc, Target]) -> None:
    source, target = fetched
    for _ in range(2):
        source.drop(target)
        assert os.listdir(tmp_path / "into") == []
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "into" / f"{SHA}{from_rc.PARTIAL}").symlink_to(tmp_path / "secret")
    with pytest.raises(ReadFault) as fault:
        source.open(target)
    assert fault.value.cause["kind"] == "local"
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_where_holes_show_nothing_what_lies_there_is_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeRcServer
) -> None:
    monkeypatch.setattr(from_rc, "shows_holes", lambda _: False)
    partial = tmp_path / f"{SHA}{from_rc.PARTIAL}"
    partial.write_bytes(BODY)
    target = Target(0, path="a", url="", size=SIZE, sha256=SHA, there=[(0, 7)])
    assert not FromRc(server.address, "", str(tmp_path)).open(target)
    assert (target.there, partial.stat().st_size) == ([], 0)


def test_a_place_that_keeps_nothing_has_nothing_to_keep_or_drop(tmp_path: Path) -> None:
    target = Target(0, path="x", url="", size=5, sha256=None, there=[])
    for work in (ThroughMount(str(tmp_path)).keep, ThroughMount(str(tmp_path)).drop):
        with pytest.raises(ReadFault) as fault:
            work(target)
        assert fault.value.cause["kind"] == "local"
