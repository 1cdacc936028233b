"""The way to a place, link by link: what is followed, what is made, and what the script says of each."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from mountd.process import way


def opened(path: Path, *, make: bool = False) -> Path:
    """Where it leads."""
    fd = way.open_directory(str(path), strict=True, make=make)
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def failure(path: Path) -> int | None:
    with pytest.raises(OSError) as failed:  # noqa: PT011 (its errno is what is looked at)
        opened(path)
    return failed.value.errno


def test_links_of_ones_own_and_the_way_up_are_followed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("a/./b")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    (tmp_path / "a" / "up").symlink_to("../a/b")
    for name in ("a/b", "relative", "absolute", "a/up", "a/../a//b/."):
        assert opened(tmp_path / name) == tmp_path / "a" / "b"
    assert opened(Path("/")) == Path("/")


def test_what_is_missing_is_made_only_when_that_is_asked_for(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    assert failure(place) == errno.ENOENT
    assert not (tmp_path / "a").exists()
    before = os.umask(0)
    try:
        for _ in range(2):
            assert opened(place, make=True) == place
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (place, place.parent)] == [0o755] * 2


def test_what_leads_nowhere_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert failure(tmp_path / "a") == errno.ELOOP
    (tmp_path / "file").touch()
    assert failure(tmp_path / "file") == failure(tmp_path / "file" / "below") == errno.ENOTDIR


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    before = sorted(os.listdir("/proc/self/fd"))
    opened(tmp_path / "link" / "b")
    failure(tmp_path / "a" / "none")
    assert sorted(os.listdir("/proc/self/fd")) == before


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[tuple[str, str, int | None]]:
    way.main([*words])
    return way.found(capsys.readouterr().out)


def test_the_script_names_what_is_not_safe_and_what_cannot_be_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared, fine, missing = tmp_path / "shared" / "app", tmp_path / "fine", tmp_path / "none" / "below"
    shared.mkdir(parents=True)
    fine.mkdir()
    shared.parent.chmod(0o777)
    paths = [str(shared), str(fine), str(missing)]
    unsafe, unseen = printed(capsys, *paths)
    assert (unsafe[0], unsafe[2]) == (str(shared), None)
    assert "every user can move" in unsafe[1]
    assert unseen == (str(missing), os.strerror(errno.ENOENT).lower(), errno.ENOENT)
    assert printed(capsys, "--lax", *paths) == [unseen]
    assert printed(capsys, "--lax", "--make", *paths) == []
    assert missing.is_dir()


@pytest.mark.parametrize("line", ["", '["/a", "x"]', '["/a", "x", "2"]', '{"a": 1}', "ld.so: x"])
def test_whatever_else_is_printed_is_no_answer(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (nobody reads its text)
        way.found(f"{json.dumps(['/b', 'x', 2])}\n{line}\n")
    assert way.found("") == []
