"""What is kept of an incident: without secrets, and never the new one thrown away for an old one."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.mount import evidence
from mountd.mount.engine import Engine
from mountd.mount.evidence import KEPT, _threads, keep, masked, surplus
from mountd.process.child import spawn
from mountd.process.instance import Instance
from mountd.rclone import binary
from mountd.rclone.conf_file import ConfFile
from mountd.rclone.log import mask
from mountd.settings.schema import Settings
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.wait import until_async

SOON_S = 60.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The product waits no longer than a repair can: on a busy machine a file may not be written by then."""
    for limit in ("COLLECT_S", "WRITE_S", "ASK_S", "DUMP_S"):
        monkeypatch.setattr(evidence, limit, SOON_S)
    monkeypatch.setattr(binary, "DEADLINE_S", SOON_S)


@pytest.mark.parametrize(
    ("logs", "found"),
    [
        ("", "/state/incidents"),
        ("/var/log/mountd", "/var/log/mountd/incidents"),
        ("/a:/b", "/a/incidents"),
        ("a", "/state/incidents"),
    ],
)
def test_systemds_directory_for_logs_is_that_of_incidents(logs: str, found: str) -> None:
    assert evidence.directory(Path("/state"), {"LOGS_DIRECTORY": logs}) == Path(found)


def named(minute: int, hour: int = 12) -> str:
    return f"20260101T{hour:02}{minute:02}00.000000Z-storage-hung"


def test_the_newest_are_kept() -> None:
    names = [named(minute) for minute in range(KEPT + 3)]
    assert surplus(names, names[-1]) == names[:3]
    assert surplus(names[:KEPT], names[KEPT - 1]) == []
    assert surplus([*names[:KEPT], "note", ".x"], names[KEPT - 1]) == [], "what is not ours stays"


def test_a_clock_that_was_put_back_deletes_no_new_incident() -> None:
    kept = [named(minute, hour=13) for minute in range(KEPT)]
    for minute in range(KEPT):
        new = named(minute)
        kept.append(new)
        gone = surplus(kept, new)
        assert gone == [named(minute, hour=13)], "what was kept before it goes, the oldest first"
        kept.remove(gone[0])
    assert kept == [named(minute) for minute in range(KEPT)]


@given(st.sets(st.integers(0, 59)), st.integers(0, 59))
def test_the_one_just_made_always_stays(minutes: set[int], new: int) -> None:
    names = {named(minute) for minute in minutes} | {named(new)}
    gone = surplus(names, named(new))
    assert named(new) not in gone
    assert len(names) - len(gone) == min(len(names), KEPT)


def test_what_rclone_reports_is_masked_in_whatever_depth() -> None:
    secret = 'sup"er\\secret-0001'
    stats = {
        "core/stats": {"lastError": f"403: {secret}", "bytes": 3, "checking": [secret, None]},
        "vfs/stats": f"401: login {json.dumps(secret)} refused",
    }
    reported = json.dumps(masked(stats, lambda text: mask(text, [secret])))
    assert "er" not in reported.replace("lastError", "")
    assert json.loads(reported)["core/stats"]["bytes"] == 3
    assert json.loads(reported)["core/stats"]["checking"][1] is None


async def test_no_file_of_an_incident_holds_a_secret(tmp_path: Path) -> None:
    """The remote control of the one that is asked here answers with an error, which takes the secret's part."""
    settings = Settings.model_validate(
        {
            "remotes": {"r": {"type": "local"}},
            "mounts": {"m": {"remote": "r:/", "path": str(tmp_path / "m"), "cache": {"dir": str(tmp_path / "c")}}},
            "control": {"socket": str(tmp_path / "s")},
            "state": str(tmp_path / "state"),
            "runtime": str(tmp_path / "run"),
        }
    )
    found = binary.find(BUNDLED_RCLONE)
    conf = ConfFile(tmp_path / "rclone.conf", found)
    engine = Engine("m", settings, Instance.of(settings.state, settings.runtime), found, conf)
    engine.child = spawn(["sleep", "60"], {"PATH": os.environ["PATH"]}, lambda _: None)
    try:
        kept = await keep(tmp_path, engine, "hung", "a cause", dump=False)
        assert kept is not None
        stats = json.loads((kept / "stats.json").read_text())
        assert json.loads((kept / "incident.json").read_text())["time"].endswith("Z")
        secret = stats["vfs/stats"].rpartition(": ")[2]
        assert len(secret) > 5
        conf.secrets = (secret,)
        kept = await keep(tmp_path, engine, "hung", "a cause", dump=False)
        assert kept is not None
        hidden = masked(stats, lambda text: mask(text, [secret]))
        assert json.loads((kept / "stats.json").read_text()) == hidden != stats
        assert not [path for path in kept.iterdir() if secret in path.read_text()]
    finally:
        engine.child.signal(signal.SIGKILL)
        await engine.child.wait()
        engine.child.release()


def engine_of(tmp_path: Path) -> Engine:
    settings = Settings.model_validate(
        {
            "remotes": {"r": {"type": "local"}},
            "mounts": {"m": {"remote": "r:/", "path": str(tmp_path / "m"), "cache": {"dir": str(tmp_path / "c")}}},
            "control": {"socket": str(tmp_path / "s")},
            "state": str(tmp_path / "state"),
            "runtime": str(tmp_path / "run"),
        }
    )
    found = binary.Binary(tmp_path / "rclone", (1, 75, 2), frozenset())
    conf = ConfFile(tmp_path / "rclone.conf", found)
    return Engine("m", settings, Instance.of(settings.state, settings.runtime), found, conf)


