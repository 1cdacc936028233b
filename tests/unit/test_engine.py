"""One rclone after the other: what it is started with, what becomes of its lines, what an exit means, what is left."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from mountd.errors import CannotStart, Exhausted, Unavailable
from mountd.mount import engine as engine_module
from mountd.mount.engine import Engine, cache_size
from mountd.process.child import Exit
from mountd.process.instance import Instance
from mountd.rclone import binary
from mountd.rclone.conf_file import ConfFile, RemoteSecrets, SecretChange, SecretRefresh
from mountd.rclone.rc import RcClient
from mountd.settings.schema import CacheSettings, Settings
from mountd.settings.units import Size
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.wait import until_async
from tests.unit.test_rclone_rc import fake

__all__ = ["fake"]

SOON_S = 60.0
FORBIDDEN = "Fatal error: failed to mount FUSE fs: operation not permitted"


class Started:
    """An engine whose rclone is a script; `conf` is the real one, and counts what it is asked to remember."""

    def __init__(self, tmp_path: Path, **mount: object) -> None:
        self.program, self.args = tmp_path / "rclone", tmp_path / "args"
        self.becomes(f'echo "$@" > {self.args}; env > {self.args}.env; exec sleep 60')
        given = {"remote": "r:/bkt", "path": str(tmp_path / "m"), "cache": {"dir": str(tmp_path / "c")}}
        settings = Settings.model_validate(
            {
                "remotes": {"r": {"type": "local"}},
                "mounts": {"m": {**given, **mount}},
                "control": {"socket": str(tmp_path / "s")},
                "state": str(tmp_path / "state"),
                "runtime": str(tmp_path / "run"),
            }
        )
        self.instance = Instance.of(settings.state, settings.runtime)
        self.instance.private.mkdir(parents=True, mode=0o700)
        settings.state.mkdir()
        found = replace(binary.find(BUNDLED_RCLONE), path=self.program)
        self.conf = RememberingConf(tmp_path / "run" / "private" / "rclone.conf", found)
        self.engine = Engine("m", settings, self.instance, found, self.conf)

    def becomes(self, script: str) -> None:
        self.program.write_text(f"#!/bin/sh\n{script}\n")
        self.program.chmod(0o755)

    async def argv(self) -> list[str]:
        env = Path(f"{self.args}.env")
        await until_async(lambda: env.exists() and env.read_text(), SOON_S, "the program to start")
        return self.args.read_text().split()


class RememberingConf(ConfFile):
    remembered = 0

    async def remember(self) -> None:
        self.remembered += 1
        await super().remember()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rclone, to say what it can do."""
    monkeypatch.setattr(binary, "DEADLINE_S", SOON_S)


@pytest_asyncio.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    it = Started(tmp_path)
    yield it
    await end(it.engine)


async def end(engine: Engine) -> None:
    if engine.child is not None:
        engine.child.signal(signal.SIGKILL)
        await engine.child.wait()
    await engine.close()


# -- a process --------------------------------------------------------------------------------------------------------


async def test_what_rclone_wrote_until_its_exit_is_remembered(started: Started) -> None:
    """A token that it renewed in its last seconds, after the last look of a probe."""
    await started.engine.spawn()
    before = started.conf.remembered
    await end(started.engine)
    assert started.conf.remembered == before + 1
    await started.engine.close()
    assert started.conf.remembered == before + 1, "there was no rclone"


async def test_after_its_exit_no_socket_is_left_and_nothing_can_be_asked(started: Started) -> None:
    child = await started.engine.spawn()
    assert [started.engine.child] == [child]
    assert started.engine.rc.__class__ is RcClient
    notify = started.instance.private / "notify-m.sock"
    assert notify.exists()
    await end(started.engine)
    assert started.engine.child is None
    assert not notify.exists()
    with pytest.raises(Unavailable):
        _ = started.engine.rc


async def test_what_rclone_is_started_with(started: Started) -> None:
    started.engine.detour = {"HTTPS_PROXY": "http://127.0.0.1:1"}
    socket = started.instance.private / "rc-m.sock"
    socket.touch()
    await started.engine.spawn()
    argv = await started.argv()
    environment = Path(f"{started.args}.env").read_text().splitlines()
    assert not socket.exists(), "that of a previous run"
    assert "HTTPS_PROXY=http://127.0.0.1:1" in environment
    marks = started.instance.marks("m")
    assert marks
    assert {f"{key}={value}" for key, value in marks.items()} <= set(environment)
    assert any(str(started.conf.path) in each for each in (*argv, *environment))
    assert f"mountd:{started.instance.id}:m" in " ".join(argv)
    assert str(started.engine.mount.path) in await asyncio.to_thread(started.instance.mount_points)


@pytest.mark.parametrize(("given", "flag"), [(True, "--allow-other"), (False, "--allow-other=false")])
async def test_whether_others_may_look_into_the_mount(tmp_path: Path, given: bool, flag: str) -> None:
    started = Started(tmp_path, allow_other=given)
    try:
        await started.engine.spawn()
        assert flag in await started.argv()
    finally:
        await end(started.engine)


