"""Tokens on a disk that does not answer: a change is refused in time, and the daemon goes on."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from mountd.daemon import tcp_port
from mountd.errors import CannotStart
from mountd.settings.http import HttpSettings
from tests.support.mounts import mounting, stop
from tests.support.reloader import bench
from tests.support.wait import until

SOON_S = 30.0


@pytest.mark.fuse
async def test_a_disk_that_does_not_answer_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp_port, "READ_S", 0.5)
    with mounting(tmp_path) as mounts:
        point = tmp_path / "far"
        rclone = mounts.start(str(point))
        until((point / "file").exists, SOON_S, "the file")
        stop(rclone)
        # Nobody can end a thread that waits for the disk, be it that of the loop.
        mercy = threading.Timer(2 * SOON_S, rclone.send_signal, [signal.SIGCONT])
        mercy.start()
        try:
            async with bench() as (room, _):
                http = HttpSettings.model_validate({"listen": "127.0.0.1:0", "tokens": {"file": str(point / "file")}})
                with pytest.raises(CannotStart, match="no answer"):
                    await room.reloader.port.change(http, move=True)
                assert room.reloader.port._server._tcp is None
                rclone.send_signal(signal.SIGCONT)
        finally:
            mercy.cancel()
            rclone.send_signal(signal.SIGCONT)
