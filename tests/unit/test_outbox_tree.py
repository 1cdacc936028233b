"""The directory of an outbox on a real disk: no link leads out of it, and only what is expected is removed."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.outbox import removal, tree
from mountd.outbox.settling import OWN_PREFIX, own_name
from mountd.outbox.tree import Inotify, WatchedTree, Writers


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    directory = tmp_path / "outputs"
    directory.mkdir()
    descriptor = tree.open_root(str(directory))
    yield descriptor
    os.close(descriptor)


def files(root: int, exclude: tuple[str, ...] = ()) -> set[str]:
    return {path for path, _ in WatchedTree(("*",), exclude).files(root, None)}


def test_regular_files_are_found_and_nothing_else(root: int, tmp_path: Path) -> None:
    outputs, elsewhere = tmp_path / "outputs", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret").write_text("x")
    (outputs / "d" / "e").mkdir(parents=True)
    for name in ("a", "d/b", "d/e/c", "声 音#.wav"):
        (outputs / name).write_text(name)
    Path(os.fsdecode(os.fsencode(outputs) + b"/\xff.wav")).write_text("x")
    os.mkfifo(outputs / "fifo")
    (outputs / "link").symlink_to(elsewhere / "secret")
    (outputs / "linked").symlink_to(elsewhere)
    (outputs / ".hidden").mkdir()
    (outputs / ".hidden" / "x").write_text("x")
    assert files(root, (".*",)) == {"a", "d/b", "d/e/c", "声 音#.wav", "\udcff.wav"}


def test_no_step_of_a_path_is_a_link(root: int, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    (tmp_path / "secret").write_text("x")
    (outputs / "d").symlink_to(tmp_path)
    (outputs / "f").symlink_to(tmp_path / "secret")
    for path in ("d/secret", "f"):
        assert tree.look_at(root, path) is None
        with pytest.raises(OSError, match="Errno") as failed:
            tree.open_file(root, path)
        assert failed.value.errno in tree.GONE


def test_a_pipe_is_no_file_and_is_not_waited_for(root: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "outputs" / "fifo")
    with pytest.raises(OSError, match="Errno") as failed:
        tree.open_file(root, "fifo")
    assert failed.value.errno == errno.ENOENT


def test_above_the_directory_links_of_root_and_ourselves_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "outputs").mkdir(parents=True)
    (tmp_path / "way").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "way")
    wanted = os.stat(tmp_path / "real" / "outputs").st_ino
    for way in ("real", "way", "absolute"):
        found = tree.open_root(str(tmp_path / way / "outputs"))
        assert os.fstat(found).st_ino == wanted
        os.close(found)


def test_the_directory_itself_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "outputs").symlink_to("/")
    with pytest.raises(OSError, match="Errno"):
        tree.open_root(str(tmp_path / "outputs"))


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="Errno"):
        tree.open_root(str(tmp_path / "a" / "outputs"))


@pytest.mark.root
def test_above_the_directory_a_link_of_another_user_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real" / "outputs").mkdir(parents=True)
    (tmp_path / "way").symlink_to("real")
    os.lchown(tmp_path / "way", 65534, 65534)
    with pytest.raises(OSError, match="Errno"):
        tree.open_root(str(tmp_path / "way" / "outputs"))


def test_a_file_that_is_open_for_writing_is_seen(root: int, tmp_path: Path) -> None:
    path = tmp_path / "outputs" / "a"
    path.write_text("x")
    device = os.fstat(root).st_dev
    file = tree.open_file(root, "a")
    assert not Writers(device).have(file)
    with path.open("ab"):
        assert Writers(device).have(file)
        unleased = Writers(device)
        unleased._leases = False  # as on NFS: by what /proc shows
        assert unleased.have(file)
    with path.open("rb"):
        assert not Writers(device).have(file)
        unleased = Writers(device)
        unleased._leases = False
        assert not unleased.have(file)
    os.close(file)


@pytest.mark.parametrize("kind", ["socket", "file"])
def test_what_has_the_number_of_a_file_and_is_another_one_does_not_hold_it(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Each file system numbers its own, and the kernel its sockets: some live as long as a connection."""
    path = tmp_path / "outputs" / "a"
    path.write_text("x")
    with socket.socket() as other, path.open("ab") as writer, open(tree.open_file(root, "a"), "rb") as file:
        number = other.fileno() if kind == "socket" else writer.fileno()
        place = f"/proc/self/fd/{number}"
        monkeypatch.setattr(tree, "_open_for_writing", lambda: iter([(path.stat().st_ino, place)]))
        it = Writers(os.fstat(root).st_dev)
        it._leases = False
        assert it.have(file.fileno()) is (kind == "file")


