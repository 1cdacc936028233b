"""What mountd keeps beside a cache (stamps, digests), and what it reads from the holes of a file."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mountd.cache import digests, extents, stamps
from mountd.cache.extents import BLOCK
from mountd.cache.reindex import Ranges
from mountd.cache.stamps import Stamp, Stamps
from tests.support.disk_order import DiskOrder

KEPT = Stamps("boot", running=True, files={"s/b/a": Stamp(7, 9, 100, 200, "9,x", is_durable=True, is_guessed=True)})


def fail(number: int) -> Callable[..., int]:
    def raise_(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return raise_


# -- stamps -----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    assert stamps.read(tmp_path) is None
    stamps.write(tmp_path, KEPT, durable=False)
    assert stamps.read(tmp_path) == KEPT
    assert (tmp_path / stamps.NAME).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [stamps.NAME]


@pytest.mark.parametrize("durable", [True, False])
def test_what_must_outlast_the_machine_is_synced_before_it_is_in_place_and_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    order = DiskOrder(monkeypatch, tmp_path)
    stamps.write(tmp_path, KEPT, durable=durable)
    new, place = f"sync {stamps.NAME}.new", f"put {stamps.NAME}"
    assert order.events == ([new, place, "sync ."] if durable else [place])


def test_a_link_in_the_place_of_the_new_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / f"{stamps.NAME}.new").symlink_to("precious")
    stamps.write(tmp_path, KEPT, durable=False)
    assert (tmp_path / "precious").read_text() == "precious"
    assert stamps.read(tmp_path) == KEPT


def test_stamps_that_cannot_be_read_now_are_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / stamps.NAME).mkdir()
    with pytest.raises(OSError, match="directory"):
        stamps.read(tmp_path)


def test_stamps_of_more_than_a_bound_make_no_sense(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps.write(tmp_path, KEPT, durable=False)
    monkeypatch.setattr(stamps, "MOST_BYTES", (tmp_path / stamps.NAME).stat().st_size - 1)
    assert stamps.read(tmp_path) == stamps.NONE


def test_the_run_of_the_kernel_has_a_name() -> None:
    assert stamps.boot_id() == stamps.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


# -- digests ----------------------------------------------------------------------------------------------------------


def document(path: Path, directory: str, files: object) -> Path:
    path.write_text(json.dumps({"directory": directory, "files": files}))
    return path


def test_what_a_manifest_says_is_not_written_again_as_long_as_it_says_the_same(tmp_path: Path) -> None:
    given = document(tmp_path / "given", "v1", {"a": [9, "f" * 64]})
    digests.keep(tmp_path, "v1", given)
    (path,) = (tmp_path / digests.DIRECTORY).iterdir()
    before = path.stat()
    os.utime(path, (1, 1))
    digests.keep(tmp_path, "v1", given)
    assert path.stat().st_ino == before.st_ino
    assert path.stat().st_mtime > 1, "it is not forgotten before others"
    digests.keep(tmp_path, "v1", document(given, "v1", {"a": [10, "e" * 64]}))
    assert digests.read(tmp_path) == {"v1/a": (10, "e" * 64)}
    assert [path.parent.stat().st_mode & 0o777, path.stat().st_mode & 0o777] == [0o700, 0o600]


def test_digests_that_make_no_sense_or_cannot_be_read_hide_no_others(tmp_path: Path) -> None:
    digests.keep(tmp_path, "v1", document(tmp_path / "given", "v1", {"a": [9, "f" * 64]}))
    place, seen = tmp_path / digests.DIRECTORY, list[OSError]()
    for number, text in enumerate(("", "[]", '{"files": {"a": 7}, "directory": ""}', '{"files": 7}')):
        (place / f"{number}.json").write_text(text)
    (place / "no-digests").write_text("x")
    assert digests.read(tmp_path) == {"v1/a": (9, "f" * 64)}
    (place / "directory.json").mkdir()
    with pytest.raises(IsADirectoryError):
        digests.read(tmp_path)
    assert digests.read(tmp_path, seen.append) == {"v1/a": (9, "f" * 64)}
    assert [type(error) for error in seen] == [IsADirectoryError]
    assert digests.read(tmp_path / "never") == {}


# -- holes ------------------------------------------------------------------------------------------------------------


def filled(
    path: Path, given: Ranges, *, deadline: float = 1e12, check: Callable[[], None] = lambda: None
) -> Ranges | None:
    with path.open("rb") as file:
        return extents.filled(file.fileno(), given, deadline, check)


@pytest.fixture
def blocks(tmp_path: Path) -> Path:
    """Four blocks, of which the second ends in 7 zeros and the third in 8."""
    path = tmp_path / "blocks"
    ends = (b"x" * 8, b"x" + bytes(7), bytes(8), b"x" * 8)
    path.write_bytes(b"".join(b"x" * (BLOCK - 8) + end for end in ends))
    return path


def test_a_block_that_ends_in_as_many_zeros_as_no_number_does_is_suspect(blocks: Path) -> None:
    assert filled(blocks, ((0, 4 * BLOCK),)) == ((0, 2 * BLOCK), (3 * BLOCK, 4 * BLOCK))
    assert filled(blocks, ((100, BLOCK), (3 * BLOCK, 4 * BLOCK - 5))) == ((100, BLOCK), (3 * BLOCK, 4 * BLOCK - 5))
    assert filled(blocks, ()) == ()


def test_what_takes_too_long_or_is_not_wanted_any_more_is_left(blocks: Path) -> None:
    class Unwanted(Exception):
        pass

    def stop() -> None:
        raise Unwanted

    assert filled(blocks, ((0, BLOCK),), deadline=time.monotonic() - 1.0) is None
    with pytest.raises(Unwanted):
        filled(blocks, ((0, BLOCK),), check=stop)


@pytest.mark.parametrize(("number", "is_known"), [(errno.EINVAL, True), (errno.EOPNOTSUPP, True), (errno.EIO, False)])
def test_a_file_system_that_reports_no_holes(
    blocks: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_known: bool
) -> None:
    with blocks.open("rb") as file, monkeypatch.context() as patched:
        patched.setattr(os, "lseek", fail(number))
        if is_known:
            assert not extents.has_hole(file.fileno(), 4 * BLOCK)
        else:
            with pytest.raises(OSError, match="put"):
                extents.has_hole(file.fileno(), 4 * BLOCK)
        assert not extents.has_hole(file.fileno(), 0)


@pytest.mark.parametrize(("number", "is_known"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_without_room_to_try_it_nothing_is_believed_of_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_known: bool
) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", fail(number))
    if is_known:
        assert extents.finest(tmp_path) == 0
        return
    with pytest.raises(OSError, match="put"):
        extents.finest(tmp_path)
