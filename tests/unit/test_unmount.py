"""How a mount is taken away: with which programs, of which mounts, and what is said when it stays. The table of mounts
and the programs are a test's."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from mountd.errors import Bug, Exhausted, Unavailable
from mountd.fuse import unmount as module
from mountd.fuse.table import Entry
from mountd.fuse.unmount import Cleared, clear, holders, unanswered, unmount
from tests.support.stepping import step

PLACE, SOURCE = "/mnt/m", "mountd:abc:m"


def entry(mount_id: int, parent_id: int = 1, *, source: str = SOURCE, fs_type: str = "fuse.rclone") -> Entry:
    return Entry(mount_id, parent_id, f"0:{mount_id}", "/", PLACE, fs_type, source)


class Machine:
    """The table of mounts, and what each command answers: code and words, or what it raises; else it unmounts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *mounts: Entry) -> None:
        self.mounts = list(mounts)
        self.ran: list[list[str]] = []
        self.aborted: list[int] = []
        self.can_abort = True
        self.killed: list[int] = []
        self.answers: dict[str, tuple[int | None, str] | Exception] = {}
        self.programs = {"fusermount3", "umount"}
        self.detached: list[str] = []
        self.uid = 0
        monkeypatch.setattr(module, "read_table", lambda: tuple(self.mounts))
        monkeypatch.setattr(module, "abort", self._abort)
        monkeypatch.setattr(module, "_kill_holders", self._kill)
        monkeypatch.setattr(module, "_run", self._run)
        monkeypatch.setattr(module, "_detach", self._detach)
        monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name in self.programs else None)
        monkeypatch.setattr(os, "geteuid", lambda: self.uid)
        monkeypatch.setattr(module, "FIRST_DELAY_S", 0.001)
        monkeypatch.setattr(module, "LONGEST_DELAY_S", 0.001)

    async def _abort(self, minor: int) -> bool:
        self.aborted.append(minor)
        return self.can_abort

    def _kill(self, minor: int) -> list[int]:
        self.killed.append(minor)
        return [4000 + minor]

    async def _detach(self, mount_point: str, timeout_s: float) -> None:
        self.detached.append(mount_point)
        self.mounts.pop()

    async def _run(self, command: list[str], timeout_s: float) -> tuple[int | None, str]:
        self.ran.append(command)
        answer = self.answers.get(os.path.basename(command[0]), (0, ""))
        if isinstance(answer, Exception):
            raise answer
        if answer[0] == 0 and self.mounts:
            self.mounts.pop()
        return answer

    @property
    def names(self) -> list[str]:
        return [os.path.basename(command[0]) for command in self.ran]


async def refusal(mount_point: str = PLACE) -> Unavailable:
    with pytest.raises(Unavailable) as refused:
        await unmount(mount_point, timeout_s=30.0)
    assert mount_point in refused.value.text
    assert refused.value.hint
    return refused.value


# -- one mount --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "programs", "answers", "ran"),
    [
        (0, {"fusermount3", "fusermount", "umount"}, {}, ["fusermount3"]),
        (0, {"fusermount", "umount"}, {}, ["fusermount"]),
        (0, {"umount"}, {}, ["umount"]),
        (0, {"fusermount3", "umount"}, {"fusermount3": (1, "refused")}, ["fusermount3", "umount"]),
        (0, {"fusermount3", "umount"}, {"fusermount3": Unavailable("cannot run it")}, ["fusermount3", "umount"]),
    ],
)
async def test_programs_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    programs: set[str],
    answers: dict[str, tuple[int | None, str] | Exception],
    ran: list[str],
) -> None:
    machine = Machine(monkeypatch)
    machine.uid, machine.programs, machine.answers = uid, programs, answers
    await unmount(PLACE, timeout_s=30.0)
    assert machine.names == ran
    assert all(command[-2:] == ["--", PLACE] for command in machine.ran)
    lazy = {"fusermount3": "-z", "fusermount": "-z", "umount": "-l"}
    assert all(lazy[name] in command for name, command in zip(machine.names, machine.ran, strict=True))
    assert all({"-c", "-i"} <= set(command) for command in machine.ran if "/bin/umount" in command)


