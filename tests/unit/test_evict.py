"""Old versions in a cache on disk that no rclone uses: what is found there, and what is left of it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mountd.cache import index as index_module
from mountd.cache.evict import old_versions
from mountd.cache.index import CacheIndex
from mountd.cache.retention import RECENT_S, CacheClaim
from mountd.errors import CannotStart
from mountd.model.layout import Layout
from mountd.settings.schema import MountSettings
from tests.support.vfs_cache import put

NOW = time.time()
ROOT = "store{Dn7qA}/bucket/models"
REMOTE = "store:bucket/models"
CLAIM = CacheClaim("hub", Layout("hub/cache_{version}"), 2, frozenset({"v3", "v4"}))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Four versions, and what is none."""
    for version in ("v1", "v2", "v3", "v4"):
        add(tmp_path, f"{ROOT}/hub/cache_{version}/deep/gpt.pth")
    add(tmp_path, f"{ROOT}/hub/other_v1/gpt.pth")
    add(tmp_path, f"{ROOT}/hub/cache_v0")
    return tmp_path


def add(cache: Path, path: str, *, dirty: bool = False, days: float = 9, text: str = "") -> None:
    put(cache, path, dirty=dirty, text=text)
    os.utime(cache / "vfsMeta" / path, (0, NOW - days * RECENT_S))


def left(cache: Path, kind: str = "vfs") -> list[str]:
    root = cache / kind
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def evict(cache: Path, claim: CacheClaim = CLAIM) -> dict[str, str | None]:
    """What was to go, and why it stayed."""
    return {version.version: cause for version, cause in old_versions(cache, REMOTE, [claim], NOW)}


def test_versions_that_no_model_keeps_go_with_their_metadata(cache: Path) -> None:
    assert evict(cache) == {"v1": None, "v2": None}
    kept = [f"{ROOT}/hub/{path}" for path in ("cache_v0", "cache_v3/deep/gpt.pth", "cache_v4/deep/gpt.pth")]
    assert left(cache) == left(cache, "vfsMeta") == [*kept, f"{ROOT}/hub/other_v1/gpt.pth"]
    assert evict(cache) == {}


def test_what_was_used_today_stays(cache: Path) -> None:
    add(cache, f"{ROOT}/hub/cache_v1/read-ahead", days=0.5)
    assert evict(cache) == {"v2": None}


@pytest.mark.parametrize("text", ["", '{"Dir'], ids=["dirty", "torn"])
def test_a_version_with_a_file_that_waits_for_upload_stays_whole(cache: Path, text: str) -> None:
    add(cache, f"{ROOT}/hub/cache_v1/written", dirty=True, text=text)
    before = left(cache)
    found = evict(cache)
    assert found.pop("v1"), "the cause for which it stays"
    assert found == {"v2": None}
    assert left(cache) == [path for path in before if "cache_v2" not in path]


def test_files_of_another_remote_or_another_path_of_it_stay(cache: Path) -> None:
    for root in ("storage/bucket/models", "store{Dn7qA}/bucket", "other/bucket/models"):
        add(cache, f"{root}/hub/cache_v1/gpt.pth")
    add(cache, "store/bucket/models/hub/cache_v2/gpt.pth")  # of the same remote, before its flags were others
    before = left(cache)
    evict(cache)
    assert set(before) - set(left(cache)) == {
        f"{ROOT}/hub/cache_v1/deep/gpt.pth",
        f"{ROOT}/hub/cache_v2/deep/gpt.pth",
        "store/bucket/models/hub/cache_v2/gpt.pth",
    }


def test_nothing_is_followed_out_of_the_cache(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "data").write_text("12345")
    link = cache / "vfs" / ROOT / "hub" / "cache_v9"
    link.symlink_to(tmp_path / "outside")
    evict(cache)
    assert link.is_symlink()
    assert (tmp_path / "outside" / "data").exists()


def test_a_cache_that_was_never_used_has_nothing_to_evict(tmp_path: Path) -> None:
    assert evict(tmp_path) == {}


def mount(cache: Path, profile: str = "model-hub") -> MountSettings:
    fields = {"remote": REMOTE, "path": "/mnt/x", "profile": profile, "cache": {"dir": str(cache)}}
    return MountSettings.model_validate(fields)


@pytest.mark.parametrize(("profile", "evicted"), [("model-hub", True), ("plain", False)])
async def test_only_a_mount_that_is_never_written_evicts(cache: Path, profile: str, evicted: bool) -> None:
    await CacheIndex("x").evict(mount(cache, profile), [CLAIM])
    assert (len(left(cache)) == 4) is evicted


async def test_what_goes_and_what_stays_is_logged(cache: Path) -> None:
    add(cache, f"{ROOT}/hub/cache_v1/written", dirty=True)
    with capture_logs() as logs:
        await CacheIndex("x").evict(mount(cache), [CLAIM])
    assert [(each["log_level"], each["version"], "cause" in each) for each in logs] == [
        ("warning", "v1", True),
        ("info", "v2", False),
    ]
    assert logs[1]["bytes"] > 0


async def test_a_cache_that_cannot_be_listed_keeps_no_mount_down_and_one_that_is_silent_does(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(index_module, "old_versions", fail)
    with capture_logs() as logs:
        await CacheIndex("x").evict(mount(cache), [CLAIM])
        await CacheIndex("x").evict(mount(cache), [])
    assert [each["log_level"] for each in logs] == ["warning"], "without a model there is nothing to look for"
    monkeypatch.setattr(index_module, "EVICT_LIMIT_S", 0.0)
    with pytest.raises(CannotStart) as refused:
        await CacheIndex("x").evict(mount(cache), [CLAIM])
    assert refused.value.code == "cache-silent"
