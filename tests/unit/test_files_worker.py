"""The files worker without a process of its own: what it answers, whatever a line asks for, and what it bounds."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import DiskError
from mountd.files import client, worker


def ask(op: str, **request: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(worker.answer(json.dumps({"id": 7, "op": op, **request}).encode()))
    assert found.pop("id") == 7
    return found


@pytest.mark.parametrize(
    ("op", "request_", "number"),
    [
        ("list", {"path": "/", "limit": -1}, errno.EINVAL),
        ("list", {"path": "/", "limit": "1"}, errno.EINVAL),
        ("list", {"path": "/"}, 0),
        ("stat", {"paths": "/"}, errno.EINVAL),
        ("read", {"path": "/", "offset": 0, "length": worker.READ_LIMIT + 1}, errno.EINVAL),
        ("read", {"path": "/", "offset": 0, "length": 1}, errno.EISDIR),
        ("statfs", {"path": "/none"}, errno.ENOENT),
        ("statfs", {"path": "nul\0byte"}, errno.EINVAL),
        ("unlink", {"path": "/none"}, 0),
    ],
)
def test_what_cannot_be_answered_is_answered_as_well(op: str, request_: dict[str, Any], number: int) -> None:
    found = ask(op, **request_)
    assert found["errno"] == number
    assert found["error"]


def test_an_answer_that_the_client_would_not_take_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    monkeypatch.setattr(worker, "ANSWER_LIMIT", 500)
    assert ask("read", path=str(tmp_path / "a"), offset=0, length=1000)["errno"] == errno.EMSGSIZE
    assert "ok" in ask("read", path=str(tmp_path / "a"), offset=0, length=10)
    assert worker.READ_LIMIT * 4 / 3 < client.ANSWER_LIMIT, "the largest read fits"
    assert worker.READ_LIMIT == client.READ_LIMIT


def digest(path: Path, key: int, begin: int, length: int = 4) -> dict[str, Any]:
    return ask("hash", path=str(path), key=key, length=length, **{"from": begin})


def walk(path: Path, to: Path, key: int, begin: int, count: int = 1) -> dict[str, Any]:
    return ask("walk", path=str(path), to=str(to), key=key, count=count, **{"from": begin})


@pytest.fixture
def nothing_open() -> Iterator[None]:
    yield
    while worker._hashing:
        worker._hashing.popitem()[1].stream.close()
    while worker._walking:
        worker._walking.popitem()[1].close()


@pytest.mark.usefixtures("nothing_open")
def test_so_many_digests_are_under_way_and_one_that_was_left_is_begun_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345678")
    keys = range(100, 100 + worker.HASHES + 1)
    for key in keys:
        assert digest(path, key, 0)["ok"] == {"sha256": None, "bytes": 4}
    assert len(worker._hashing) == worker.HASHES
    assert digest(path, keys[0], 4)["errno"] == errno.ESTALE, "it was given up for the last one"
    assert digest(path, keys[1], 8)["errno"] == errno.ESTALE, "that is not where it is"
    assert digest(path, keys[-1], 4)["ok"]["sha256"] is None, "whether that is the end is not known yet"
    assert digest(path, keys[-1], 8)["ok"]["sha256"].startswith("ef797c8118f02dfb")
    assert digest(path, keys[-1], 8)["errno"] == errno.ESTALE, "it is closed"


@pytest.mark.usefixtures("nothing_open")
def test_so_many_walks_are_under_way_and_one_that_was_left_is_begun_again(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / "tree" / name).mkdir(parents=True)
        (tmp_path / "tree" / name / "file").write_bytes(b"1")
    keys = range(100, 100 + worker.WALKS + 1)
    for key in keys:
        assert walk(tmp_path / "tree", tmp_path / str(key), key, 0)["ok"] == {"files": 1, "done": False}
    assert len(worker._walking) == worker.WALKS
    assert walk(tmp_path / "tree", tmp_path / "x", keys[0], 1)["errno"] == errno.ESTALE
    assert walk(tmp_path / "tree", tmp_path / "x", keys[-1], 1, count=9)["ok"] == {"files": 2, "done": True}
    assert walk(tmp_path / "tree", tmp_path / "x", keys[-1], 2)["errno"] == errno.ESTALE, "it is closed"


@pytest.mark.parametrize(
    ("errors", "tries", "is_done"),
    [
        ([], 1, True),
        ([errno.ESTALE] * (client.ATTEMPTS - 1), 3, True),
        ([errno.ESTALE] * client.ATTEMPTS, 3, False),
        ([errno.EIO], 1, False),
    ],
)
async def test_what_a_new_worker_does_not_know_is_begun_again_a_few_times(
    errors: list[int], tries: int, is_done: bool
) -> None:
    left, tried = list(errors), 0

    async def work() -> str:
        nonlocal tried
        tried += 1
        if left:
            raise DiskError("no", errno=left.pop(0))
        return "done"

    if is_done:
        assert await client._again_when_stale(work) == "done"
    else:
        with pytest.raises(DiskError):
            await client._again_when_stale(work)
    assert tried == tries


def test_a_path_that_is_no_utf8_can_be_shown() -> None:
    assert client.shown("/caf\udce9") == "/caf\\xe9"


def test_a_walk_needs_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    (tmp_path / "below" / "deep").mkdir(parents=True)
    paths = {f"below/deep/f{number}": number for number in range(40)}
    for path, size in paths.items():
        (tmp_path / path).write_bytes(b"x" * size)
    monkeypatch.setattr("concurrent.futures.ThreadPoolExecutor.submit", refuse)
    assert dict(map(json.loads, worker.found_below(str(tmp_path)))) == paths
