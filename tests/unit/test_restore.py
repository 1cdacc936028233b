"""A cached file with wrong bytes is put right in place, while somebody has it open."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mountd.cache import restore as module
from mountd.cache.restore import restore

RIGHT = bytes(range(256)) * 40


@pytest.mark.parametrize("at", [0, 5000, len(RIGHT) - 1])
def test_wrong_bytes_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    good, cached, meta = tmp_path / "good", tmp_path / "vfs/r/a.pth", str(tmp_path / "vfsMeta/r/a.pth")
    good.write_bytes(RIGHT)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(RIGHT[:at] + bytes([RIGHT[at] ^ 1]) + RIGHT[at + 1 :])
    fd = os.open(cached, os.O_RDONLY)
    try:
        assert restore(tmp_path, meta, good) == min(1000, len(RIGHT) - at // 1000 * 1000)
        assert os.pread(fd, len(RIGHT), 0) == RIGHT
        assert restore(tmp_path, meta, good) == 0
    finally:
        os.close(fd)


def test_what_is_cached_no_longer_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(RIGHT)
    assert restore(tmp_path, str(tmp_path / "vfsMeta/r/a.pth"), tmp_path / "good") == 0
