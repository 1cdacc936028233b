"""The committed state of a model: the way back, what a lost journal leaves, and what could not be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mountd.errors import JournalError, MountdError, NotFound, Refused, Unavailable
from mountd.journal import database
from mountd.journal.journal import Committed
from mountd.model.content import Content
from mountd.model.drift import LinkBlocked
from mountd.model.model import CONTENT_INTERVAL_S, TROUBLE_INTERVAL_S, _failure
from mountd.model.survey import FileList
from mountd.status.snapshot import Health, ModelStage
from tests.support.memory_disk import MemoryDisk
from tests.support.shelf import Shelf, shelf, until

HELD = FileList.of({"gpt.pth": 5})


def content(version: str) -> Content:
    return Content(version, f"hub_{version}", HELD, "digest", False, ())


@pytest.mark.parametrize(
    ("current", "previous", "after"),
    [
        (None, None, None),
        ("v22", None, "v22"),
        ("v22", "v21", "v22"),
        ("v23", "v22", "v22"),  # made live once more
        ("v23", None, None),
    ],
)
async def test_what_was_live_is_the_way_back(
    tmp_path: Path, current: str | None, previous: str | None, after: str | None
) -> None:
    async with shelf(tmp_path, live="") as hub:
        state = hub.model.state
        await state.save(lambda _: Committed(current, previous, "v24", "v20", "alice"))
        await state.suspend("alice")
        await state.commit(content("v23"))
        expected = Committed("v23", after, "v23", "v20", "alice")
        assert (state.committed, await hub.journal.committed("hub")) == (expected, expected)
        known = await hub.journal.content("hub", "v23")
        assert known is not None
        assert (known.digest, known.listing) == ("digest", content("v23").listing)


async def test_a_change_that_cannot_be_written_does_not_count_and_one_that_was_found_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.05)
    async with shelf(tmp_path) as hub:
        await hub.model.load()
        before = hub.model.committed
        found = Committed("v22", None, "v23", "v23")
        with hub.locked():
            state = hub.model.state
            for change in (state.save(lambda _: found), state.suspend("alice"), state.commit(content("v23"))):
                with pytest.raises(MountdError):
                    await change
            assert hub.model.committed == before
            await hub.model.state.update(lambda _: found)
        assert hub.model.committed == found
        assert hub.status.desired == "v23"
        assert await hub.journal.committed("hub") == before
        await hub.model.suspend("alice")
        assert (await hub.journal.committed("hub")).desired == "v23", "with the next change"


@pytest.mark.parametrize(
    ("target", "current"), [("/mnt/hub_v21", "v21"), ("/mnt/other", None), ("/elsewhere/hub_v21", None), (None, None)]
)
async def test_after_a_lost_journal_the_link_is_the_truth(
    tmp_path: Path, target: str | None, current: str | None
) -> None:
    hub = Shelf(tmp_path)
    if target:
        hub.link.symlink_to(target)
    await hub.journal.open()
    try:
        await hub.model.load()
        expected = Committed(current, None, current, "v22" if current else None)
        assert (hub.model.committed, await hub.journal.committed("hub")) == (expected, expected)
        assert (hub.journal.replaced is not None) is (current is not None)
        await hub.desired.load("hub")
        assert hub.model.committed.desired == (current or "v22"), "no switch begins that nobody asked for"
    finally:
        await hub.journal.close()


async def test_a_journal_that_holds_the_model_is_believed_more_than_the_link(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub:
        hub.link.symlink_to("/mnt/hub_v21")
        await hub.model.load()
        assert hub.model.committed.current == "v22"


# -- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "health", "retry_s"),
    [
        (NotFound("x"), "waiting-for-content", Health.MISSING, CONTENT_INTERVAL_S),
        (Refused("x"), "waiting-for-content", Health.MISSING, CONTENT_INTERVAL_S),
        (LinkBlocked("x"), "link-blocked", Health.DEGRADED, CONTENT_INTERVAL_S),
        (Unavailable("x"), "model-unavailable", Health.DEGRADED, TROUBLE_INTERVAL_S),
        (JournalError("x"), "journal-unusable", Health.DEGRADED, CONTENT_INTERVAL_S),
    ],
)
def test_why_a_model_is_not_live_yet(error: MountdError, code: str, health: Health, retry_s: float) -> None:
    found = _failure(error)
    assert (found[0], found[2], found[3]) == (code, health, retry_s)


async def test_only_what_the_link_points_at_can_be_committed(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        with pytest.raises(Unavailable):
            await hub.model.commit(content("v23"))
        assert hub.model.committed.current == "v22"
        with hub.model.link.moving():
            await hub.model.flip(content("v23"))
            await hub.model.commit(content("v23"))
        assert (hub.model.committed.current, hub.status.current) == ("v23", "v23")


async def test_without_a_version_nothing_is_linked(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        with hub.model.held("v23"), hub.model.link.moving():
            await hub.model.flip(None)
            assert not os.path.lexists(hub.link)
            status = hub.status
            assert (status.stage, status.target, status.digest, status.mount_restarts) == (
                *(ModelStage.WAITING, None, None, -1),
            )
            assert (hub.model.live_content(), hub.model.content) == (None, None)


async def test_a_link_that_is_configured_elsewhere_moves_at_once(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        new = tmp_path / "new"
        hub.model.reconfigure(hub.model.settings.model_copy(update={"link": new}), hub.disk)
        assert (os.readlink(new), os.path.lexists(hub.link)) == ("/mnt/hub_v22", False)
        assert (hub.status.link, hub.status.linked) == (str(new), True)


@pytest.mark.parametrize("what", ["disk", "directory", "link that is blocked"])
async def test_on_another_disk_or_directory_a_model_starts_up_again(tmp_path: Path, what: str) -> None:
    async with shelf(tmp_path) as hub, hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        changes: dict[str, object] = {}
        if what == "directory":
            changes = {"directory": "hubs/{version}"}
        elif what != "disk":
            (tmp_path / "new").write_text("precious")
            changes = {"link": tmp_path / "new"}
        disk = MemoryDisk() if what == "disk" else hub.disk
        hub.model.reconfigure(hub.model.settings.model_copy(update=changes), disk)
        assert (hub.status.stage, hub.status.mount_restarts) == (ModelStage.WAITING, -1)
        assert os.readlink(hub.link) == "/mnt/hub_v22", "until that is done"
