"""What is a daemon's own: its identity, what it remembers for the next start, and the lock that names the first one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.errors import Busy
from mountd.process.instance import FORMER_KEPT, FORMER_NAME, LOCK_NAME, MOUNTS_NAME, Instance


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance.create(tmp_path / "state", tmp_path / "run")


def test_it_is_known_by_the_directory_itself_and_not_by_its_name(instance: Instance, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("state")
    assert Instance.of(tmp_path / "link", tmp_path).id == instance.id
    assert Instance.of(tmp_path / "run", tmp_path).id != instance.id
    missing = Instance.of(tmp_path / "none", tmp_path)
    assert missing.id not in (instance.id, Instance.of(tmp_path / "nothing", tmp_path).id)
    assert len(instance.id) == 8


def test_its_children_are_marked_with_it_and_with_their_name(instance: Instance) -> None:
    assert instance.marks("webui") == {"MOUNTD_INSTANCE": instance.id, "MOUNTD_NAME": "webui"}


# -- what it remembers ------------------------------------------------------------------------------------------------


def test_former_instances_of_this_path_are_those_that_could_not_be_cleared(instance: Instance) -> None:
    assert instance.former() == []
    replace(instance, id="former").remember(["older"])
    assert instance.former() == ["former", "older"]
    instance.remember(instance.former())
    assert instance.former() == ["former", "older"], "and never itself"
    assert replace(instance, state=instance.state.with_name("another")).former() == []
    instance.remember([])
    assert instance.former() == []
    instance.remember(str(number) for number in range(2 * FORMER_KEPT))
    assert instance.former() == [str(number) for number in range(FORMER_KEPT - 1)]


def test_mount_points_are_remembered_until_others_are_kept(instance: Instance) -> None:
    assert instance.mount_points() == frozenset()
    for path in ("/mnt/b", "/mnt/a", "/mnt/b"):
        instance.add_mount_point(path)
    assert instance.mount_points() == {"/mnt/a", "/mnt/b"}
    again = Instance.create(instance.state, instance.runtime.with_name("another"))
    assert again.mount_points() == {"/mnt/a", "/mnt/b"}, "with the state"
    instance.keep_mount_points(["/mnt/c"])
    assert instance.mount_points() == {"/mnt/c"}


@pytest.mark.parametrize("text", ["", "[1, 2", '{"a": 1}', '"/mnt"', "\udcff"])
def test_a_list_that_was_half_written_is_an_empty_one(instance: Instance, text: str) -> None:
    instance.add_mount_point("/mnt/a")
    (instance.state / "private" / MOUNTS_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert instance.mount_points() == frozenset()
    instance.add_mount_point("/mnt/b")
    assert instance.mount_points() == {"/mnt/b"}


def test_only_texts_of_a_list_count(instance: Instance) -> None:
    instance.add_mount_point("/mnt/a")
    (instance.state / "private" / MOUNTS_NAME).write_text('["/mnt/b", 7, null]')
    assert instance.mount_points() == {"/mnt/b"}


def test_keys_do_not_outlive_it_but_its_lock_and_its_former_instances_do(instance: Instance) -> None:
    kept = {LOCK_NAME, FORMER_NAME, "directory"}
    for name in (LOCK_NAME, FORMER_NAME, "rclone.conf", "rc.sock", ".rclone.conf.new"):
        (instance.private / name).write_text("x")
    (instance.private / "directory").mkdir()
    instance.clear_private()
    assert {each.name for each in instance.private.iterdir()} == kept
    replace(instance, runtime=instance.runtime.with_name("none")).clear_private()


# -- the lock ---------------------------------------------------------------------------------------------------------


def open_locks() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue  # the one that listed them
    return [each for each in found if each.endswith(LOCK_NAME)]


def test_a_second_daemon_learns_who_is_there_and_where_to_ask_it(instance: Instance, tmp_path: Path) -> None:
    held = instance.lock(tmp_path / "first.sock")
    try:
        with pytest.raises(Busy) as busy:
            instance.lock(tmp_path / "second.sock")
        assert busy.value.holder == f"pid {os.getpid()}"
        assert (str(instance.state) in busy.value.text, f"pid {os.getpid()}" in busy.value.text) == (True, True)
        assert (f"{tmp_path}/first.sock" in busy.value.hint, "second.sock" in busy.value.hint) == (True, False)
    finally:
        for fd in held:
            os.close(fd)
    for fd in instance.lock(tmp_path / "third.sock"):
        os.close(fd)
    assert (instance.state / LOCK_NAME).read_text() == f"{os.getpid()}\n{tmp_path}/third.sock\n"


def test_one_that_shares_the_runtime_directory_alone_gives_its_state_back(instance: Instance, tmp_path: Path) -> None:
    other = Instance.create(tmp_path / "other", instance.runtime)
    held = instance.lock(tmp_path / "first.sock")
    try:
        before = open_locks()
        with pytest.raises(Busy) as busy:
            other.lock(tmp_path / "second.sock")
        assert f" {instance.runtime}:" in busy.value.text
        assert open_locks() == before
    finally:
        for fd in held:
            os.close(fd)
