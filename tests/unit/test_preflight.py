"""What must be so before rclone may start: each check with what passes, and with what it says when it does not."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.cache import guard
from mountd.cli import examine_config
from mountd.errors import FIX_RETRY_S, CannotStart, Unavailable
from mountd.files.client import Files
from mountd.fuse import rights, table
from mountd.mount import preflight
from mountd.settings.load import load


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a disk and with children that a busy machine lets wait."""
    monkeypatch.setattr(preflight, "TOUCH_TIMEOUT_S", 60.0)
    monkeypatch.setattr(examine_config, "WAY_S", 60.0)
    monkeypatch.setattr(guard, "LOOK_LIMIT_S", 60.0)


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    files = Files("test", {"MOUNTD_INSTANCE": f"test-{os.getpid()}"})
    yield files
    await files.close()


def refusal(check: Callable[[], object]) -> CannotStart:
    with pytest.raises(CannotStart) as refused:
        check()
    return judged(refused.value)


def judged(error: CannotStart) -> CannotStart:
    """Whatever it is: somebody can repair it, is shown how, and need not restart mountd."""
    assert error.text.startswith("cannot ")
    assert error.hint
    assert error.retry_s == FIX_RETRY_S
    return error


# -- the machine ------------------------------------------------------------------------------------------------------


def test_the_fuse_device(tmp_path: Path) -> None:
    (tmp_path / "fuse").touch()
    preflight.check_fuse(str(tmp_path / "fuse"))
    missing = refusal(lambda: preflight.check_fuse(str(tmp_path / "missing")))
    assert (missing.code, "--device /dev/fuse" in missing.hint) == ("no-fuse", True)
    closed = refusal(lambda: preflight.check_fuse(str(tmp_path)))
    assert (closed.code, f"uid {os.geteuid()}" in closed.hint) == ("no-fuse", True)


@pytest.mark.parametrize(
    ("number", "in_container", "uid", "named", "not_named"),
    [
        (errno.ENOENT, False, 0, ["modprobe fuse", "--device /dev/fuse"], "uid"),
        (errno.ENOENT, True, 0, ["--device /dev/fuse"], "modprobe"),
        (errno.EPERM, True, 0, ["--device /dev/fuse"], "uid"),
        (errno.EACCES, False, 1000, ["uid 1000", "as root"], "--device"),
        (errno.EACCES, False, 0, ["uid 0"], "as root"),
    ],
)
def test_what_helps_a_fuse_device_that_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, number: int, in_container: bool, uid: int, named: list[str], not_named: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    found = replace(rights.look(), uid=uid, has_device=True, in_container=in_container)
    with monkeypatch.context() as patched:
        patched.setattr(rights, "look", lambda: found)
        patched.setattr(os, "open", fail)
        refused = refusal(preflight.check_fuse)
    assert refused.code == "no-fuse"
    assert [word in refused.hint for word in (*named, not_named)] == [*[True] * len(named), False]


def test_what_fusermount_reads_to_unmount(tmp_path: Path) -> None:
    mtab = str(tmp_path / "mtab")
    preflight.check_mtab(root=True, path=mtab)
    missing = refusal(lambda: preflight.check_mtab(root=False, path=mtab))
    assert (missing.code, f"ln -s /proc/self/mounts {mtab}" in missing.hint) == ("no-mtab", True)
    os.symlink("/proc/self/mounts", mtab)
    preflight.check_mtab(root=False, path=mtab)


@pytest.mark.parametrize("program", ["fusermount3", "fusermount"])
def test_fusermount(tmp_path: Path, program: str) -> None:
    missing = refusal(lambda: preflight.check_fusermount(str(tmp_path)))
    assert (missing.code, "fuse3" in missing.hint) == ("no-fusermount", True)
    (tmp_path / program).touch(mode=0o644)
    refusal(lambda: preflight.check_fusermount(str(tmp_path)))  # there, but nobody may execute it
    (tmp_path / program).chmod(0o755)
    preflight.check_fusermount(str(tmp_path))


@pytest.mark.parametrize(
    ("conf", "permits"),
    [
        ("user_allow_other\n", True),
        ("# comment\n  user_allow_other  # yes\nmount_max = 5\n", True),
        ("user_allow_other", True),
        ("", False),
        ("#user_allow_other\n", False),
        ("user_allow_other_users\n", False),
        (None, False),
    ],
)
def test_allow_other(tmp_path: Path, conf: str | None, permits: bool) -> None:
    path = tmp_path / "fuse.conf"
    if conf is not None:
        path.write_text(conf)
    preflight.check_allow_other(allow_other=False, root=False, conf=path)
    preflight.check_allow_other(allow_other=True, root=True, conf=path)
    if permits:
        preflight.check_allow_other(allow_other=True, root=False, conf=path)
        return
    error = refusal(lambda: preflight.check_allow_other(allow_other=True, root=False, conf=path))
    assert error.code == "no-user-allow-other"
    assert str(path) in error.hint


# -- the mount point --------------------------------------------------------------------------------------------------

