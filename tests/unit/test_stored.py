"""Before files leave a cache under a running rclone: nobody may be reading, or what is read may be wrong."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.cache import evict
from mountd.cache.evict import Place
from mountd.errors import Busy
from tests.support.wait import until

MINOR = 4711


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """In place of an rclone: it can be stopped, and has nothing open."""
    with subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL) as process:
        yield process
        process.kill()


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """How many questions the kernel counts that have no answer."""
    directory = tmp_path / "connections" / str(MINOR)
    directory.mkdir(parents=True)
    monkeypatch.setattr(evict, "FUSE_CONNECTIONS", str(directory.parent))
    return directory / "waiting"


@pytest.fixture
def place(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> Place:
    cache = tmp_path / "cache"
    found = Place(cache, cache / "vfs", cache / "vfsMeta", str(tmp_path / "mnt"), sleeper.pid, MINOR)
    for root in (found.data, found.meta):
        (root / "hub_v1").mkdir(parents=True)
        (root / "hub_v1" / "gpt.pth").write_text("data")
    return found


@pytest.mark.parametrize("count", ["1", "12\n"])
def test_nothing_leaves_while_a_question_waits_for_its_answer(place: Place, waiting: Path, count: str) -> None:
    waiting.write_text(count)
    with pytest.raises(Busy, match="is being read"):
        evict.evict(place, "hub_v1")
    assert evict.usage(place, "hub_v1").bytes > 0
    assert (place.meta / "hub_v1" / "gpt.pth").exists()
    until(lambda: not set(evict._states(place.pid)) & set("Tt"), 10, "it to go on")


@pytest.mark.parametrize("count", ["0\n", None, "nonsense"])
def test_what_nobody_reads_leaves(place: Place, waiting: Path, count: str | None) -> None:
    """Where nobody can say, as in containers, what is open is all that there is to go by."""
    if count is not None:
        waiting.write_text(count)
    evict.evict(place, "hub_v1")
    assert not (place.data / "hub_v1").exists()
    assert not (place.meta / "hub_v1").exists()
    assert list((place.cache / evict.ASIDE).iterdir()) == []
    until(lambda: not set(evict._states(place.pid)) & set("Tt"), 10, "it to go on")