@pytest.mark.parametrize(
    ("uid", "programs", "answer", "ran", "says"),
    [
        (0, set[str](), (0, ""), [], "fusermount3"),
        (1000, {"umount"}, (0, ""), [], "fusermount3"),
        (1000, {"fusermount3", "umount"}, (1, "not permitted"), ["fusermount3"], "not permitted"),
        (0, {"fusermount3"}, (5, ""), ["fusermount3"], "5"),
        (0, {"fusermount3", "umount"}, (None, ""), ["fusermount3"], "fusermount3"),
        (1000, {"fusermount3"}, Exhausted("no process", code="no-processes"), ["fusermount3"], "no process"),
    ],
)
async def test_what_is_said_when_it_stays(
    monkeypatch: pytest.MonkeyPatch,
    uid: int,
    programs: set[str],
    answer: tuple[int | None, str] | Exception,
    ran: list[str],
    says: str,
) -> None:
    machine = Machine(monkeypatch)
    machine.uid, machine.programs, machine.answers = uid, programs, {"fusermount3": answer}
    if isinstance(answer, Exhausted):
        with pytest.raises(Unavailable) as refused:
            await unmount(PLACE, timeout_s=30.0)
        assert says in refused.value.text
    else:
        assert says in (await refusal()).text
    assert (machine.names, machine.detached) == (ran, [])


async def test_root_detaches_it_where_no_child_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, entry(2))
    machine.answers = {"fusermount3": Exhausted("no process", code="no-processes")}
    await unmount(PLACE, timeout_s=30.0)
    assert machine.detached == [PLACE]


async def test_the_first_program_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.answers = {"fusermount3": (1, "first"), "umount": (32, "second")}
    assert "first" in (await refusal()).text


# -- all of one source ------------------------------------------------------------------------------------------------


async def test_each_mount_of_ours_from_the_topmost_down(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, Entry(1, 0, "8:1", "/", "/", "ext4", "/dev/sda1"), entry(2), entry(3, 2))
    assert await clear(PLACE, SOURCE, timeout_s=30.0) == Cleared(2)
    assert (machine.aborted, machine.killed) == ([3, 2], [])
    assert len(machine.mounts) == 1
    assert await clear(PLACE, SOURCE, timeout_s=30.0) == Cleared(0)


async def test_who_holds_what_cannot_be_aborted_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, entry(2))
    machine.can_abort = False
    assert await clear(PLACE, SOURCE, timeout_s=30.0) == Cleared(1, (4002,))
    assert machine.killed == [2]


async def test_what_others_have_mounted_on_top_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, entry(2), entry(3, 2, source="tmpfs", fs_type="tmpfs"))
    with pytest.raises(Unavailable) as refused:
        await clear(PLACE, SOURCE, timeout_s=30.0)
    assert "tmpfs" in refused.value.text
    assert (machine.aborted, machine.ran) == ([], [])


@pytest.mark.parametrize("source", ["s3fs", "mountdx:abc:m", ""])
async def test_what_no_mountd_has_mounted_is_never_cleared(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    machine = Machine(monkeypatch, entry(2, source=source))
    with pytest.raises(Bug):
        await clear(PLACE, source, timeout_s=30.0)
    assert machine.ran == []


async def test_it_is_tried_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, entry(2))
    machine.answers = {"fusermount3": (1, "busy"), "umount": (32, "busy")}
    with monkeypatch.context() as timed:
        step(timed, module, 0.05)
        with pytest.raises(Unavailable):
            await clear(PLACE, SOURCE, timeout_s=1.0)
    assert len(machine.ran) >= 4
    clearing = asyncio.create_task(clear(PLACE, SOURCE, timeout_s=60.0))
    await asyncio.sleep(0)
    machine.mounts.clear()
    assert await clearing == Cleared(0), "another program has unmounted it"


async def test_one_that_vanishes_with_the_last_try_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, entry(2))

    async def run(command: Sequence[str], timeout_s: float) -> tuple[int, str]:
        assert timeout_s > 1.0, "the last try gets time, too"
        machine.mounts.clear()
        return 1, "not found"

    monkeypatch.setattr(module, "_run", run)
    assert await clear(PLACE, SOURCE, timeout_s=0.0) == Cleared(0)


# -- what the kernel shows --------------------------------------------------------------------------------------------


async def test_requests_that_are_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FUSE_CONNECTIONS", str(tmp_path))
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "waiting").write_text("3\n")
    assert await unanswered(7, 60.0) == 3
    assert await unanswered(8, 60.0) is None
    assert await unanswered(None, 5.0) is None
    (tmp_path / "7" / "waiting").write_text("many\n")
    assert await unanswered(7, 60.0) is None


async def test_a_connection_is_aborted_where_that_is_possible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FUSE_CONNECTIONS", str(tmp_path))
    monkeypatch.setattr(module, "ABORT_LIMIT_S", 60.0)
    assert not await module.abort(7)
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "abort").touch()
    assert await module.abort(7)
    assert await asyncio.to_thread((tmp_path / "7" / "abort").read_text) == "1\n"


def test_who_holds_no_connection_is_not_named() -> None:
    assert os.getpid() not in holders(2**20)