def test_only_the_expected_file_is_removed(root: int, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "d").mkdir()
    path = outputs / "d" / "a"
    path.write_text("one")
    look = tree.look_at(root, "d/a")
    assert look is not None
    path.write_text("another")
    assert removal.remove(root, "d/a", look) == "changed"
    assert path.read_text() == "another"
    now = tree.look_at(root, "d/a")
    assert now is not None
    assert removal.remove(root, "d/a", now) == "removed"
    assert removal.remove(root, "d/a", now) == "gone"
    assert os.listdir(outputs / "d") == []


def rewritten(path: Path, content: str) -> None:
    """In place, with the time of before."""
    seen = path.stat()
    path.write_text(content)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))


def test_other_content_with_the_size_and_time_of_before_is_not_removed(root: int, tmp_path: Path) -> None:
    path = tmp_path / "outputs" / "a"
    path.write_text("one")
    look = tree.look_at(root, "a")
    assert look is not None
    rewritten(path, "two")
    assert removal.remove(root, "a", look) == "changed"
    assert path.read_text() == "two"


@pytest.mark.parametrize("opened", ["before", "in the moment of its removal"])
def test_a_file_that_a_program_has_open_for_writing_stays(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: str
) -> None:
    path = tmp_path / "outputs" / "a"
    path.write_text("one")
    look = tree.look_at(root, "a")
    assert look is not None
    rename, files = os.rename, []

    def opened_before(*words: object, **more: object) -> None:
        monkeypatch.undo()
        files.append(path.open("a"))
        rename(*words, **more)  # type: ignore[arg-type]

    if opened == "before":
        files.append(path.open("a"))
    else:
        monkeypatch.setattr(os, "rename", opened_before)
    assert removal.remove(root, "a", look) == "changed"
    (file,) = files
    with file:
        file.write(" more")
    assert path.read_text() == "one more"
    now = tree.look_at(root, "a")
    assert now is not None
    assert removal.remove(root, "a", now) == "removed"


@pytest.mark.parametrize("is_newer_there", [False, True])
def test_what_is_swapped_in_goes_back_to_its_place_also_where_there_are_no_hard_links(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_newer_there: bool
) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "a").write_text("old")
    look = tree.look_at(root, "a")
    assert look is not None
    rename = os.rename

    def replaced_before(*words: object, **more: object) -> None:
        monkeypatch.setattr(os, "rename", rename)
        (outputs / "new").write_text("newer")
        rename(outputs / "new", outputs / "a")
        rename(*words, **more)  # type: ignore[arg-type]

    def no_link(*_: object, **__: object) -> None:
        if is_newer_there:
            (outputs / "a").write_text("newest")
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "rename", replaced_before)
    monkeypatch.setattr(os, "link", no_link)
    assert removal.remove(root, "a", look) == "changed"
    assert (outputs / "a").read_text() == ("newest" if is_newer_there else "newer")
    assert os.listdir(outputs) == ["a"]


