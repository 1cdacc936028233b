"""A cache that cannot be read for a moment: nothing is concluded from that, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import builtins
import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from mountd.cache import digests, stamps
from mountd.cache import index as cache_index
from mountd.cache.extents import has_hole
from mountd.cache.index import CacheIndex
from mountd.cache.index_repair import stamp
from mountd.cache.repair import repair
from mountd.errors import CannotStart, Exhausted
from mountd.settings.schema import MountSettings
from tests.integration.test_cache_index import ALL, BELOW, NAME, WHOLE, Cache

PLACES: dict[str, tuple[str, Callable[..., Any]]] = {
    "stamps": (f"/{stamps.NAME}", open),
    "digests": (f"/{digests.DIRECTORY}", os.scandir),
    "digest": (f"/{digests.DIRECTORY}/", open),
    "directory": (f"/vfsMeta/{BELOW}", os.scandir),
    "metadata": (f"/vfsMeta/{BELOW}/models/", open),
    "data": (f"/vfs/{BELOW}/models/", open),
}


@contextmanager
def failing(cache: Cache, place: str, number: int = errno.EIO) -> Iterator[None]:
    """The system calls for one place of the cache fail."""
    name, call = PLACES[place]
    wanted = f"{cache.root}{name}"

    def fails(path: Any, *args: Any, **kwargs: Any) -> Any:
        text = str(path)
        if text.startswith(wanted) if wanted.endswith("/") else text == wanted:
            raise OSError(number, os.strerror(number), text)
        return call(path, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins if call is open else os, call.__name__, fails)
        yield


def fails_with(number: int = errno.EIO) -> pytest.RaisesExc[OSError]:
    return pytest.raises(OSError, check=lambda error: error.errno == number)


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None is left for this process."""
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def after_a_boot(root: Path, *, has_digest: bool) -> Cache:
    """What was on disk is known by its stamp, or else by its digest alone."""
    cache = Cache(root, WHOLE)
    cache.repair()
    cache.end(None if has_digest else 5.0)
    if has_digest:
        cache.know()
    cache.boot()
    return cache


@pytest.mark.parametrize("has_digest", [False, True])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.ENFILE])
@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_read_now_says_nothing_of_a_file(
    tmp_path: Path, place: str, number: int, has_digest: bool
) -> None:
    cache = after_a_boot(tmp_path, has_digest=has_digest)
    if not has_digest and place.startswith("digest"):
        cache.know(b"another")
    with failing(cache, place, number), fails_with(number):
        cache.repair()
    assert cache.index == ALL
    done = cache.repair()
    assert (done.wrong, done.unproven) == ([], [])
    assert cache.index == ALL


def test_without_descriptors_nothing_is_concluded(tmp_path: Path) -> None:
    cache = after_a_boot(tmp_path, has_digest=False)
    with no_descriptors(), fails_with(errno.EMFILE):
        cache.repair()
    assert cache.index == ALL
    done = cache.repair()
    assert (done.wrong, done.unproven) == ([], [])


@pytest.mark.parametrize("place", ["stamps", "directory", "metadata"])
def test_what_was_noted_before_stays_when_the_end_cannot_be_noted(tmp_path: Path, place: str) -> None:
    cache = Cache(tmp_path, WHOLE)
    cache.repair()
    before = (tmp_path / stamps.NAME).read_bytes()
    with failing(cache, place), fails_with():
        stamp(tmp_path, None)
    assert (tmp_path / stamps.NAME).read_bytes() == before


def test_what_vanishes_meanwhile_is_no_failure(tmp_path: Path) -> None:
    cache = after_a_boot(tmp_path, has_digest=True)
    for place in PLACES:
        with failing(cache, place, errno.ENOENT):
            stamp(tmp_path, None)
    with failing(cache, "data", errno.ENOENT):
        cache.repair()


def test_files_that_wait_for_their_upload_are_not_overlooked(tmp_path: Path) -> None:
    cache = Cache(tmp_path, WHOLE)
    cache.write_meta(Dirty=True)
    for place in ("directory", "metadata"):
        with failing(cache, place), fails_with():
            repair(tmp_path)
    assert repair(tmp_path).waiting == 1


async def test_a_start_fails_with_the_cause_and_gives_up_what_stays_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = await asyncio.to_thread(after_a_boot, tmp_path, has_digest=True)
    mount = MountSettings.model_validate(
        {"remote": "s:b", "path": "/m", "profile": "model-hub", "cache": {"dir": tmp_path}}
    )
    index = CacheIndex("m")
    with failing(cache, "data", errno.EMFILE), pytest.raises(Exhausted) as lacking:
        await index.repair(mount)
    assert lacking.value.code == "no-descriptors"
    for _ in range(3):
        with failing(cache, "data"), pytest.raises(CannotStart) as broken:
            await index.repair(mount)
        assert (broken.value.code, broken.value.hint) == ("cache-broken", f"look at its disk: {cache.data}")
        assert str(tmp_path) in broken.value.text
        assert cache.index == ALL
    monkeypatch.setattr(cache_index, "UNREADABLE_S", 0.0)
    with failing(cache, "data", errno.EMFILE), pytest.raises(Exhausted):  # however long it lasts
        await index.repair(mount)
    with failing(cache, "data"), capture_logs() as logs:
        await index.repair(mount)
    assert cache.index is None
    # The cause is unknown.
    logged = {"event": "discarded cached files that cannot be verified", "log_level": "warning", "mount": "m"}
    assert logs == [{**logged, "names": [NAME]}]


def test_a_file_system_that_reports_no_holes_is_not_one_that_fails() -> None:
    reading, writing = os.pipe()
    try:
        with fails_with(errno.ESPIPE):
            has_hole(reading, 1)
    finally:
        os.close(reading)
        os.close(writing)
