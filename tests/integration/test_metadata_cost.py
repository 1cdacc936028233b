"""What the names of a version cost: each is listed once, and of 100,000 nothing stays in the daemon's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psutil
import pytest

from bench.many_objects import ManyObjects
from tests.support.daemon import Daemon

pytestmark = pytest.mark.fuse

OBJECTS = 12_000
START_PAGES = 10
"""What a start asks besides: the bucket probe, the root, the proof of the mount."""
MIB = 1024 * 1024


def daemon_on(make_daemon: Callable[..., Daemon], store: ManyObjects) -> Daemon:
    daemon = make_daemon(
        endpoint=store.endpoint, access_key_id=store.access_key_id, secret_access_key=store.secret_access_key
    )
    daemon.config["apps"] = {}
    daemon.config["models"]["cache_hub"] |= {"required": [], "version": "v22"}
    return daemon


@pytest.fixture
def store() -> Iterator[ManyObjects]:
    with ManyObjects({"v22": OBJECTS, "v23": OBJECTS}) as made:
        yield made


def test_each_object_is_listed_once(make_daemon: Callable[..., Daemon], store: ManyObjects) -> None:
    daemon = daemon_on(make_daemon, store)
    daemon.start_ready()
    most = 1.1 * OBJECTS / 1000 + START_PAGES
    assert OBJECTS / 1000 < store.reset()["LIST"] <= most
    assert daemon.cli("switch", "v23").code == 0
    assert OBJECTS / 1000 < store.reset()["LIST"] <= most
    model = daemon.status()["models"]["cache_hub"]
    assert (model["current"], model["verified"], model["warmed_percent"]) == ("v23", True, 100)
    assert (daemon.mount / "cache_hub_v23/models/d00000/f0000000.bin").stat().st_size == 1024
    rows = {row["version"]: row for row in daemon.cli("versions", "-o", "json").json["versions"]}
    assert [(row["files"], row["complete"]) for row in rows.values()] == [(OBJECTS + 1, True)] * 2
    assert store.reset()["LIST"] <= 2 * most


@pytest.mark.thorough
def test_the_daemon_keeps_no_list_of_them(make_daemon: Callable[..., Daemon]) -> None:
    with ManyObjects({"v22": 10, "v23": 100_000}) as store:
        daemon = daemon_on(make_daemon, store)
        daemon.start_ready()
        process = psutil.Process(daemon.status()["pid"])
        before = process.memory_full_info().uss
        assert daemon.cli("switch", "v23").code == 0
        assert process.memory_full_info().uss - before < 10 * MIB
