"""What fails while a reload is carried out: it is logged and shown, and nothing stays down for it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mountd.daemon import apply, reload, watch_files
from mountd.errors import Busy, ConfigError, JournalError
from mountd.journal import database
from mountd.process.notify import Notifier
from mountd.settings.change import compare
from mountd.settings.load import Loaded, load
from mountd.settings.schema import Settings
from mountd.status import readiness
from mountd.status.events import between
from mountd.status.snapshot import Health, Snapshot
from tests.support.reloader import Bench, bench
from tests.support.shelf import until
from tests.support.stepping import step


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.05)
    monkeypatch.setattr(apply, "JOURNAL_S", 0.05)
    monkeypatch.setattr(apply, "JOURNAL_AGAIN_S", 0.01)


async def test_an_edited_version_is_asked_for_with_a_journal_that_cannot_be_written() -> None:
    """The journal is locked between the check of the file and the change."""
    async with bench() as (room, _):
        hub = room.members.models["hub"]
        await room.journal.commit("hub", replace(hub.committed, current="v22"))
        await hub.load()
        room.config["models"]["hub"]["version"] = "v23"
        room.write()
        new = load(room.file).settings
        change = compare(room.members.settings, new, {}, {}, root=True)
        with contextlib.closing(sqlite3.connect(room.journal.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await room.reloader._applier.apply(change, new)
            other.execute("ROLLBACK")
        assert room.board.snapshot.models["hub"].desired == "v23"
        assert len(room.desired.tasks()) == 1
        assert not room.desired.tasks()[0].done()


async def test_a_pending_switch_outlives_a_move_of_its_model() -> None:
    async with bench() as (room, _):
        hub = room.members.models["hub"]
        await room.journal.commit("hub", replace(hub.committed, current="v22"))
        await hub.load()
        for key, value in (("version", "v23"), ("directory", "other_{version}")):
            room.config["models"]["hub"][key] = value
            room.write()
            await room.reloader.ask("tina")
            assert [task.done() for task in room.desired.tasks()] == [False], key
        assert room.board.snapshot.models["hub"].desired == "v23"


async def test_a_change_that_is_carried_out_in_part_is_logged_and_shown_and_no_app_stays_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    step(monkeypatch, apply, 0.6 * apply.JOURNAL_S)  # the journal is tried twice
    async with bench() as (room, group):
        before, webui = room.board.snapshot, room.members.apps["webui"]
        room.members.begin("webui")
        await until(lambda: webui.supervisor.life.wanted, "the app to be wanted")
        room.config["mounts"]["storage"]["path"] = str(room.root / "elsewhere")
        room.config["models"]["second"] = room.model("second")
        room.write()
        room.journal.reads_left = 1  # for the check of the file
        following = group.create_task(room.reloader.follow_files())
        with capture_logs() as logs:
            await room.board.wait_until(lambda now: bool(now.config.incomplete), 60)
        [reported] = [each for each in logs if each["event"] == "configuration is only partly in effect"]
        assert reported["cause"] == "cannot use the journal: it is locked"
        assert any(each["event"] == "waiting for the journal" for each in logs)
        now = room.board.snapshot
        assert [each.code for each in readiness.reasons(now) if each.layer == "config"] == ["config-incomplete"]
        assert readiness.health(Snapshot(config=now.config)) is Health.DEGRADED
        assert "config-incomplete" in [each.code for each in between(before, now)]
        await until(lambda: webui.supervisor.life.wanted, "the app to be wanted again")
        # It stays so: a later reload does not carry out what is missing.
        room.journal.reads_left = None
        await room.reloader.ask("tina")
        assert room.board.snapshot.config.incomplete
        following.cancel()


async def test_a_secret_that_changed_once_is_no_change_of_later_reloads() -> None:
    async with bench() as (room, _):
        secret = room.root / "token"
        room.config["apps"]["webui"]["environment"] = {"TOKEN": {"file": str(secret)}}
        room.write()
        for text in ("the-first", "another-one"):
            secret.write_text(text)
            assert (await room.reloader.ask("tina"))["changed"] == ["apps.webui.environment.TOKEN"]
            assert (await room.reloader.ask("tina"))["changed"] == []


async def test_who_asks_for_a_reload_hears_that_it_was_carried_out_in_part() -> None:
    async with bench() as (room, _):
        room.config["models"]["second"] = room.model("second")
        room.write()
        room.journal.reads_left = 1
        with pytest.raises(JournalError):
            await room.reloader.ask("tina")
        assert room.board.snapshot.config.incomplete


async def test_a_new_model_waits_for_a_journal_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "JOURNAL_S", 60.0)
    async with bench() as (room, _):
        room.config["models"]["second"] = room.model("second")
        room.write()
        room.journal.reads_left = 1
        with capture_logs() as logs:
            asking = asyncio.create_task(room.reloader.ask("tina"))
            await until(lambda: any(each["event"] == "waiting for the journal" for each in logs), "it to wait")
            room.journal.reads_left = None
            assert (await asking)["changed"] == ["models.second"]
        assert room.members.models["second"].committed.desired == "v22"
        assert not room.board.snapshot.config.incomplete


async def test_no_reload_is_carried_out_while_mountd_stops() -> None:
    async with bench() as (room, _):
        room.config["models"]["second"] = room.model("second")
        room.write()
        room.board.set_stopping()
        with pytest.raises(Busy) as refused:
            await room.reloader.ask("tina")
        assert refused.value.holder == "a stop"
        assert list(room.members.models) == ["hub"]


async def test_systemd_hears_the_end_of_a_reload_that_the_machine_does_not_let_through() -> None:
    async with bench() as (room, group):
        address = str(room.root / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as systemd:
            systemd.bind(address)
            room.config["models"]["second"] = room.model("second")
            room.write()
            room.journal.reads_left, room.journal.failure = 0, OSError(errno.EMFILE, "too many open files")
            hangup, notifier = asyncio.Event(), Notifier({"NOTIFY_SOCKET": address})
            hangup.set()
            following = group.keep(lambda: room.reloader.follow_signal(hangup, notifier), "signal")
            async with asyncio.timeout(60):
                loop = asyncio.get_running_loop()
                heard = [await loop.sock_recv(systemd, 4096) for _ in range(2)]
            assert [each.partition(b"=")[0] for each in heard] == [b"RELOADING", b"READY"]
            following.cancel()


async def test_a_file_that_is_replaced_while_its_secrets_are_read_is_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a ConfigMap is: its files are replaced at once, and are not to be put into effect one after the other."""
    async with bench() as (room, _):
        digests = reload._digests
        room.config["models"]["hub"]["watch"] = {"for": "1s"}
        room.write()

        def replaced_meanwhile(settings: Settings) -> Any:
            room.config["models"]["hub"]["watch"] = {"for": "2s"}
            room.write()
            return digests(settings)

        monkeypatch.setattr(reload, "_digests", replaced_meanwhile)
        await room.reloader.ask("tina")
        assert room.members.settings.models["hub"].watch.period == 2.0


