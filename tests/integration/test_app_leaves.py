"""What an app leaves running when it exits: that is ended, and its own exit is what is reported."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from mountd.app import exits
from mountd.app.app import App
from mountd.daemon.secret_files import SecretFiles
from mountd.process.instance import Instance
from mountd.settings.load import Places, parse
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot, State
from tests.support.apps import living

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
SOON_S = 30.0
LEAVES = "setsid sleep 600 & echo $!; while [ ! -e {go} ]; do sleep 0.05; done; exit {code}"


@pytest.mark.parametrize("code", [3, 0])
async def test_a_crash_is_a_crash_whatever_is_left(tmp_path: Path, code: int) -> None:
    """One that exits without an error has detached, which its hint is about."""
    go = tmp_path / "go"
    data = {
        "remotes": {"s": {"type": "local"}},
        "mounts": {"m": {"remote": "s:/x", "path": "/m"}},
        "apps": {"webui": {"command": ["sh", "-c", LEAVES.format(code=code, go=go)], "restart": {"after": []}}},
    }
    settings = parse(yaml.safe_dump(data), "x.yaml", PLACES).settings
    board, instance = Board(Snapshot()), Instance.create(tmp_path / "state", tmp_path / "run")
    app = App("webui", settings, instance=instance, board=board, read_secrets=SecretFiles(list).read)
    running = asyncio.create_task(app.run())
    try:
        app.want()
        await board.wait_until(lambda now: now.apps["webui"].state is State.RUNNING, SOON_S)
        await asyncio.to_thread(go.touch)
        await board.wait_until(lambda now: now.apps["webui"].state is State.FAILED, SOON_S)
        shown = board.snapshot.apps["webui"].reason
        assert shown is not None
        assert (exits.detached("webui", ["1 sleep"]).hint in shown.hint) is (code == 0)
        left = int(app.ring.last(1)[0].text)
        assert await asyncio.to_thread(living, [left]) == []
    finally:
        await app.stop()
        running.cancel()
        await asyncio.wait([running])