@pytest.mark.parametrize(
    ("stopped", "dump", "files"),
    [
        (False, False, {"stats.json"}),
        (False, True, {"stats.json", "goroutines.txt"}),
        (True, True, set[str]()),
    ],
)
async def test_what_is_kept_of_one_that_runs(tmp_path: Path, stopped: bool, dump: bool, files: set[str]) -> None:
    """A stopped process is asked nothing, and not continued for it."""
    engine = engine_of(tmp_path)
    script = "trap 'echo SIGQUIT: quit; echo goroutine 1 [running]:; exit 2' QUIT; echo ready; while :; do read x; done"
    engine.ring.append("its last words")
    child = engine.child = spawn(["sh", "-c", script], {"PATH": os.environ["PATH"]}, engine._on_line)
    try:
        await until_async(lambda: "ready" in str(engine.ring.last(9)), SOON_S, "the program")
        if stopped:
            child.signal(signal.SIGSTOP)
            await until_async(lambda: "T" in _threads(child.pid)[0], SOON_S, "it to stop")
        kept = await keep(tmp_path / "incidents", engine, "hung", "a cause", dump=dump)
        assert kept is not None
        assert {path.name for path in kept.iterdir()} == {"incident.json", "log.txt", "threads.txt"} | files
        incident = json.loads((kept / "incident.json").read_text())
        assert (incident["verdict"], incident["cause"], incident["mount"]) == ("hung", "a cause", "m")
        assert (incident["pid"], incident["stopped"]) == (child.pid, stopped)
        assert "its last words" in (kept / "log.txt").read_text()
        assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {0o600}
        assert (child.exit is not None) is (dump and not stopped), "it ends by the dump"
    finally:
        child.signal(signal.SIGKILL)
        await child.wait()
        child.release()


async def test_what_is_kept_of_one_that_crashed(tmp_path: Path) -> None:
    engine = engine_of(tmp_path)
    for line in ("panic: a bug", "goroutine 1 [running]:"):
        engine._on_line(line)
    kept = await keep(tmp_path / "incidents", engine, "exited", "a cause", dump=False)
    assert kept is not None
    assert "goroutine 1" in (kept / "goroutines.txt").read_text()
    assert json.loads((kept / "incident.json").read_text())["pid"] is None
    assert not (kept / "stats.json").exists()


@pytest.mark.parametrize("is_late", [False, True])
async def test_what_is_not_there_in_time_goes_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_late: bool
) -> None:
    """The repair waits for it."""

    async def unanswered(minor: int | None, limit_s: float) -> int:
        assert minor == 9
        return 3

    async def stats(_: Engine) -> dict[str, object]:
        if is_late:
            await asyncio.Event().wait()
        return {"core/stats": {}}

    monkeypatch.setattr(evidence, "unanswered", unanswered)
    monkeypatch.setattr(evidence, "_stats", stats)
    if is_late:
        monkeypatch.setattr(evidence, "COLLECT_S", 0.05)
    engine = engine_of(tmp_path)
    child = engine.child = spawn(["sleep", "60"], {"PATH": os.environ["PATH"]}, lambda _: None)
    try:
        kept = await keep(tmp_path / "incidents", engine, "hung", "a cause", minor=9, dump=False)
        assert kept is not None
        assert json.loads((kept / "incident.json").read_text())["fuse_waiting"] == 3
        assert str(child.pid) in (kept / "threads.txt").read_text()
        assert (kept / "stats.json").exists() is not is_late
    finally:
        child.signal(signal.SIGKILL)
        await child.wait()
        child.release()


async def test_one_that_has_exited_is_asked_nothing(tmp_path: Path) -> None:
    engine = engine_of(tmp_path)
    child = engine.child = spawn(["true"], {"PATH": os.environ["PATH"]}, lambda _: None)
    await child.wait()
    kept = await keep(tmp_path / "incidents", engine, "exited", "a cause", dump=False)
    child.release()
    assert kept is not None
    assert json.loads((kept / "incident.json").read_text())["pid"] is None
    assert not (kept / "stats.json").exists()


async def test_incidents_are_bounded_in_number_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "KEPT", 2)
    monkeypatch.setattr(evidence, "MAX_BYTES", 300)
    engine, incidents = engine_of(tmp_path), tmp_path / "incidents"
    for line in ("x" * 1000, "the newest"):
        engine.ring.append(line)
    kept = [await keep(incidents, engine, "dead", f"cause {number}", dump=False) for number in range(3)]
    assert sorted(incidents.iterdir()) == kept[1:]
    assert kept[2] is not None
    assert (kept[2] / "log.txt").stat().st_size == 300
    assert (kept[2] / "log.txt").read_text().endswith("the newest")
    assert [path.stat().st_mode & 0o777 for path in (incidents, kept[2])] == [0o700, 0o700]
    assert kept[2].name.endswith("Z-m-dead")


async def test_an_incident_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "incidents").touch()
    assert await keep(tmp_path / "incidents", engine_of(tmp_path), "dead", "a cause", dump=False) is None


def test_what_the_kernel_does_not_show_is_left_out() -> None:
    assert evidence._read("/proc/self/mem") == "", "as the stacks of threads, for who is not root"
