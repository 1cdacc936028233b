"""The metrics say what the board says at that moment, count what happened, and are bounded, named and explained."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.api.metrics import exposition
from mountd.api.metrics.exposition import Metrics
from mountd.journal.journal import Journal
from mountd.mount.health import SLOW_S
from mountd.status.board import Board
from mountd.status.load import LoadStatus
from mountd.status.notify import NotifyStatus
from mountd.status.results import OutboxStatus
from mountd.status.snapshot import (
    AppStatus,
    CacheStatus,
    DriftStatus,
    Health,
    MountStage,
    Operation,
    Reason,
    RemoteStatus,
    ScheduledSwitch,
    Snapshot,
    State,
    Sync,
)
from tests.support.metrics import Scrape
from tests.support.monitoring import documented
from tests.support.shelf import MOUNT
from tests.unit.test_documents import APP, MODEL, OPERATION

COST_S = 0.5
"""Generous: the mark is measured by `test_a_scrape_is_cheap_where_nothing_else_runs`."""
MARK_S = 0.020


class World:
    def __init__(self, journal: Journal, snapshot: Snapshot | None = None) -> None:
        self.board, self.journal = Board(snapshot), journal
        self.metrics = Metrics(self.board, journal)

    async def scrape(self) -> Scrape:
        return Scrape((await self.metrics.render()).decode())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    journal = Journal(tmp_path / "mountd.db")
    await journal.open()
    yield World(journal)
    await journal.close()


def many(world: World, mounts: int = 5) -> None:
    """Every metric has a sample, of several mounts, models and apps."""
    board, meters = world.board, world.board.meters
    reason = Reason("bucket-unreachable", "…", "bucket", "store")
    for number in range(mounts):
        name = f"mount-{number}"
        cache = CacheStatus(1 << 30, 7, 2, 1 << 40)
        board.set_mount(name, replace(MOUNT, cache=cache, backend=RemoteStatus(Health.HEALTHY), reason=reason))
        for seconds in (0.001, 0.3, 100.0):
            meters.mounts[name].probe.add(seconds)
            meters.mounts[name].bucket_probe.add(seconds)
        meters.mounts[name].moved(100.0, fetched=1000, uploaded=10)
        board.set_model(f"model-{number}", replace(MODEL, mount=name))
        board.set_app(f"app-{number}", APP)
    board.set_operations(OPERATION)
    board.set_outbox("results", OutboxStatus("/srv/outputs", "store:results", Health.HEALTHY))
    board.set_notify("ops", NotifyStatus())
    board.set_scheduled(ScheduledSwitch(9, "hub", "v24", "", "tina", "", ""))
    meters.operations.finished("switch", "committed", 3.0)
    meters.certificate_expires, meters.rclone = 1.8e9, "v1.75.2"


# -- what is true now -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "stage", "health", "up"),
    [
        (State.RUNNING, MountStage.READY, Health.HEALTHY, 1),
        (State.RUNNING, MountStage.READY, Health.DEGRADED, 1),  # an outage: what is cached can be read
        (State.RUNNING, MountStage.ANSWERING, Health.HEALTHY, 0),  # rclone mounts happily with wrong keys
        (State.STARTING, MountStage.READY, Health.HEALTHY, 0),
        (State.BACKOFF, MountStage.PREFLIGHT, Health.DEGRADED, 0),
    ],
)
async def test_a_mount_is_up_once_reads_are_proven(
    world: World, state: State, stage: MountStage, health: Health, up: int
) -> None:
    world.board.set_mount("a", MOUNT)
    world.board.set_mount("b", replace(MOUNT, state=state, stage=stage, health=health))
    found = await world.scrape()
    assert found.value("mountd_ready") == up
    assert (found.value("mountd_mount_up", mount="a"), found.value("mountd_mount_up", mount="b")) == (1, up)
    assert found.value("mountd_mount_healthy", mount="b") == (health is Health.HEALTHY)
    states = found.samples("mountd_mount_state")
    assert sum(states.values()) == 2
    assert states[("mount", "b"), ("state", state.value)] == 1


async def test_a_scrape_shows_the_board_as_it_is_then(world: World) -> None:
    board = world.board
    board.set_mount("a", MOUNT)
    assert (await world.scrape()).value("mountd_ready") == 1
    board.set_mount("a", replace(MOUNT, state=State.STOPPING))
    found = await world.scrape()
    assert (found.value("mountd_ready"), found.value("mountd_mount_up", mount="a")) == (0, 0)
    board.set_mount("a", MOUNT)
    board.set_stopping()
    found = await world.scrape()
    assert (found.value("mountd_ready"), found.value("mountd_mount_up", mount="a")) == (0, 1)


@pytest.mark.parametrize(
    ("backend", "up"),
    [
        (RemoteStatus(), None),
        (RemoteStatus(Health.HEALTHY), 1),
        (RemoteStatus(Health.DEGRADED, Reason("bucket-slow", "…")), 1),
        (RemoteStatus(Health.DEGRADED, Reason("access-denied", "…")), 0),
        (RemoteStatus(Health.MISSING, Reason("bucket-missing", "…")), 0),
    ],
)
async def test_a_bucket_that_answers_is_up(world: World, backend: RemoteStatus, up: int | None) -> None:
    world.board.set_mount("a", replace(MOUNT, backend=backend))
    assert [*(await world.scrape()).samples("mountd_bucket_up").values()] == ([] if up is None else [up])


async def test_health_and_its_reasons(world: World) -> None:
    world.board.set_mount("a", MOUNT)
    assert (await world.scrape()).samples("mountd_reasons") == {}
    reason = Reason("mount-down", "…", "mount", "a")
    world.board.set_mount("a", replace(MOUNT, health=Health.DEGRADED, reason=reason, state=State.BACKOFF))
    found = await world.scrape()
    assert found.value("mountd_health", health="Degraded") == 1
    assert sum(found.samples("mountd_health").values()) == 1
    assert found.value("mountd_reasons", code="mount-down", layer="mount") == 1


async def test_versions_of_a_model(world: World) -> None:
    world.board.set_mount("storage", MOUNT)
    world.board.set_model("hub", replace(MODEL, current="v2", previous=None, desired="v2", sync=Sync.SYNCED))
    found = await world.scrape()
    roles = {dict(labels)["role"]: dict(labels)["version"] for labels in found.samples("mountd_model_version_info")}
    assert roles == {"current": "v2", "desired": "v2"}
    assert found.value("mountd_model_sync_state", model="hub", state="Synced") == 1
    assert found.value("mountd_model_suspended", model="hub") == 1


@pytest.mark.parametrize(
    ("percent", "loading", "ratio"),
    [
        (0, None, 0.0),
        (40, None, 0.4),
        (100, LoadStatus("v2", "data", 250, 1000), 0.25),
        (100, LoadStatus("v2", "data", 0, 0), 1.0),
        (100, LoadStatus("v2", "data", 1200, 1000), 1.0),
    ],
)
async def test_how_warm_a_model_is(world: World, percent: int, loading: LoadStatus | None, ratio: float) -> None:
    world.board.set_mount("storage", MOUNT)
    world.board.set_model("hub", replace(MODEL, warmed_percent=percent, loading=loading))
    assert (await world.scrape()).value("mountd_model_warm_ratio", model="hub") == ratio


async def test_the_cache_and_its_limit(world: World) -> None:
    world.board.set_mount("a", replace(MOUNT, cache=CacheStatus(5, 2, 1)))
    world.board.set_mount("b", replace(MOUNT, cache=CacheStatus(5, 2, 1, 99), cache_bypassed=True))
    found = await world.scrape()
    assert found.samples("mountd_cache_limit_bytes") == {(("mount", "b"),): 99}
    assert [*found.samples("mountd_cache_usable").values()] == [1, 0]
    assert found.value("mountd_uploads_pending", mount="a") == 1


async def test_versions_in_quarantine(world: World) -> None:
    world.board.set_mount("storage", MOUNT)
    world.board.set_model("hub", MODEL)
    assert (await world.scrape()).value("mountd_model_quarantined_versions", model="hub") == 0
    for digest in ("a", "b", "b"):
        await world.journal.quarantine("hub", digest, version="v1", operation=None, cause="…")
    assert (await world.scrape()).value("mountd_model_quarantined_versions", model="hub") == 2
    await world.journal.release("hub", "a")
    assert (await world.scrape()).value("mountd_model_quarantined_versions", model="hub") == 1
    await world.journal.rename_digest("hub", "b", "c")
    assert (await world.scrape()).value("mountd_model_quarantined_versions", model="hub") == 1


async def test_a_journal_that_cannot_be_read_holds_up_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "JOURNAL_S", 0.05)
    world.board.set_mount("storage", MOUNT)
    world.board.set_model("hub", MODEL)
    go = threading.Event()
    blocked = asyncio.create_task(world.journal.run(lambda: go.wait(60)))
    await asyncio.sleep(0)
    try:
        found = await world.scrape()
        assert found.samples("mountd_model_quarantined_versions") == {}
        assert found.value("mountd_mount_up", mount="storage") == 1
    finally:
        go.set()
        await blocked


# -- what has happened ------------------------------------------------------------------------------------------------


async def test_counters_never_fall_over_reconfiguration(world: World) -> None:
    board, seen = world.board, []
    for unasked in (2, 0, 1):  # added again, it counts from 0
        board.set_mount("a", replace(MOUNT, unasked=unasked))
        board.set_app("webui", AppStatus(unasked=unasked))
        board.meters.mounts["a"].moved(1.0, fetched=10, uploaded=1)
        found = await world.scrape()
        seen.append(
            (
                found.value("mountd_mount_restarts_total", mount="a"),
                found.value("mountd_app_restarts_total", app="webui"),
                found.value("mountd_mount_fetched_bytes_total", mount="a"),
            )
        )
        board.remove("mounts", "a")
        assert (await world.scrape()).samples("mountd_mount_restarts_total") == {}, "it is not configured"
        board.remove("apps", "webui")
    assert seen == [(2, 2, 10), (2, 2, 20), (3, 3, 30)]


async def test_a_histogram_of_probes(world: World) -> None:
    world.board.set_mount("a", MOUNT)
    empty = await world.scrape()
    for seconds in (0.0005, 0.001, 0.02, 60.0):
        world.board.meters.mounts["a"].probe.add(seconds)
    world.board.meters.mounts["a"].missed_probes += 3
    found = await world.scrape()
    counts = found.samples("mountd_mount_probe_duration_seconds_bucket")
    buckets = {dict(labels)["le"]: count for labels, count in counts.items()}
    assert (buckets["0.001"], buckets["0.025"], buckets["5.0"], buckets["+Inf"]) == (2, 3, 3, 4)
    assert found.value("mountd_mount_probe_duration_seconds_count", mount="a") == 4
    assert found.value("mountd_mount_probe_duration_seconds_sum", mount="a") == pytest.approx(60.0215)
    assert found.value("mountd_mount_probes_missed_total", mount="a") == 3
    before = empty.samples("mountd_mount_probe_duration_seconds_bucket")
    assert before.keys() == counts.keys(), "its buckets are fixed"


async def test_operations(world: World) -> None:
    empty = await world.scrape()
    assert empty.value("mountd_operations_total", kind="switch", result="rolled-back") == 0, "for a rate"
    assert empty.value("mountd_operations_total", kind="drill", result="passed") == 0
    assert empty.value("mountd_operations_total", kind="schedule", result="missed") == 0
    running = Operation(7, "warm", "hub", None, "v2", "tina", "cli", "warm", "", percent=30)
    world.board.set_operations(running)
    world.board.meters.operations.finished("switch", "rolled-back", 45.0)
    found = await world.scrape()
    assert found.value("mountd_operations_running", kind="warm") == 1
    assert found.value("mountd_operations_running", kind="switch") == 0
    assert found.value("mountd_operation_progress_ratio", kind="warm", model="hub") == 0.3
    assert found.value("mountd_operations_total", kind="switch", result="rolled-back") == 1
    assert found.value("mountd_operation_duration_seconds_bucket", kind="switch", le="60.0") == 1
    assert found.value("mountd_operation_duration_seconds_bucket", kind="switch", le="30.0") == 0


async def test_links_and_content(world: World) -> None:
    world.board.set_mount("storage", MOUNT)
    drifted = DriftStatus(reason=Reason("link-drifted", "…"), times=2, heals=1)
    world.board.set_model("hub", replace(MODEL, drift=drifted, changed=Reason("content-changed", "…")))
    found = await world.scrape()
    assert found.value("mountd_link_drifted", model="hub") == 1
    assert found.value("mountd_model_content_changed", model="hub") == 1
    assert found.value("mountd_link_drifts_total", model="hub") == 2
    assert found.value("mountd_link_heals_total", model="hub") == 1


async def test_uploads_that_the_journal_has_are_not_taken_for_new_ones(world: World) -> None:
    blank = OutboxStatus("/srv/outputs", "store:results")  # its journal is being read
    world.board.set_outbox("results", blank)
    before = await world.scrape()
    world.board.set_outbox("results", replace(blank, health=Health.HEALTHY, uploaded=7000))
    after = await world.scrape()
    name = "mountd_outbox_uploaded_total"
    assert (before.samples(name), after.value(name, outbox="results")) == ({}, 7000), "0, 7000 would be 7000 uploads"
    assert before.samples("mountd_outbox_pending_files") == {}


async def test_a_bucket_is_called_slow_at_a_bound_of_the_histogram(world: World) -> None:
    world.board.set_mount("a", MOUNT)
    counts = (await world.scrape()).samples("mountd_bucket_probe_duration_seconds_bucket")
    assert str(SLOW_S) in {dict(labels)["le"] for labels in counts}


# -- all of them ------------------------------------------------------------------------------------------------------


async def test_the_page_names_every_metric_with_its_type_and_labels(world: World) -> None:
    many(world, mounts=2)
    families = (await world.scrape()).families
    exposed = {}
    for family in families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        exposed[name] = (family.type, frozenset(labels - {"le"}))
        assert family.samples, f"{name} has no sample in this test"
    assert exposed == documented()
    for family in families:
        assert family.documentation
        assert re.fullmatch(r"(mountd|process)_[a-z0-9_]+", family.name)


async def test_the_number_of_series_is_bounded_by_the_configuration(world: World) -> None:
    def series(text: str) -> int:
        return sum(not line.startswith("#") for line in text.splitlines())

    counts = []
    for mounts in (1, 2, 3):
        many(world, mounts)
        counts.append(series((await world.scrape()).text))
    assert counts[1] - counts[0] == counts[2] - counts[1] < 100
    for version in range(50):  # versions come and go
        world.board.set_model("model-0", replace(MODEL, mount="mount-0", current=f"v{version}"))
        world.board.meters.operations.finished("switch", "committed", 1.0)
    assert series((await world.scrape()).text) == counts[2]


async def cost_s(world: World) -> float:
    """Of one scrape with five mounts, the median of 21."""
    many(world)
    times = []
    for _ in range(21):
        began = time.perf_counter()
        await world.metrics.render()
        times.append(time.perf_counter() - began)
    return sorted(times)[10]


async def test_a_scrape_with_five_mounts_is_cheap(world: World) -> None:
    assert await cost_s(world) < COST_S


@pytest.mark.thorough
@pytest.mark.alone
async def test_a_scrape_is_cheap_where_nothing_else_runs(world: World) -> None:
    assert await cost_s(world) < MARK_S
