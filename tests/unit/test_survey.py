"""Lists of files are packed without loss, problems are bounded, and what is kept of a manifest is what it says."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cache import digests
from mountd.errors import Unavailable
from mountd.model import manifest, survey_job, surveyor
from mountd.model.survey import MOST_PROBLEMS, NO_FILES, FileList, survey
from mountd.model.surveyor import Scratch, ask

ANY_PATH = st.text(st.characters(exclude_characters="\0"), min_size=1)
MANY = 30_000
PAUSE_S, ROUNDS = 0.25, 5


@given(st.dictionaries(ANY_PATH, st.integers(0, 2**60)))
def test_a_packed_list_is_the_list(files: dict[str, int]) -> None:
    packed = FileList.of(files)
    assert packed.unpack() == files
    assert (packed.count, len(packed), packed.bytes) == (len(files), len(files), sum(files.values()))
    assert packed.digest == manifest.listing_digest(files)
    assert packed == FileList.of(dict(reversed(files.items())))
    assert bool(packed) is bool(files)


@given(st.dictionaries(ANY_PATH | st.text('[]", \\/a', min_size=1), st.integers(0, 2**60)), ANY_PATH)
def test_sizes_are_read_from_a_packed_list(files: dict[str, int], other: str) -> None:
    sizes = FileList.of(files).sizes()
    assert [*sizes.items()] == sorted(files.items())
    assert {path: sizes.get(path) for path in files} == files
    assert sizes.get(other) == files.get(other)


def test_what_a_list_is_without_its_manifest() -> None:
    bare, whole = FileList.of({"a": 1}), FileList.of({"a": 1, manifest.NAME: 9})
    assert (bare.bare, bare.has_manifest, whole.bare, whole.has_manifest) == (bare.digest, False, bare.digest, True)
    assert whole.digest != bare.digest
    assert not NO_FILES.has_manifest


def test_of_many_problems_the_first_are_named_and_the_others_counted() -> None:
    of = manifest.Manifest("v1", {f"f{number}": 1 for number in range(MOST_PROBLEMS + 7)})
    found = survey("v1", {manifest.NAME: 1}, ["f0", "other"], of)
    assert (len(found.problems), found.more, found.misnamed) == (MOST_PROBLEMS, 8, 1)
    assert found.sample == ()


def manifest_job(directory: Path, data: bytes) -> dict[str, Any]:
    (directory / "data").write_bytes(data)
    paths = {name: str(directory / name) for name in ("data", "parsed", "digests")}
    return {"job": "manifest", "directory": "hubs/hub_v1", "required": ["unnamed", "声/b"], **paths}


def test_what_is_kept_for_the_cache_is_what_the_manifest_says(tmp_path: Path) -> None:
    sha256 = "ab" * 32
    files = [{"path": "a", "size": 1, "sha256": sha256}, {"path": "声/b", "size": 2}]
    job = manifest_job(tmp_path, json.dumps({"schema": 1, "version": "v1", "files": files}).encode())
    answer = survey_job.do(job)
    assert answer["sample"] == ("unnamed", "声/b", "a"), "what is required first, also when it is not named"
    summary = answer["summary"]
    assert (summary["count"], summary["bytes"], summary["undigested"]) == (2, 3, "声/b")
    cache = tmp_path / "cache"
    cache.mkdir()
    digests.keep(cache, "hubs/hub_v1", tmp_path / "digests")
    assert digests.read(cache) == {"hubs/hub_v1/a": (1, sha256)}


async def longest_pause(until_ended: asyncio.Event) -> float:
    """Seconds of this process, without those that it got no time, in which the event loop did nothing else."""
    worst = 0.0
    while not until_ended.is_set():
        began = time.process_time()
        await asyncio.sleep(0.005)
        worst = max(worst, time.process_time() - began)
    return worst


@pytest.mark.parametrize("files", [MANY, 6000], ids=["in-a-process", "the-longest-in-a-thread"])
async def test_long_lists_do_not_hold_up_the_event_loop(tmp_path: Path, files: int) -> None:
    """0.05 s on a machine that does nothing else, which a busy one shows in one of several rounds."""
    entries = [(f"models/d{number % 100}/f{number:07}.bin", 1024, "ab" * 32) for number in range(files)]
    data = manifest.render("v1", entries, created="", tool="")
    pauses: list[float] = []
    while len(pauses) < ROUNDS and min(pauses, default=1.0) >= PAUSE_S:
        directory = tmp_path / str(len(pauses))
        await asyncio.to_thread(directory.mkdir)
        job = await asyncio.to_thread(manifest_job, directory, data)
        ended = asyncio.Event()
        watching = asyncio.create_task(longest_pause(ended))
        with Scratch(tmp_path) as scratch:
            answer = await ask(scratch, job, [Path(job["data"])])
        ended.set()
        pauses.append(await watching)
        assert answer["summary"]["count"] == files
    assert min(pauses) < PAUSE_S, pauses
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("list-")] == []


async def test_a_process_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveyor, "SMALL_BYTES", -1)
    job = {"job": "compare", "before": "/nowhere", "now": "/nowhere"}
    with Scratch(tmp_path) as scratch, pytest.raises(Unavailable, match="/nowhere"):
        await ask(scratch, job, [])
    monkeypatch.setattr(surveyor, "LIMIT_S", 0.0)
    with Scratch(tmp_path) as scratch, pytest.raises(Unavailable):
        await ask(scratch, job, [])
