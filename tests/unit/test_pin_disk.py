"""The store of pinned files: whom it belongs to, who may read it, and what its disk refuses."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mountd.errors import Busy, Exhausted, MountdError, Unavailable
from mountd.warm import store_lock
from mountd.warm.store import PinStore
from tests.support.machine import Tmpfs, read_only
from tests.support.pinning import DIGEST, MODEL, bring, held, pin, problems, wanted

V22 = {"gpt.pth": b"22" * 50, "config.yaml": b"same", "hf/w2v/model.safetensors": b"same too"}
V23 = {"gpt.pth": b"23" * 60, "config.yaml": b"same", "hf/w2v/model.safetensors": b"same too", "hf/again": b"same too"}
STRANGER = 65534


@pytest.fixture
def store(tmp_path: Path) -> PinStore:
    return PinStore(tmp_path / "state" / "pins")


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory that every user can enter; tmp_path is not."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_one_change_at_a_time(store: PinStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_lock, "PATIENCE_S", 0.1)
    pin(store, "v22", V22)
    with open(store.place / "lock", "rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        for change in (
            lambda: store.remove(MODEL, "v22"),
            lambda: store.sweep(set()),
            lambda: store.build(MODEL, "v22", wanted(V22), digest=DIGEST),
            lambda: store.accept_all({}),
        ):
            with pytest.raises(Busy):
                change()
        assert store.pinned(MODEL, "v22")  # to look is always allowed
        assert store.verify(MODEL, "v22") == []
    store.remove(MODEL, "v22")


def test_another_change_of_this_process_is_not_waited_for_for_ever(
    store: PinStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_lock, "TURN_LIMIT_S", 0.01)
    with store._lock.changing(), pytest.raises(Busy):
        store.remove(MODEL, "v22")
    store.remove(MODEL, "v22")


@pytest.mark.root
def test_directories_of_somebody_else_are_refused(tmp_path: Path) -> None:
    for name in ("", "objects", "incoming", "trees", "work"):
        place = tmp_path / f"of-{name}"
        PinStore(place)
        os.chown(place / name, STRANGER, STRANGER)
        with pytest.raises(MountdError):
            PinStore(place)


def test_directories_that_a_group_may_write_are_set_right(tmp_path: Path) -> None:
    store = PinStore(tmp_path / "pins")
    pin(store, "v22", V22)
    for parent, names, files in os.walk(store.place):  # as Kubernetes does to a volume with fsGroup
        for name in names:
            Path(parent, name).chmod(0o2775)
        for name in files:
            Path(parent, name).chmod(0o664)
    pin(PinStore(store.place), "v22", V22)
    assert problems(store) == []
    assert [mode(store.place / name) for name in ("objects", "incoming", "trees", "work")] == [
        0o755, 0o700, 0o755, 0o700,
    ]  # fmt: skip


@pytest.mark.root
def test_without_root(passable: Path) -> None:
    home = passable / "home"
    home.mkdir()
    os.chown(home, STRANGER, STRANGER)
    os.seteuid(STRANGER)
    try:
        store = PinStore(home / "pins")
        pin(store, "v22", V22)
        pin(store, "v23", V23)
        store.sweep({(MODEL, "v23")})
        assert held(store.tree(MODEL, "v23")) == V23
        with pytest.raises(PermissionError):
            (store.tree(MODEL, "v23") / "gpt.pth").open("r+b")  # not even its own user, by mistake
        assert problems(store) == []
    finally:
        os.seteuid(0)
    os.seteuid(STRANGER - 1)
    try:
        assert (home / "pins/trees" / MODEL / "v23/gpt.pth").read_bytes() == V23["gpt.pth"]  # the app
        with pytest.raises(PermissionError):
            os.listdir(home / "pins/incoming")
        with pytest.raises(MountdError):
            PinStore(home / "pins")
    finally:
        os.seteuid(0)


@pytest.mark.root
def test_a_full_disk(tmp_path: Path) -> None:
    with Tmpfs(tmp_path / "small", 2) as disk:
        store = PinStore(disk.path / "pins")
        pin(store, "v22", V22)
        store.accept_all(bring(store, V23.values()))
        disk.fill()
        with pytest.raises(Exhausted) as full:
            store.build(MODEL, "v23", wanted({**V23, **{f"{n}/x": b"same" for n in range(2000)}}), digest=DIGEST)
        assert full.value.code == "disk-full"
        assert store.pinned(MODEL, "v23") is None
        assert store.usage().free_bytes == 0
        store.remove(MODEL, "v22")  # needs no room
        disk.empty()
        store.build(MODEL, "v23", wanted(V23), digest=DIGEST)
        assert problems(store) == []


@pytest.mark.root
def test_a_disk_that_can_only_be_read(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    pin(PinStore(place / "pins"), "v22", V22)
    with read_only(place):
        store = PinStore(place / "pins")
        assert held(store.tree(MODEL, "v22")) == V22
        assert store.pinned(MODEL, "v22") is not None
        assert store.verify(MODEL, "v22") == []
        for change in (lambda: store.remove(MODEL, "v22"), lambda: store.sweep(set())):
            with pytest.raises(Unavailable):
                change()
    assert problems(PinStore(place / "pins")) == []