TABLE = table.parse(
    "1 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
    "2 1 0:5 / /mnt/ours rw - fuse.rclone mountd:abc:storage rw\n"
    "3 1 0:6 / /mnt/another rw - fuse.rclone mountd:def:storage rw\n"
    "4 1 0:7 / /mnt/nfs rw - nfs4 server:/export rw\n"
    "5 2 0:8 / /mnt/ours rw - tmpfs over-it rw\n"
    "6 1 0:5 /v23 /mnt/bound rw - fuse.rclone mountd:abc:storage rw\n"
)


def test_occupant() -> None:
    ours = "mountd:abc:storage"
    assert preflight.occupant(TABLE, "/mnt/free", ours) is None
    leftover = preflight.occupant(TABLE[:4], "/mnt/ours", ours)
    assert leftover is not None
    assert leftover.source == ours


@pytest.mark.parametrize(
    ("path", "says", "hint"),
    [
        ("/mnt/another", "mountd:def:storage (fuse.rclone)", "another mountd"),
        ("/mnt/nfs", "server:/export (nfs4)", "umount /mnt/nfs"),
        ("/mnt/ours", "over-it (tmpfs)", "umount /mnt/ours"),
        ("/mnt/bound", "mountd:abc:storage (fuse.rclone)", "--bind"),
        ("/", "/dev/sda1 (ext4)", "another path"),
    ],
)
def test_somebody_elses_mount_is_left_alone(path: str, says: str, hint: str) -> None:
    error = refusal(lambda: preflight.occupant(TABLE, path, "mountd:abc:storage"))
    assert error.code == "mount-point-taken"
    assert says in error.text
    assert hint in error.hint


async def test_a_mount_point_is_made_when_missing(files: Files, tmp_path: Path) -> None:
    point = tmp_path / "a" / "b 声"
    await preflight.check_mount_point(str(point), files)
    assert point.is_dir()
    await preflight.check_mount_point(str(point), files)


