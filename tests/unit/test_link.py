"""The link: replaced in one step, never followed, never at the cost of somebody's data."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mountd.errors import Unavailable
from mountd.model import link as links
from mountd.model.drift import LinkBlocked

FLIPS = 1000


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """Where a link may be made, and two versions for it."""
    for version in ("v22", "v23"):
        directory = tmp_path / version
        directory.mkdir()
        (directory / "name").write_text(version)
    (tmp_path / "app").mkdir()
    return tmp_path / "app" / "cache_hub"


def refusing(link: Path) -> list[Callable[[], None]]:
    return [lambda: links.check(link), lambda: links.point(link, "/mnt/v23")]


def names(link: Path) -> list[str]:
    return sorted(os.listdir(link.parent))


def test_point_read_and_point_again(link: Path, tmp_path: Path) -> None:
    assert links.read(link) is None
    links.point(link, f"{tmp_path}/v22")
    assert links.read(link) == f"{tmp_path}/v22"
    links.point(link, f"{tmp_path}/v23")
    assert links.read(link) == f"{tmp_path}/v23"
    assert (link / "name").read_text() == "v23"
    assert names(link) == ["cache_hub"]


def test_a_link_to_a_directory_is_replaced_not_entered(link: Path, tmp_path: Path) -> None:
    links.point(link, f"{tmp_path}/v22")
    links.point(link, f"{tmp_path}/v23")
    assert os.listdir(tmp_path / "v22") == ["name"]
    assert os.listdir(tmp_path / "v23") == ["name"]


@pytest.mark.parametrize("target", ["/nowhere/at/all", "relative/path", "cache_hub", "/模型/v 23\n"])
def test_neither_the_link_nor_its_target_is_followed(link: Path, target: str) -> None:
    links.point(link, target)
    links.check(link)
    assert links.read(link) == target
    links.point(link, "/somewhere/else")
    assert links.read(link) == "/somewhere/else"


def test_the_same_target_is_left_alone(link: Path, tmp_path: Path) -> None:
    links.point(link, f"{tmp_path}/v22")
    before = os.lstat(link)
    links.point(link, f"{tmp_path}/v22")
    assert os.lstat(link).st_ino == before.st_ino


def test_an_open_through_it_always_finds_the_old_or_the_new(link: Path, tmp_path: Path) -> None:
    links.point(link, f"{tmp_path}/v22")
    seen: list[str] = []
    failures: list[OSError] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            try:
                seen.append((link / "name").read_text())
            except OSError as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        flip, limit = 0, time.monotonic() + 60
        # The reader may get no processor for a while: both go on until it has seen enough.
        while flip < FLIPS or ((len(seen) <= 50 or len(set(seen)) < 2) and not failures and time.monotonic() < limit):
            links.point(link, f"{tmp_path}/v{22 + flip % 2}")
            flip += 1
    finally:
        over.set()
        reader.join()
    assert failures == []
    assert set(seen) == {"v22", "v23"}
    assert len(seen) > 50
    assert names(link) == ["cache_hub"]


def make_directory(link: Path) -> None:
    link.mkdir()
    (link / "precious").write_text("data")


def make_file(link: Path) -> None:
    link.write_text("data")


def make_fifo(link: Path) -> None:
    os.mkfifo(link)


@pytest.mark.parametrize(
    ("make", "kind"),
    [(make_directory, "directory"), (make_file, "file"), (make_fifo, "file")],
    ids=["directory", "file", "fifo"],
)
def test_what_may_be_data_is_refused_and_untouched(link: Path, make: Callable[[Path], None], kind: str) -> None:
    make(link)
    before = os.lstat(link)
    for refuse in refusing(link):
        with pytest.raises(LinkBlocked, match=f" {kind} ") as blocked:
            refuse()
        assert str(link) in blocked.value.hint
        assert isinstance(blocked.value, Unavailable)
    assert links.read(link) is None
    after = os.lstat(link)
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (before.st_ino, before.st_mtime_ns, before.st_mode)
    assert names(link) == ["cache_hub"]


def test_its_directory_must_exist_and_is_not_made(tmp_path: Path) -> None:
    link = tmp_path / "not there" / "cache_hub"
    for refuse in refusing(link):
        with pytest.raises(LinkBlocked) as blocked:
            refuse()
        assert f"mkdir -p {link.parent}" in blocked.value.hint
    assert not link.parent.exists()


def test_a_file_above_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LinkBlocked, match="not a directory"):
        links.point(tmp_path / "file" / "cache_hub", "/mnt/v23")


def test_a_directory_that_takes_no_links() -> None:
    with pytest.raises(LinkBlocked, match=r"place .*/proc/mountd-test") as blocked:
        links.point(Path("/proc/mountd-test"), "/mnt/v23")
    assert "/proc" in blocked.value.hint


def test_a_link_that_cannot_be_put_in_its_place_leaves_nothing_beside_the_former(
    link: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    links.point(link, "/mnt/v22")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(LinkBlocked, match=os.strerror(errno.ENOSPC).lower()):
        links.point(link, "/mnt/v23")
    assert (links.read(link), names(link)) == ("/mnt/v22", ["cache_hub"])


def test_that_a_link_can_be_made_is_proved_without_one(link: Path) -> None:
    links.prove(link, "/mnt/v23")
    assert names(link) == []
    links.point(link, "/mnt/v22")
    links.prove(link, "/mnt/v23")
    assert (links.read(link), names(link)) == ("/mnt/v22", ["cache_hub"])
    link.unlink()
    make_file(link)
    for path in (link, link.parent / "none" / "hub", Path("/proc/mountd-test")):
        with pytest.raises(LinkBlocked):
            links.prove(path, "/mnt/v23")


def test_a_link_that_cannot_be_removed_is_called_so() -> None:
    with pytest.raises(LinkBlocked, match=r"remove .*/proc/self/exe"):
        links.remove(Path("/proc/self/exe"))


def test_a_link_is_gone_with_its_directory(tmp_path: Path) -> None:
    links.remove(tmp_path / "not there" / "cache_hub")


def test_sweep_removes_only_what_a_kill_left_of_this_link(link: Path) -> None:
    beside = link.parent
    for name in (".mountd-cache_hub-0123abcd", ".mountd-cache_hub-ffffffff"):
        (beside / name).symlink_to("/mnt/v22")
    (beside / ".mountd-cache_hub-00000000").write_text("somebody's file")
    (beside / ".mountd-cache_hub-of-another-0123abcd").symlink_to("/mnt/v22")  # of a link that goes on like ours
    (beside / ".mountd-other-0123abcd").symlink_to("/mnt/v22")
    (beside / "cache_hub").symlink_to("/mnt/v22")
    links.sweep(link)
    assert names(link) == [
        ".mountd-cache_hub-00000000",
        ".mountd-cache_hub-of-another-0123abcd",
        ".mountd-other-0123abcd",
        "cache_hub",
    ]


def test_sweep_of_what_is_not_there(tmp_path: Path) -> None:
    links.sweep(tmp_path / "not there" / "cache_hub")
