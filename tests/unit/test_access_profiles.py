"""The access profiles on disk: kept by model, removed, and none where the file makes no sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from mountd.errors import Unavailable
from mountd.warm import access, profiles
from mountd.warm.access import AccessProfile, AppStart, OpenedFile
from mountd.warm.profiles import Profiles


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy disk may need longer than what the product waits for it."""
    monkeypatch.setattr(profiles, "LIMIT_S", 60.0)


def start(version: str, *paths: str) -> AppStart:
    return AppStart(version, "2026-01-02T03:04:05Z", tuple(OpenedFile(path, 1, 0.5) for path in paths))


WEBUI, API = start("v22", "a", "模型/b c#.bin"), start("v23", "a")
BOTH = {"webui", "api"}


async def test_what_is_kept_is_there_for_the_next_mountd(tmp_path: Path) -> None:
    assert await Profiles(tmp_path).read("hub") is None
    await Profiles(tmp_path).keep("hub", "webui", WEBUI, BOTH)
    await Profiles(tmp_path).keep("hub", "api", API, BOTH)
    await Profiles(tmp_path).keep("voice", "webui", API, BOTH)
    assert await Profiles(tmp_path).read("hub") == AccessProfile({"webui": WEBUI, "api": API})
    await Profiles(tmp_path).keep("hub", "api", API, {"api"})
    assert await Profiles(tmp_path).read("hub") == AccessProfile({"api": API})
    assert sorted(path.name for path in (tmp_path / "profiles").iterdir()) == ["hub.json", "voice.json"]


async def test_it_is_removed_as_a_whole_or_what_was_recorded_with_a_version(tmp_path: Path) -> None:
    kept = Profiles(tmp_path)
    assert await kept.forget("hub") == []
    await kept.keep("hub", "webui", WEBUI, BOTH)
    await kept.keep("hub", "api", API, BOTH)
    assert await kept.forget("hub", "v1") == []
    assert await kept.forget("hub", "v22") == ["webui"]
    assert await kept.read("hub") == AccessProfile({"api": API})
    assert await kept.forget("hub") == ["api"]
    assert await kept.read("hub") is None
    assert list((tmp_path / "profiles").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b'{"schema": 1, "starts": {"webui"', b"\0" * 100])
async def test_a_torn_file_counts_as_none_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "hub.json").write_bytes(content)
    kept = Profiles(tmp_path)
    assert await kept.read("hub") is None
    await kept.keep("hub", "webui", WEBUI, BOTH)
    assert await kept.read("hub") == AccessProfile({"webui": WEBUI})
    (tmp_path / "profiles" / "hub.json").write_bytes(content)
    assert await kept.forget("hub") == []
    assert not (tmp_path / "profiles" / "hub.json").exists()


async def test_one_that_is_too_large_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Profiles(tmp_path)
    await kept.keep("hub", "webui", WEBUI, BOTH)
    monkeypatch.setattr(profiles, "MOST_BYTES", len(access.dump(AccessProfile({"webui": WEBUI}))) - 1)
    assert await kept.read("hub") is None


async def test_where_it_cannot_be_written_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "profiles").write_bytes(b"")
    kept = Profiles(tmp_path)
    assert await kept.read("hub") is None
    with pytest.raises(Unavailable) as refused:
        await kept.keep("hub", "webui", WEBUI, BOTH)
    assert "hub" in refused.value.text
    assert str(tmp_path / "profiles") in refused.value.hint


async def test_a_disk_that_does_not_answer_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "LIMIT_S", 0.0)
    kept = Profiles(tmp_path)
    for work in (kept.read("hub"), kept.keep("hub", "webui", WEBUI, BOTH), kept.forget("hub")):
        with pytest.raises(Unavailable) as silent:
            await work
        assert str(tmp_path / "profiles") in silent.value.hint