def test_what_is_put_at_its_place_in_the_moment_of_its_removal_stays(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "a").write_text("old")
    look = tree.look_at(root, "a")
    assert look is not None
    rename = os.rename

    def replaced_before(*words: object, **more: object) -> None:
        monkeypatch.undo()
        (outputs / "new").write_text("newest")
        rename(outputs / "new", outputs / "a")
        rename(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", replaced_before)
    assert removal.remove(root, "a", look) == "changed"
    assert (outputs / "a").read_text() == "newest"
    assert os.listdir(outputs) == ["a"]


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_what_is_swapped_in_between_look_and_removal_is_neither_followed_nor_removed(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    outputs, secret = tmp_path / "outputs", tmp_path / "secret"
    secret.write_text("of root alone")
    (outputs / "a").write_text("old")
    look = tree.look_at(root, "a")
    assert look is not None
    rename = os.rename

    def swapped_before(*words: object, **more: object) -> None:
        monkeypatch.undo()
        (outputs / "a").unlink()
        if kind == "link":
            (outputs / "a").symlink_to(secret)
        else:
            (outputs / "a").mkdir()
        rename(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "rename", swapped_before)
    assert removal.remove(root, "a", look) == "changed"
    assert secret.stat().st_nlink == 1
    assert (outputs / "a").is_symlink() == (kind == "link")
    assert os.listdir(outputs) == ["a"]


def test_a_link_in_place_of_the_file_is_not_removed_in_its_name(root: int, tmp_path: Path) -> None:
    link = tmp_path / "outputs" / "a"
    link.symlink_to("elsewhere")
    assert removal.remove(root, "a", tree.look_of(link.lstat())) == "changed"
    assert link.is_symlink()


@pytest.mark.root
def test_a_file_that_somebody_has_linked_into_the_directory_is_not_read(root: int, tmp_path: Path) -> None:
    """As far as the kernel lets them: fs.protected_hardlinks may be off."""
    outputs, app = tmp_path / "outputs", 65534
    secret = tmp_path / "secret"
    secret.write_text("of root alone")
    os.link(secret, outputs / "linked")
    (outputs / "own").write_text("x")
    os.link(outputs / "own", outputs / "own again")
    os.close(tree.open_file(root, "linked"))  # root's own directory, in which nobody else writes
    os.chmod(outputs, 0o1777)
    with pytest.raises(PermissionError):
        tree.open_file(root, "linked")
    os.chown(outputs, app, app)
    os.chown(outputs / "own", app, app)
    with pytest.raises(PermissionError, match="hard link"):
        tree.open_file(root, "linked")
    os.close(tree.open_file(root, "own"))


def deep(base: Path, *names: str) -> None:
    """Directories in each other, of any length together, with a file in the last one."""
    here = os.open(base, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=here)
        there = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_paths_that_are_too_long_or_too_deep_are_left_out_and_counted(root: int, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    deep(outputs, *("x" * 200 for _ in range(30)))  # 6,000 bytes
    deep(outputs, *("d" for _ in range(100)))
    deep(outputs, "e", "f")
    watched = WatchedTree(("*",), ())
    assert {path for path, _ in watched.files(root, None)} == {"e/f/file"}
    assert watched.skipped == 2
    assert max(map(len, watched.watched.values()), default=0) <= tree.LONGEST_PATH
    assert not watched.is_full
    excluding = WatchedTree(("*",), ("x*", "d"))
    assert {path for path, _ in excluding.files(root, None)} == {"e/f/file"}
    assert excluding.skipped == 0


def test_what_is_excluded_counts_as_looked_at(root: int, tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / "outputs" / f"{number}.tmp").touch()
    seen: list[None] = []
    watched = WatchedTree(("*",), ("*.tmp",), lambda: seen.append(None))
    assert list(watched.files(root, None)) == []
    assert len(seen) >= 20
    assert not watched.is_full
    few = WatchedTree(("*",), ("*.tmp",))
    assert list(few.files(root, None, most=19)) == []
    assert few.is_full


def test_of_directories_that_come_later_nothing_is_kept(root: int, tmp_path: Path) -> None:
    """An app may make one for each result: what lies in the last one is found however many there are."""
    for number in range(200):
        deep(tmp_path / "outputs", f"{number}")
    seen: list[None] = []
    watched = WatchedTree(("*",), (), lambda: seen.append(None))
    found = watched.files(root, None)
    next(found)
    assert len(seen) < 10
    assert len([*found]) == 199


def test_directories_that_cannot_be_read_are_shown_up_to_a_number(
    root: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        deep(tmp_path / "outputs", f"{number}")
    deep(tmp_path / "outputs", "x", "y")
    opens = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path.isdigit():
            raise PermissionError(errno.EACCES, "refused")
        return opens(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    watched = WatchedTree(("*",), ())
    assert [path for path, _ in watched.files(root, None)] == ["x/y/file"]
    assert len(watched.unread) == tree.MOST_SHOWN


def test_a_scan_takes_away_what_a_killed_removal_has_left(root: int, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    for name, content in (("left", "x"), ("written", "x"), (f"{OWN_PREFIX}7", "of a program")):
        (outputs / name).write_text(content)
    left, written = (own_name(tree.look_of((outputs / name).stat())) for name in ("left", "written"))
    (outputs / "left").rename(outputs / left)
    (outputs / "written").rename(outputs / written)
    (outputs / written).write_text("x and more")
    assert files(root) == set()
    assert sorted((outputs / name).read_text() for name in os.listdir(outputs)) == ["of a program", "x and more"]


def test_what_happens_in_each_directory_is_heard(root: int, tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    (outputs / "d").mkdir()
    inotify, watched = Inotify(), WatchedTree(("*",), ())
    assert list(watched.files(root, inotify)) == []
    (outputs / "d" / "a").write_text("x")
    (outputs / "d" / "a").rename(outputs / "b")
    (outputs / "b").unlink()
    heard = [(watched.watched[number], name) for number, mask, name in inotify.read() if not mask & tree.IN_IGNORED]
    assert set(heard) == {("d", "a"), ("", "b")}
    os.close(inotify.descriptor)
