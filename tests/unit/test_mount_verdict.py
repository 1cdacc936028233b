"""What a mount does with a decision of its monitor, while it starts and while it runs: one way for both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mountd.errors import CannotStart
from mountd.fuse import table
from mountd.mount import evidence
from mountd.mount.engine import Engine
from mountd.mount.evidence import INCIDENTS
from mountd.mount.health import MountVerdict, Replace, RestartRclone
from mountd.mount.monitor import MountMonitor
from mountd.mount.mount import RcloneMount
from mountd.mount.startup import StartUp
from mountd.process.child import Child, Exit
from mountd.process.instance import Instance
from mountd.process.lifecycle import Life
from mountd.process.supervisor import MustReplace, ShouldRestart
from mountd.rclone.binary import Binary
from mountd.rclone.conf_file import ConfFile
from mountd.settings.schema import Settings
from mountd.status.board import Board
from mountd.status.snapshot import Health, State

HUNG = Replace(MountVerdict.HUNG, "mount m is hung")


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def mount(tmp_path: Path, board: Board, monkeypatch: pytest.MonkeyPatch) -> RcloneMount:
    """One that nothing was ever started for. The disk of its evidence may be busy."""
    for limit in ("COLLECT_S", "WRITE_S"):
        monkeypatch.setattr(evidence, limit, 60.0)
    settings = Settings.model_validate(
        {
            "remotes": {"r": {"type": "s3", "endpoint": "http://127.0.0.1:1"}},
            "mounts": {"m": {"remote": "r:bkt", "path": str(tmp_path / "m"), "cache": {"dir": str(tmp_path / "c")}}},
            "control": {"socket": str(tmp_path / "s")},
            "state": str(tmp_path / "state"),
            "runtime": str(tmp_path / "run"),
        }
    )
    settings.state.mkdir()
    binary = Binary(Path("/opt/rclone"), (1, 75, 2), frozenset())
    return RcloneMount(
        "m",
        settings,
        instance=Instance.of(settings.state, settings.runtime),
        board=board,
        binary=binary,
        conf=ConfFile(tmp_path / "rclone.conf", binary),
        candidates=tuple,
        cache_claims=tuple,
    )


def verdicts(tmp_path: Path) -> list[str]:
    """Of the incidents that evidence is kept of."""
    kept = sorted((tmp_path / "state" / INCIDENTS).glob("*/incident.json"))
    return [json.loads(each.read_text())["verdict"] for each in kept]


def decides(monkeypatch: pytest.MonkeyPatch, found: Replace | RestartRclone) -> None:
    async def run(_: MountMonitor) -> Replace | RestartRclone:
        return found

    monkeypatch.setattr(MountMonitor, "run", run)


def hangs_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_: StartUp, spawned: Callable[[Child], None]) -> Replace | None:
        return HUNG

    monkeypatch.setattr(StartUp, "run", run)


async def test_one_that_runs_is_replaced_with_evidence(
    mount: RcloneMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decides(monkeypatch, HUNG)
    with pytest.raises(MustReplace) as condemned:
        await mount.watch()
    assert str(condemned.value) == HUNG.text
    assert verdicts(tmp_path) == ["hung"]
    ending = mount.explain_exit(Exit(2))  # SIGQUIT, for its goroutines, ends it so
    assert (ending.cause, ending.permanent, ending.outside) == (HUNG.text, False, True)


@pytest.mark.parametrize(
    ("verdict", "dump"), [(MountVerdict.HUNG, True), (MountVerdict.MISCONFIGURED, True), (MountVerdict.DEAD, False)]
)
async def test_what_evidence_is_asked_for(
    mount: RcloneMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: MountVerdict, dump: bool
) -> None:
    """Goroutines, which end rclone, of one that does not serve any more tell nothing."""
    kept: list[object] = []

    async def keep(incidents: Path, engine: Engine, why: str, cause: str, *, minor: int | None, dump: bool) -> None:
        kept.append((incidents, engine.name, why, cause, minor, dump))

    entry = table.Entry(1, 0, "0:7", "/", mount._path, "fuse.rclone", mount._source)
    monkeypatch.setattr(evidence, "keep", keep)
    monkeypatch.setattr("mountd.mount.liveness.known_table", lambda **_: [entry])
    decides(monkeypatch, Replace(verdict, "a cause"))
    with pytest.raises(MustReplace):
        await mount.watch()
    assert kept == [(tmp_path / "state" / INCIDENTS, "m", verdict, "a cause", 7, dump)]


async def test_where_the_table_of_mounts_cannot_be_read_the_device_is_not_known(
    mount: RcloneMount, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: str) -> None:
        raise OSError(24, "too many open files")

    monkeypatch.setattr("mountd.mount.liveness.known_table", fail)
    assert mount._minor() is None


async def test_one_that_starts_is_replaced_in_the_same_way(
    mount: RcloneMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs_at_start(monkeypatch)
    with pytest.raises(CannotStart) as refused:
        await mount.start(lambda child: None)
    assert refused.value.code == "mount-hung"
    assert verdicts(tmp_path) == ["hung"]
    assert mount.explain_exit(Exit(2)).cause == HUNG.text


async def test_the_board_shows_why(mount: RcloneMount, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    decides(monkeypatch, Replace(MountVerdict.MISCONFIGURED, "its disk cache is off"))
    with pytest.raises(MustReplace):
        await mount.watch()
    mount.changed(Life(State.STOPPING, wanted=True, cause="its disk cache is off"), "", None)
    status = board.snapshot.mounts["m"]
    assert status.health is Health.DEGRADED
    assert status.reason is not None
    assert status.reason.code == "mount-misconfigured"


async def test_the_next_start_forgets_it(mount: RcloneMount, monkeypatch: pytest.MonkeyPatch) -> None:
    decides(monkeypatch, HUNG)
    with pytest.raises(MustReplace):
        await mount.watch()

    async def run(_: StartUp, spawned: Callable[[Child], None]) -> Replace | None:
        return None

    monkeypatch.setattr(StartUp, "run", run)
    await mount.start(lambda child: None)
    assert mount.explain_exit(Exit(-9)).cause != HUNG.text


async def test_a_restart_leaves_no_incident(
    mount: RcloneMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decides(monkeypatch, RestartRclone("new keys"))
    with pytest.raises(ShouldRestart) as restart:
        await mount.watch()
    assert str(restart.value) == "new keys"
    assert verdicts(tmp_path) == []


async def test_evidence_is_kept_although_rclone_exits_meanwhile(
    mount: RcloneMount, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the supervisor cancels the watch, and cleans."""
    decides(monkeypatch, HUNG)
    watching = asyncio.create_task(mount.watch())
    while mount._incident is None:
        await asyncio.sleep(0)
    watching.cancel()
    await asyncio.wait({watching})
    assert watching.cancelled()
    await mount.clean()
    assert verdicts(tmp_path) == ["hung"]