@pytest.mark.parametrize(
    ("reopens", "write_back", "put_off"), [(True, "5s", True), (False, "5s", False), (True, "60s", False)]
)
async def test_uploads_of_a_previous_run_are_put_off(
    tmp_path: Path, reopens: bool, write_back: str, put_off: bool
) -> None:
    started = Started(tmp_path, profile="outputs", options={"vfs-write-back": write_back})
    started.engine.reopens = reopens
    try:
        await started.engine.spawn()
        argv = await started.argv()
        assert (argv[-1] == "--vfs-write-back=15s") is put_off
    finally:
        await end(started.engine)


@pytest.mark.parametrize(
    ("options", "without", "keeps"),
    [({}, False, True), ({}, True, False), ({"vfs-cache-mode": "writes"}, False, False)],
)
async def test_whether_it_keeps_what_is_read(
    tmp_path: Path, options: dict[str, str], without: bool, keeps: bool
) -> None:
    engine = Started(tmp_path, options=options).engine
    engine.without_cache = without
    assert engine.keeps_what_is_read is keeps


async def test_a_program_that_cannot_be_started(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, kind in ((OSError(5, "input/output error"), CannotStart), (OSError(12, "no memory"), Exhausted)):

        def fail(*_: object, error: OSError = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(engine_module, "spawn", fail)
        with pytest.raises(kind):
            await started.engine.spawn()


# -- what it says -----------------------------------------------------------------------------------------------------


def texts(engine: Engine) -> list[str]:
    return [line.text for line in engine.ring.last(100)]


async def test_an_error_is_trouble_unless_it_answers_a_request_of_mountd(started: Started) -> None:
    engine, heard = started.engine, list[str]()
    engine.follow(heard.append)
    for answer in ('ERROR : rc: "vfs/stats": error', "ERROR : error listing: away", "NOTICE: hello"):
        engine._on_line(answer)
        assert not engine.trouble.is_set()
    engine._on_line("ERROR : a.bin: failed to read")
    assert engine.trouble.is_set()
    assert heard[-1] == "a.bin: failed to read"
    assert texts(engine) == heard
    await engine.close()


async def test_lines_that_repeat_are_counted_and_each_is_heard(started: Started) -> None:
    await started.engine.spawn()
    engine, heard = started.engine, list[str]()
    engine.follow(heard.append)
    for _ in range(5):
        engine._on_line("ERROR : a.bin: failed to read")
    assert len(heard) == 5
    assert len(texts(engine)) == 1
    assert engine._flush_timer is not None
    await end(engine)
    assert len(texts(engine)) == 2, "how many they were, at its exit"
    assert engine._flush_timer is None


async def test_lines_that_go_on_are_counted_at_the_end_of_each_window(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mountd.rclone.dedupe.WINDOW_S", 0.02)
    engine = started.engine

    async def until_counted(times: int) -> None:
        for _ in range(3):
            engine._on_line("ERROR : a.bin: failed to read")
        await until_async(
            lambda: len([each for each in texts(engine) if each.startswith("… ")]) >= times, SOON_S, "a count"
        )

    await until_counted(1)
    await until_counted(2)
    await engine.close()


async def test_its_errors_are_warnings_of_mountd_and_the_rest_is_for_who_looks_closer(started: Started) -> None:
    with capture_logs() as logs:
        for line in ("ERROR : a.bin: failed", 'ERROR : rc: "vfs/stats": error', "NOTICE: hello", "DEBUG : x"):
            started.engine._on_line(line)
    assert [each["log_level"] for each in logs] == ["warning", "debug", "debug", "debug"]
    assert (logs[0]["text"], logs[0]["mount"]) == ("a.bin: failed", "m")
    await started.engine.close()


async def test_a_dump_is_kept_without_secrets_and_not_logged(started: Started) -> None:
    engine, heard = started.engine, list[str]()
    engine.follow(heard.append)
    started.conf.secrets = ("top-secret",)
    engine.capture_dump()
    for line in ("SIGQUIT: quit", "goroutine 1 [running]:", "main.top-secret()"):
        engine._on_line(line)
    assert heard == []
    assert "goroutine 1" in engine.dump()
    assert "top-secret" not in engine.dump()
    crashed = engine.explain_exit(Exit(2))
    assert (crashed.code, crashed.permanent) == ("rclone-crashed", False), "not a usage error"


async def test_a_dump_is_of_one_process(started: Started) -> None:
    engine = started.engine
    for line in ("panic: nil map", "goroutine 1 [running]:"):
        engine._on_line(line)
    assert engine.explain_exit(Exit(2)).code == "rclone-crashed"
    await end(engine)
    await engine.spawn()
    engine._on_line("a line without a time")
    assert engine.dump() == ""
    assert "a line without a time" in texts(engine)[-1]


async def test_what_an_exit_means(started: Started) -> None:
    engine = started.engine
    assert engine.explain_exit(Exit(2)).permanent
    engine._on_line("NOTICE: mount helper error: fusermount3: mount failed: Operation not permitted")
    assert engine.explain_exit(Exit(1)).code == "rclone-exited"
    engine._on_line(f"2026/11/29 12:00:00 {FORBIDDEN}")
    assert engine.explain_exit(Exit(1)).code == "mount-refused"


# -- secrets ----------------------------------------------------------------------------------------------------------


class Secrets:
    """What `ConfFile.refresh` says, each once."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, started: Started, *answers: SecretRefresh | CannotStart
    ) -> None:
        self.answers = list(answers)
        self.since: list[RemoteSecrets] = []
        monkeypatch.setattr(started.conf, "refresh", self._refresh)

    async def _refresh(self, settings: Settings, remote: str, since: RemoteSecrets) -> SecretRefresh:
        self.since.append(since)
        answer = self.answers.pop(0)
        if isinstance(answer, CannotStart):
            raise answer
        return answer


LIVE = SecretRefresh(SecretChange.LIVE, RemoteSecrets(live={"r": {"access_key_id": "b"}}))
REMOUNT = SecretRefresh(SecretChange.REMOUNT, RemoteSecrets(fixed={"r": {"pass": "b"}}))


async def test_without_an_rclone_no_secret_is_looked_at(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = Secrets(monkeypatch, started)
    assert await started.engine.refresh_secrets() is SecretChange.NOTHING
    assert secrets.since == []


async def test_what_rclone_has_is_what_the_next_look_compares_with(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started.engine.spawn()
    unreadable = CannotStart("cannot read it")
    secrets = Secrets(monkeypatch, started, LIVE, unreadable, REMOUNT)
    refresh = started.engine.refresh_secrets
    assert [await refresh() for _ in range(3)] == [SecretChange.LIVE, SecretChange.NOTHING, SecretChange.REMOUNT]
    assert secrets.since[1:] == [LIVE.has, LIVE.has]


async def test_secrets_that_cannot_be_read_are_logged_once_for_each_cause(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started.engine.spawn()
    one, other = CannotStart("cannot read a", hint="h"), CannotStart("cannot read b")
    secrets = Secrets(monkeypatch, started, one, one, other, LIVE, other)
    with capture_logs() as logs:
        while secrets.answers:
            await started.engine.refresh_secrets()
    assert [(each["log_level"], each.get("cause")) for each in logs] == [
        ("warning", "cannot read a"),
        ("warning", "cannot read b"),
        ("info", None),
        ("warning", "cannot read b"),
    ]


async def test_secrets_that_were_read_for_a_former_rclone_are_not_those_of_the_next(
    started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    await started.engine.spawn()

    async def refresh(*_: object) -> SecretRefresh:
        await end(started.engine)
        return REMOUNT

    monkeypatch.setattr(started.conf, "refresh", refresh)
    assert await started.engine.refresh_secrets() is SecretChange.NOTHING


@pytest.mark.parametrize(("found", "stale"), [(REMOUNT, True), (LIVE, False), (replace(LIVE, resigned=True), True)])
async def test_stale_secrets_need_a_new_rclone(
    started: Started, monkeypatch: pytest.MonkeyPatch, found: SecretRefresh, stale: bool
) -> None:
    monkeypatch.setattr(engine_module, "RESIGNED_S", 0.0)
    await started.engine.spawn()
    Secrets(monkeypatch, started, found, LIVE)
    assert await started.engine.has_stale_secrets() is stale
    assert not await started.engine.has_stale_secrets(), "the key has another id since"


# -- the cache's limits -----------------------------------------------------------------------------------------------


def test_a_disk_that_cannot_be_asked_has_no_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(os, "statvfs", fail)
    with pytest.raises(CannotStart) as refused:
        cache_size(CacheSettings(dir=tmp_path))
    assert str(tmp_path) in refused.value.text
    assert refused.value.hint


def test_limits_of_a_cache_that_is_not_made_yet(tmp_path: Path) -> None:
    usage = os.statvfs(tmp_path)
    total = usage.f_blocks * usage.f_frsize
    found = cache_size(CacheSettings(dir=tmp_path / "a" / "b", max_size=Size(percent=50), min_free=Size(percent=10)))
    assert (found.max_bytes, found.min_free_bytes) == (int(total * 0.5), int(total * 0.1))
    assert cache_size(CacheSettings(dir=tmp_path)).max_bytes is None


async def test_a_disk_that_does_not_answer_starts_no_rclone(started: Started, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "WALK_LIMIT_S", 0.0)
    with pytest.raises(CannotStart) as refused:
        await started.engine.spawn()
    assert refused.value.code == "cache-silent"
    started.engine.without_cache = True
    await started.engine.spawn()
    assert asyncio.get_running_loop().is_running()