@contextlib.contextmanager
def systemd(room: Bench) -> Iterator[tuple[Notifier, socket.socket]]:
    address = str(room.root / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(address)
        yield Notifier({"NOTIFY_SOCKET": address}), listening


@pytest.mark.parametrize(
    ("stopping", "messages"),
    [(False, [b"RELOADING", b"READY"]), (True, [b"RELOADING"])],
    ids=["up", "stopping"],
)
async def test_what_systemd_hears_of_each_signal(stopping: bool, messages: list[bytes]) -> None:
    """While mountd stops, READY=1 would say what is not so."""
    async with bench() as (room, group):
        with systemd(room) as (notifier, listening):
            if stopping:
                room.board.set_stopping()
            hangup = asyncio.Event()
            following = group.keep(lambda: room.reloader.follow_signal(hangup, notifier), "signal")
            for number in ("3", "4"):
                room.config["models"]["hub"]["keep"] = number
                room.write()
                before = room.board.snapshot.config
                hangup.set()
                await until(lambda: room.board.snapshot.config != before, "the reload")  # noqa: B023
                for _ in range(20):
                    await asyncio.sleep(0)
                heard = []
                with contextlib.suppress(BlockingIOError):
                    while True:
                        heard.append(listening.recv(4096).partition(b"=")[0])
                assert heard == messages
                assert not hangup.is_set()
            assert room.members.models["hub"].settings.keep == 4
            following.cancel()


async def test_a_disk_that_does_not_answer_is_reported_and_asked_again_though_no_file_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = threading.Event()

    def slow(path: Path) -> Loaded:
        answers.wait(60)
        return load(path)

    async with bench() as (room, group):
        monkeypatch.setattr(reload, "load", slow)
        with monkeypatch.context() as impatient:
            impatient.setattr(reload, "READ_S", 0.05)
            with pytest.raises(ConfigError) as refused:
                await room.reloader.ask("tina")
        assert refused.value.hint == reload.SILENT_HINT
        assert room.board.snapshot.config.problems == tuple(refused.value.problems)
        answers.set()
        monkeypatch.setattr(watch_files, "POLL_S", 0.01)
        monkeypatch.setattr(watch_files, "QUIET_S", 0.01)
        following = group.create_task(room.reloader.follow_files())
        await room.board.wait_until(lambda now: not now.config.problems, 60)
        following.cancel()


async def test_a_file_that_lies_on_a_mount_of_ours_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    async with bench() as (room, _):
        monkeypatch.setattr(reload, "load", opened.append)
        room.file.unlink()
        room.file.symlink_to(room.root / "storage" / "mountd.yaml")
        with pytest.raises(ConfigError) as refused:
            await room.reloader.ask("tina")
        assert [each.path for each in refused.value.problems] == [""]
        assert f"{room.root}/storage" in refused.value.text
        assert opened == []


async def test_a_link_in_a_directory_that_another_user_can_move_is_refused() -> None:
    async with bench() as (room, _):
        shared = room.root / "shared"
        (shared / "app").mkdir(parents=True)
        shared.chmod(0o777)
        room.config["models"]["hub"]["link"] = str(shared / "app" / "hub")
        room.write()
        with pytest.raises(ConfigError) as refused:
            await room.reloader.ask("tina")
        assert [each.path for each in refused.value.problems] == ["models.hub.link"]
        shared.chmod(0o755)
        assert (await room.reloader.ask("tina"))["in_place"] == ["models.hub.link"]


async def test_the_same_mistake_is_a_warning_once() -> None:
    async with bench() as (room, _):
        with capture_logs() as logs:
            for keep in ("none", "none", "many"):
                room.config["models"]["hub"]["keep"] = keep
                room.write()
                with pytest.raises(ConfigError):
                    await room.reloader.ask("tina")
        invalid = [each["log_level"] for each in logs if each["event"].startswith("configuration invalid")]
        assert invalid == ["warning", "debug", "warning"]
