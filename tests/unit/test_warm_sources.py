"""What rclone's remote control may answer, and what lies in a file that was fetched in part."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mountd.warm.from_rc import BLOCK, check_answer, extents, shows_holes
from mountd.warm.sources import STEP_BYTES, ReadFault, Span, Target, ThroughMount


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
