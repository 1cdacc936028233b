"""The secrets of an app lie where nobody answers, or on a mount of mountd's own: the app waits, and nobody else."""

from __future__ import annotations

import asyncio
import signal
import threading
from pathlib import Path

import pytest

from mountd.app.app import App
from mountd.daemon import secret_files
from mountd.daemon.secret_files import SecretFiles
from mountd.errors import CannotStart
from mountd.process import tool
from mountd.process.instance import Instance
from mountd.process.lifecycle import RestartAsked
from mountd.rclone import binary
from mountd.rclone.conf_file import ConfFile
from mountd.settings.load import Places, parse
from mountd.settings.secret import SecretRef
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot, State
from tests.support.daemon import BUNDLED_RCLONE
from tests.support.mounts import mounting, stop
from tests.support.wait import until

SOON_S = 30.0
PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
TEXT = """
remotes: {{s: {{type: s3, endpoint: "http://x"}}}}
mounts: {{m: {{remote: "s:b", path: /m}}}}
apps: {{webui: {{command: [sh, -c, 'echo "it has $TOKEN"; sleep 60'], environment: {{TOKEN: {{file: {path}}}}}}}}}
"""
REMOTES = """
remotes:
  far: {{type: s3, endpoint: "http://x", access_key_id: A, secret_access_key: {{file: {silent}}}}}
  near: {{type: s3, endpoint: "http://x", access_key_id: A, secret_access_key: {{file: {other}}}}}
mounts: {{m: {{remote: "near:b", path: {root}/m}}}}
"""


@pytest.mark.fuse
async def test_a_disk_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secret_files, "READ_S", 0.5)
    with mounting(tmp_path) as mounts:
        point = tmp_path / "far"
        rclone = mounts.start(str(point))
        until((point / "file").exists, SOON_S, "the file")
        stop(rclone)
        # Nobody can end a thread that waits for the disk, be it that of the loop.
        mercy = threading.Timer(2 * SOON_S, rclone.send_signal, [signal.SIGCONT])
        mercy.start()
        settings = parse(TEXT.format(path=point / "file"), "test.yaml", PLACES).settings
        instance, board = Instance.create(tmp_path / "state", tmp_path / "run"), Board(Snapshot())
        app = App("webui", settings, instance=instance, board=board, read_secrets=SecretFiles(list).read)
        running = asyncio.create_task(app.run())
        try:
            app.want()
            await board.wait_until(lambda now: now.apps["webui"].reason is not None, SOON_S)
            reason = board.snapshot.apps["webui"].reason
            assert reason is not None
            assert reason.code == "secret-missing"
            assert f"{point}/file" in reason.text
            rclone.send_signal(signal.SIGCONT)
            await board.wait_until(lambda now: now.apps["webui"].state is State.BACKOFF, SOON_S)
            app.supervisor.post(RestartAsked("repaired"))
            await board.wait_until(lambda now: bool(app.ring.last(1)), SOON_S)
            assert app.ring.last(1)[0].text == "it has data"
            await app.stop()
        finally:
            mercy.cancel()
            running.cancel()
            await asyncio.wait([running])
            await tool.end_orphans(instance.id)


async def test_one_that_lies_on_a_mount_of_ours_is_not_touched(tmp_path: Path) -> None:
    mount, link = tmp_path / "mount", tmp_path / "link"
    mount.mkdir()
    (mount / "token").write_text("secret")
    link.symlink_to(mount / "token")
    secrets = {"TOKEN": SecretRef(file=link)}
    assert await SecretFiles(list).read(secrets) == {"TOKEN": "secret"}
    with pytest.raises(CannotStart, match=rf"{link}\b.* {mount}$") as failed:
        await SecretFiles(lambda: [str(mount)]).read(secrets)
    assert failed.value.code == "secret-missing"


async def test_a_look_at_secrets_sees_a_change_and_nothing_where_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("x")
    files, secrets = SecretFiles(list), [SecretRef(file=tmp_path / "a"), SecretRef(env="HOME")]
    first = await files.look(secrets)
    assert first is not None
    assert await files.look(secrets) == first
    (tmp_path / "a").write_text("other")
    assert await files.look(secrets) != first
    answers = threading.Event()
    monkeypatch.setattr(secret_files, "READ_S", 0.01)
    monkeypatch.setattr(secret_files, "trail", lambda *_: answers.wait(SOON_S))
    assert await files.look(secrets) is None
    answers.set()


@pytest.mark.fuse
async def test_a_secret_of_a_remote_that_gives_no_answer_holds_up_neither_the_loop_nor_another_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secret_files, "READ_S", 0.5)
    other = tmp_path / "other"
    other.write_text("pw")
    with mounting(tmp_path) as mounts:
        point = tmp_path / "far"
        rclone = mounts.start(str(point))
        until((point / "file").exists, SOON_S, "the file")
        stop(rclone)
        mercy = threading.Timer(2 * SOON_S, rclone.send_signal, [signal.SIGCONT])
        mercy.start()
        text = REMOTES.format(silent=point / "file", other=other, root=tmp_path)
        settings = parse(text, "test.yaml", PLACES).settings
        file = ConfFile(tmp_path / "run" / "rclone.conf", binary.find(BUNDLED_RCLONE))
        file.read_secrets = SecretFiles(list).read
        try:
            with pytest.raises(CannotStart) as failed:
                await asyncio.wait_for(file.write(settings), SOON_S)
            assert failed.value.code == "secret-missing"
            with pytest.raises(CannotStart):  # again, while the first one still waits
                await asyncio.wait_for(file.write(settings), SOON_S)
            monkeypatch.setattr(secret_files, "READ_S", SOON_S)
            healthy = parse(REMOTES.format(silent=other, other=other, root=tmp_path), "test.yaml", PLACES).settings
            await asyncio.wait_for(file.write(healthy), SOON_S)
        finally:
            rclone.send_signal(signal.SIGCONT)
            mercy.cancel()
