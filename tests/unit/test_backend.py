"""The question to the bucket, over the real client against a stand-in that answers as rclone does."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mountd.mount.backend import Backend
from mountd.mount.engine import Engine
from mountd.rclone.rc import NOBODYS
from tests.unit.test_rclone_rc import Fake, fake

__all__ = ["fake"]

BUCKETS = {"Features": {"BucketBased": True, "About": False}}
NO_ROOM = (500, {"error": "error in ListJSON: dial tcp: connection refused", "status": 500})


def backend_of(client: Any, remote: str = "s:bkt/pre") -> Backend:
    return Backend(remote, cast(Engine, SimpleNamespace(rc=client)))


async def test_one_request_that_holds_nothing(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= {"operations/fsinfo": BUCKETS, "operations/list": {"list": []}}
    backend = backend_of(client)
    assert backend.is_asked_for_room, "as long as it is not known"
    assert await backend.ask()
    assert await backend.ask()
    assert [method for method, _ in rclone.asked] == ["operations/fsinfo", "operations/list", "operations/list"]
    assert rclone.asked[-1][1]["remote"] == f"bkt/pre/{NOBODYS}"
    assert not backend.is_asked_for_room


@pytest.mark.parametrize(
    ("remote", "abilities"),
    [
        ("s:bkt", {"Features": {"BucketBased": False, "About": True}}),
        ("s:", BUCKETS),
        ("s:bkt", (500, {"error": "rclone does not know", "status": 500})),
    ],
)
async def test_the_root_where_it_must_be(fake: Fake, remote: str, abilities: Any) -> None:
    rclone, client = fake
    rclone.answers |= {"operations/fsinfo": abilities, "operations/list": {"list": []}}
    assert await backend_of(client, remote).ask()
    assert [params["remote"] for method, params in rclone.asked if method == "operations/list"] == [remote[2:]]


async def test_an_outage_is_asked_once(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= {"operations/fsinfo": BUCKETS, "operations/list": NO_ROOM}
    backend = backend_of(client)
    assert not await backend.ask()
    assert backend.status.reason is not None
    assert backend.status.reason.code == "bucket-unreachable"
    assert len(rclone.asked) == 2
    assert not backend.could_begin


async def test_an_answer_outruns_the_news_that_there_is_none(fake: Fake) -> None:
    """It came while rclone was asked whether it is awake."""
    rclone, client = fake
    rclone.answers |= {"operations/fsinfo": BUCKETS, "operations/list": {"list": []}}
    backend = backend_of(client)
    rclone.held["rc/noop"] = asyncio.Event()
    missing = asyncio.create_task(backend.miss())
    while not rclone.asked:
        await asyncio.sleep(0.001)
    assert await backend.ask()
    rclone.held["rc/noop"].set()
    await missing
    assert backend.status.reason is None
    await backend.miss()
    assert backend.status.reason is not None
    assert backend.status.reason.code == "bucket-slow"
