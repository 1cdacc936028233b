"""Guards of operations that nothing else would miss: a quarantine, the limit of retries, and the quiet of a reload."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from mountd.errors import Busy, Refused
from mountd.model import manifest
from mountd.operation import steps
from mountd.operation.desired import Request
from mountd.operation.rules import FROM_FILE
from mountd.operation.runner import OperationOutcome
from mountd.rclone.keys import BucketEntry
from mountd.status.snapshot import Health, RemoteStatus
from tests.support.memory_disk import MemoryDisk
from tests.support.shelf import MOUNT, TINA, Shelf, shelf, until
from tests.support.tasks import tasks_of

DEGRADED = replace(MOUNT, backend=RemoteStatus(Health.DEGRADED))
FORCED = Request("tina", "cli", force=True)


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a gate that says no: what ends in these tests is known at once."""
    monkeypatch.setattr(steps, "NOTICE_S", 0.05)


def deaf_address() -> str:
    """Of a port that nobody listens on."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{held.getsockname()[1]}"


async def ended(hub: Shelf, request: Request) -> str:
    return str((await hub.switch("v23", request)).result)


async def test_only_a_forced_switch_that_succeeds_lifts_a_quarantine(tmp_path: Path) -> None:
    verdict = tmp_path / "verdict"
    script = f'read code < "{verdict}"; exit "$code"'
    gates, watch = [{"command": ["sh", "-c", script]}], {"for": "0s"}
    async with shelf(tmp_path, gates=gates, watch=watch) as hub, hub.running():
        await until(lambda: hub.status.linked, "the old version to serve")

        async def quarantined() -> bool:
            return bool(await hub.journal.quarantined("hub"))

        verdict.write_text("1\n")
        assert await ended(hub, TINA) == "rolled-back"
        assert await quarantined()
        assert await ended(hub, TINA) == "refused"
        hub.board.set_mount("storage", DEGRADED)  # so that it is not judged again
        assert await ended(hub, FORCED) == "rolled-back"
        assert await quarantined(), "it has shown nothing"
        hub.board.set_mount("storage", MOUNT)
        assert await ended(hub, FORCED) == "rolled-back"
        assert await quarantined()
        verdict.write_text("0\n")
        assert await ended(hub, FORCED) == "committed"
        assert not await quarantined()


class ManifestDisk(MemoryDisk):
    """Each version has the same manifest, which names v23."""

    data = manifest.render("v23", [("gpt.pth", 5, "0" * 64)], created="", tool="")

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        more = BucketEntry(f"{directory}/{manifest.NAME}", manifest.NAME, len(self.data), False)
        return [*await super().list_bucket(directory), more]

    def object(self, path: str) -> bytes | None:
        return self.data if path.endswith(manifest.NAME) else None


async def test_a_plan_that_is_only_shown_finds_a_former_quarantine_and_writes_nothing(tmp_path: Path) -> None:
    """As mountd 0.1 has written it down, with the disk of the journal full."""
    async with shelf(tmp_path, watch={"for": "0s"}) as hub, hub.running():
        await until(lambda: hub.status.linked, "the old version to serve")
        hub.model.versions.disk = ManifestDisk()
        former = manifest.former_digest(ManifestDisk.data)
        await hub.journal.quarantine("hub", former, version="v23", operation=1, cause="it crashed")
        with hub.locked(), pytest.raises(Refused, match="it crashed"):
            await hub.operations.switch("hub", "v23", replace(TINA, dry_run=True))
        assert (await hub.journal.quarantined("hub")).keys() == {former}
        assert await ended(hub, TINA) == "refused"
        assert await ended(hub, FORCED) == "committed"
        assert not await hub.journal.quarantined("hub")


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_an_edit_that_fails_is_tried_again_as_often_as_the_limit_says(tmp_path: Path, limit: int) -> None:
    sync = {"retry": {"limit": limit, "initial": "10ms", "factor": 1, "max": "10ms"}}
    gates = [{"prometheus": deaf_address(), "query": "up", "max": 1, "timeout": "50ms"}]
    async with (
        shelf(tmp_path, version="v23", sync=sync, gates=gates) as hub,
        hub.running(),
        tasks_of(hub.board) as group,
    ):
        await until(lambda: hub.status.linked, "the old version to serve")
        with capture_logs() as logs:
            hub.desired.begin(group)
            gave_up = "gave up the version in the file"
            await until(lambda: any(each["event"] == gave_up for each in logs), "the last try")
        tried = await hub.journal.history(limit=100)
        assert [(each.result, each.source) for each in tried] == [("rolled-back", FROM_FILE)] * (limit + 1)
        assert next(each["tries"] for each in logs if each["event"] == gave_up) == limit + 1
        await until(lambda: all(task.done() for task in hub.desired.tasks()), "no pending switch")
        assert hub.target == "hub_v22"


async def test_nothing_begins_while_a_reload_changes_things(tmp_path: Path) -> None:
    async def work(_: object) -> OperationOutcome:
        raise AssertionError("it was begun")

    async with shelf(tmp_path) as hub, hub.running():
        await until(lambda: hub.status.linked, "v22 to be linked")
        async with hub.operations.quiet():
            with pytest.raises(Busy) as refused:
                await hub.operations.switch(None, "v23", TINA)
            assert "reload" in refused.value.holder
            with pytest.raises(Busy):
                await hub.operations.begin_exclusive(
                    kind="drill", target="storage", wanted="kill", request=TINA, step="fault", work=work,
                )  # fmt: skip
            assert not hub.board.snapshot.operations
        assert (await hub.switch("v23")).result == "committed"
        with pytest.raises(Busy):  # of rollback too
            async with hub.operations.quiet():
                await hub.operations.rollback(None, TINA)
