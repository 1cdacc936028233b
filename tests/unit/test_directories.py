"""The daemon's own directories: made with the right mode, and refused where a stranger could exchange what is there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mountd.cache.guard import lock_cache
from mountd.errors import CannotStart, MountdError
from mountd.journal.journal import Journal
from mountd.process import directories
from mountd.process.instance import Instance

STRANGER = 65534


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """As /tmp is: everybody may make a name, and only its owner may take it away."""
    place = tmp_path / "tmp"
    place.mkdir()
    place.chmod(0o1777)
    return place


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("umask")
def test_modes_whatever_the_umask_is(tmp_path: Path, names: Path) -> None:
    instance = Instance.create(tmp_path / "a" / "state", tmp_path / "b" / "run")
    assert [mode(tmp_path / name) for name in ("a", "a/state", "b", "b/run")] == [0o755] * 4
    assert mode(instance.private) == 0o700
    among_all = Instance.create(names / "mountd" / "state", names / "mountd")
    assert [mode(path) for path in (names / "mountd", among_all.state, among_all.private)] == [0o700, 0o755, 0o700]
    among_all.private.chmod(0o2770)  # as Kubernetes does to what lies on a volume
    Instance.create(among_all.state, among_all.runtime)
    assert mode(among_all.private) == 0o700


@pytest.mark.parametrize("mask", [0o077, 0o777, 0])
def test_parents_are_passable_whatever_the_umask_is(tmp_path: Path, mask: int) -> None:
    """The app's user goes through them, to pins, to the control socket and to a mount point."""
    before = os.umask(mask)
    try:
        directories.make(tmp_path / "a" / "b" / "c", 0o700)
    finally:
        os.umask(before)
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o755, 0o755, 0o700]


def test_a_lock_is_nobody_elses_also_where_an_older_mountd_made_it(tmp_path: Path) -> None:
    instance = Instance.create(tmp_path / "state", tmp_path / "run")
    lock, cache = tmp_path / "state" / "mountd.lock", tmp_path / "cache" / "mountd.lock"
    cache.parent.mkdir()
    for path in (lock, cache):
        path.touch(mode=0o666)
        path.chmod(0o666)
    for fd in (*instance.lock(tmp_path / "socket"), lock_cache(cache.parent)):
        os.close(fd)
    assert [mode(path) for path in (lock, cache)] == [0o600, 0o600]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    instance = Instance.create(tmp_path / "state", tmp_path / "run")
    (tmp_path / "precious").write_text("as it was")
    (tmp_path / "state" / "mountd.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(MountdError, match=r"mountd\.lock"):
        instance.lock(tmp_path / "socket")
    assert (tmp_path / "precious").read_text() == "as it was"


async def test_the_journal_is_nobody_elses_also_where_an_older_mountd_made_it(tmp_path: Path) -> None:
    path = tmp_path / "mountd.db"
    leftovers = [path.with_name(name) for name in ("mountd.db-journal", "mountd.db.broken-20260101T000000.000000Z")]
    before = os.umask(0)
    try:
        for each in leftovers:
            each.touch(mode=0o644)
        for _ in range(2):
            journal = Journal(path)
            await journal.open()
            await journal.close()
            assert {mode(each) for each in tmp_path.iterdir()} == {0o600}
            path.chmod(0o644)
    finally:
        os.umask(before)


@pytest.mark.root
@pytest.mark.parametrize("link", [False, True])
def test_a_name_that_a_stranger_took_first_is_refused(tmp_path: Path, names: Path, link: bool) -> None:
    taken = names / "mountd-1000"
    if link:
        taken.symlink_to(tmp_path)
    else:
        taken.mkdir(mode=0o777)
    os.chown(taken, STRANGER, STRANGER, follow_symlinks=False)
    for state, runtime in [(tmp_path / "state", taken), (taken / "state", tmp_path / "run")]:
        with pytest.raises(MountdError, match=f" {taken}: .*uid {STRANGER}"):
            Instance.create(state, runtime)
    with pytest.raises(CannotStart, match=f" {taken}: .*uid {STRANGER}") as refused:
        lock_cache(taken / "cache" / "storage")
    assert refused.value.code == "cache-not-writable"
    assert link or list(taken.iterdir()) == []


@pytest.mark.root
def test_what_the_administrator_has_decided_is_accepted(tmp_path: Path, names: Path) -> None:
    """Volumes of root or of the image's user, which a group, or in a container everybody, may write."""
    for number, (owner, given) in enumerate([(0, 0o2775), (STRANGER, 0o2775), (STRANGER, 0o700), (0, 0o1777)]):
        volume = tmp_path / str(number)
        volume.mkdir()
        os.chown(volume, owner, 4242)
        volume.chmod(given)
        with capture_logs() as reported:
            instance = Instance.create(volume, volume)
        assert (reported, mode(volume), mode(instance.private)) == ([], given, 0o700)
    mine = names / "mine"
    mine.mkdir(mode=0o755)
    (names / "link").symlink_to(mine)
    Instance.create(names / "link" / "state", names / "link" / "run")


@pytest.mark.root
def test_what_everybody_may_exchange_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with capture_logs() as reported:
        Instance.create(tmp_path / "state", tmp_path)
    assert [(each["log_level"], each["path"]) for each in reported] == [("warning", str(tmp_path))]


@pytest.mark.root
def test_the_private_directory_is_nobody_elses(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(MountdError, match=f" {private}: .*link"):
        Instance.create(tmp_path / "state", tmp_path)
    private.unlink()
    private.mkdir()
    os.chown(private, STRANGER, STRANGER)
    with pytest.raises(MountdError, match=f" {private}: .*uid {STRANGER}"):
        Instance.create(tmp_path / "state", tmp_path)


def test_a_file_in_the_place_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for state in (tmp_path / "file", tmp_path / "file" / "state"):
        with pytest.raises(MountdError, match=f" {state}: not a directory$"):
            Instance.create(state, tmp_path / "run")
