"""A version that the file asks for, and a journal that cannot be written: nobody has to ask again."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mountd.journal import database
from mountd.journal.journal import Committed
from mountd.model import model
from tests.support.shelf import shelf, until
from tests.support.tasks import tasks_of

RETRY = {"retry": {"limit": 0, "initial": "50ms", "max": "50ms"}}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCKED_S", 0.05)


async def test_with_a_journal_that_cannot_be_written_the_old_version_serves_until_it_can(tmp_path: Path) -> None:
    async with shelf(tmp_path, version="v23", sync=RETRY) as hub:
        with hub.locked():
            await hub.desired.load("hub")
            assert (hub.model.committed.current, hub.status.desired) == ("v22", "v23")
            assert (await hub.journal.committed("hub")).config_version == "v22"
        async with hub.running(), tasks_of(hub.board) as group:
            with hub.locked(), capture_logs() as logs:
                hub.desired.begin(group)
                await until(lambda: hub.status.linked, "the old version to serve")
                told = "cannot switch to the version in the file"
                await until(lambda: [each["event"] for each in logs].count(told) > 2, "more than one try")
                assert [each["log_level"] for each in logs if each["event"] == told][:2] == ["error", "debug"]
                assert hub.target == "hub_v22"
            await until(lambda: hub.model.committed.current == "v23", "the version of the file")
        assert await hub.journal.committed("hub") == Committed("v23", "v22", "v23", "v23")
        assert [each.source for each in await hub.journal.history(limit=5)] == ["config"]


async def test_a_switch_that_failed_for_the_journal_is_tried_again(tmp_path: Path) -> None:
    sync = {"retry": {**RETRY["retry"], "limit": 100}}
    async with shelf(tmp_path, version="v23", sync=sync) as hub, hub.running(), tasks_of(hub.board) as group:
        await until(lambda: hub.status.linked, "the old version to serve")
        hub.disk.gate.clear()
        hub.desired.begin(group)
        await until(lambda: hub.board.snapshot.operation, "the switch to begin")
        with hub.locked():
            hub.disk.gate.set()
            await until(lambda: not hub.board.snapshot.operation, "it to fail")
            assert hub.target == "hub_v22"
        await until(lambda: hub.model.committed.current == "v23", "the version of the file")
        await until(lambda: not hub.board.snapshot.operation, "it to be written")
        ended = await hub.journal.history(limit=5)
        assert [each.result for each in ended] == ["committed", "failed"]
        assert "cannot use the journal" in ended[1].cause


async def test_a_first_version_is_served_too_and_written_down_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "CONTENT_INTERVAL_S", 0.05)
    async with shelf(tmp_path, live="") as hub:
        with hub.locked():
            async with hub.running():
                await until(lambda: hub.status.reason, "the trouble to be told")
                assert hub.status.reason is not None
                assert (hub.status.reason.code, hub.target) == ("journal-unusable", "hub_v22")
        async with hub.running():
            await until(lambda: hub.model.committed.current == "v22", "it to be written")
        assert await hub.journal.committed("hub") == Committed("v22", None, "v22", "v22")