async def test_a_mount_point_with_files_in_it(files: Files, tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).touch()
    with pytest.raises(CannotStart) as refused:
        await preflight.check_mount_point(str(tmp_path), files)
    error = judged(refused.value)
    assert error.code == "mount-point-not-empty"
    assert re.search(r"\([abcd], [abcd], [abcd], …\)$", error.text), error.text
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.touch(), "move it"),
        (lambda path: path.symlink_to("/nowhere/at/all"), "path: /nowhere/at/all"),
        (lambda path: path.symlink_to(path), "symbolic links"),
    ],
    ids=["file", "dangling", "loop"],
)
async def test_what_is_no_mount_point(
    files: Files, tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:  # fmt: skip
    make(tmp_path / "x")
    with pytest.raises(CannotStart) as refused:
        await preflight.check_mount_point(str(tmp_path / "x"), files)
    error = judged(refused.value)
    assert error.code == "mount-point"
    assert says in f"{error.text}\n{error.hint}"


async def test_a_mount_point_that_cannot_be_made(files: Files) -> None:
    with pytest.raises(CannotStart) as refused:
        await preflight.check_mount_point("/proc/mountd-test", files)
    assert judged(refused.value).code == "mount-point"


def ends_badly(path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of way.py: a check that does not come to its end."""
    path.write_text(text)
    monkeypatch.setattr("mountd.process.way.__file__", str(path))


CHECKS_THAT_END_BADLY = [
    ("raise MemoryError", "MemoryError"),
    ("import os; os.kill(os.getpid(), 9)", "signal SIGKILL"),
    ("raise SystemExit(3)", "exit code 3"),
    ("print('[1')", ""),
    ("print('[1, 2, 3]')", ""),
]


@pytest.mark.parametrize(("text", "says"), CHECKS_THAT_END_BADLY)
async def test_a_way_that_could_not_be_checked_is_neither_safe_nor_a_bug(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    (tmp_path / "m").mkdir()
    ends_badly(tmp_path / "way.py", text, monkeypatch)
    with pytest.raises(Unavailable) as refused:
        await preflight.check_mount_point(str(tmp_path / "m"), files)
    assert not isinstance(refused.value, CannotStart)
    assert says in refused.value.text


@pytest.mark.parametrize(("text", "says"), CHECKS_THAT_END_BADLY)
def test_config_check_says_that_paths_were_not_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, says: str
) -> None:
    config = tmp_path / "mountd.yaml"
    config.write_text(
        "remotes: {r: {type: local}}\n"
        f"mounts: {{m: {{remote: 'r:/', path: {tmp_path}/m, cache: {{dir: {tmp_path}/cache}}}}}}\n"
    )
    ends_badly(tmp_path / "way.py", text, monkeypatch)
    warnings = [str(each) for each in examine_config.examine(config).warnings]
    (warning,) = (each for each in warnings if "was not checked: cannot check paths: " in each)
    assert says in warning
    checks = examine_config.valid(load(config), None)
    assert {each.result for each in checks if each.name == "paths"} == {"warn"}
    assert all("not checked" in each.text for each in checks if each.name == "paths")


def test_config_check_names_a_path_that_cannot_be_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, blocked = tmp_path / "mountd.yaml", tmp_path / "file" / "m"
    blocked.parent.touch()
    config.write_text(f"remotes: {{r: {{type: local}}}}\nmounts: {{m: {{remote: 'r:/', path: {blocked}}}}}\n")
    warning = f"line 2: mounts.m.path: whether others can move {blocked} was not checked: not a directory"
    assert warning in map(str, examine_config.examine(config).warnings)
    (tmp_path / "way.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr("mountd.process.way.__file__", str(tmp_path / "way.py"))
    monkeypatch.setattr(examine_config, "WAY_S", 0.2)
    warning = "whether others can move paths was not checked: cannot check paths: no answer in 0.2 s"
    assert warning in map(str, examine_config.examine(config).warnings)


@pytest.mark.parametrize("is_left", [False, True])
async def test_all_of_it(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_left: bool) -> None:
    """What a previous run left mounted is cleared before the mount point is looked at."""
    point, done = str(tmp_path / "m"), list[str]()
    left = table.Entry(1, 0, "0:7", "/", point, "fuse.rclone", "mountd:abc:m")
    monkeypatch.setattr(preflight, "read_table", lambda: (left,) if is_left else ())
    monkeypatch.setattr(preflight, "check_fuse", lambda: done.append("fuse"))
    monkeypatch.setattr(preflight, "check_fusermount", lambda: done.append("fusermount"))

    def may_allow(*, allow_other: bool, root: bool) -> None:
        done.append(f"{allow_other} {root}")

    async def clear() -> None:
        assert not await asyncio.to_thread(os.path.exists, point)
        done.append("clear")

    monkeypatch.setattr(preflight, "check_allow_other", may_allow)
    await preflight.check(point, "mountd:abc:m", files, allow_other=True, allow_unsafe=False, clear=clear)
    assert done == ["fuse", "fusermount", f"True {os.geteuid() == 0}", *(["clear"] if is_left else [])]
    assert await asyncio.to_thread(os.path.isdir, point)


async def test_a_mount_point_behind_a_symbolic_link(files: Files, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CannotStart) as refused:
        await preflight.check_mount_point(str(tmp_path / "link" / "m"), files)
    assert judged(refused.value).code == "mount-point"
    assert str(tmp_path / "real" / "m") in refused.value.hint
    assert not (tmp_path / "real" / "m").exists()


@pytest.mark.parametrize("may_look", [True, False])
def test_a_mount_that_only_mountd_sees(monkeypatch: pytest.MonkeyPatch, may_look: bool) -> None:
    own = (table.Entry(1, 0, "8:1", "/", "/", "ext4", "/dev/sda1"),)
    machine = [table.Entry(9, 0, "8:1", "/", "/", "ext4", "/dev/sda1")]

    def read(source: str = "own") -> object:
        if source != "own" and not may_look:
            raise PermissionError
        return own if source == "own" else machine

    monkeypatch.setattr(preflight, "read_table", read)
    found = preflight.apart("m", "/mnt/m")
    assert (found.code if found else "") == ("mount-not-visible" if may_look else "")
    machine.append(own[0])
    assert preflight.apart("m", "/mnt/m") is None, "it is the same namespace"


# -- the cache --------------------------------------------------------------------------------------------------------


def test_the_cache_is_made_private_and_taken_once(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "cache"
    fd = guard.lock_cache(directory)
    try:
        assert directory.stat().st_mode & 0o777 == 0o700
        assert not os.get_inheritable(fd), "rclone would hold the lock beyond our death"
        error = refusal(lambda: guard.lock_cache(directory))
        assert error.code == "cache-taken"
    finally:
        os.close(fd)
    os.close(guard.lock_cache(directory))


def test_a_lock_file_that_was_left_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / guard.LOCK_NAME).write_text("4711\n")
    os.close(guard.lock_cache(tmp_path))


def test_a_lock_of_another_process_counts(tmp_path: Path) -> None:
    with (tmp_path / guard.LOCK_NAME).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert refusal(lambda: guard.lock_cache(tmp_path)).code == "cache-taken"


@pytest.mark.parametrize("place", ["file", "file/cache", "dangling"])
def test_what_is_no_cache_directory(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("/nowhere/at/all")
    error = refusal(lambda: guard.lock_cache(tmp_path / place))
    assert error.code == "cache-not-writable"
    assert "cache.dir" in error.hint


def test_a_cache_that_cannot_be_written() -> None:
    assert refusal(lambda: guard.lock_cache(Path("/proc/mountd-test"))).code == "cache-not-writable"
    assert refusal(lambda: guard.lock_cache(Path("/sys"))).code == "cache-not-writable"


def test_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MIN_FREE_BYTES", 1)
    guard.check_space(tmp_path)
    monkeypatch.setattr(guard, "MIN_FREE_BYTES", 2**62)
    error = refusal(lambda: guard.check_space(tmp_path))
    assert error.code == "cache-full"
