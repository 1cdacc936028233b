"""The bucket probe, over the real client against a stand-in that answers as rclone does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mountd.errors import RemoteError
from mountd.mount import bucket as bucket_module
from mountd.mount import health
from mountd.mount.bucket import WITNESS_BYTES, WITNESS_ENTRIES, BucketProbe, Witness, pause_s
from mountd.mount.disk import MountDisk
from mountd.mount.engine import Engine
from mountd.rclone import rc
from mountd.rclone.command import RcAddress
from mountd.rclone.rc import NONEXISTENT_DIR, RcClient
from mountd.status.snapshot import MountStatus
from tests.unit.test_rclone_rc import Fake, fake

__all__ = ["fake", "patient"]

BUCKETS = {"Features": {"BucketBased": True, "About": False}}
EMPTY = {"operations/fsinfo": BUCKETS, "operations/list": {"list": []}, "operations/stat": {"item": None}}
ENTRY = {"Path": "a", "Name": "a", "Size": 3, "ModTime": "", "IsDir": False}
HELD = {"operations/list": {"list": [ENTRY]}}
PAGE = {"operations/stat": {"item": ENTRY}}
NO_ROOM = (500, {"error": "error in ListJSON: dial tcp: connection refused", "status": 500})


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in may get no processor for a while: it is late only where a test says so."""
    for module, name in ((bucket_module, "SLOW_S"), (health, "SLOW_S"), (bucket_module, "TIMEOUT_S"), (rc, "NOOP_S")):
        monkeypatch.setattr(module, name, 60.0)
    monkeypatch.setattr(BucketProbe.ask, "__defaults__", (60.0,))
    monkeypatch.setattr(BucketProbe.rclone_answers, "__defaults__", (60.0,))


def bucket_of(client: Any, remote: str = "s:bkt/pre", witness: Witness | None = None) -> BucketProbe:
    engine = SimpleNamespace(rc=client, mount=SimpleNamespace(remote=remote))
    bucket = BucketProbe(cast(Engine, engine), lambda change: None)
    bucket.witness = witness
    return bucket


@pytest.mark.parametrize(
    ("took_s", "is_slow", "waits_s"),
    [(0.1, False, 15.0), (9.0, False, 15.0), (4.0, True, 10.0), (12.0, True, 2.0), (29.0, True, 1.0)],
)
def test_a_slow_bucket_is_asked_again_sooner(took_s: float, is_slow: bool, waits_s: float) -> None:
    assert pause_s(15.0, took_s=took_s, is_slow=is_slow) == waits_s


async def test_one_request_that_holds_nothing(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY
    bucket = bucket_of(client)
    assert bucket.is_asked_for_room, "as long as it is not known"
    assert await bucket.ask()
    asked = [method for method, _ in rclone.asked]
    assert asked == ["operations/fsinfo", "operations/list", "operations/stat"], "once, whether it is a store at all"
    rclone.asked.clear()
    assert await bucket.ask()
    assert [method for method, _ in rclone.asked] == ["operations/list"]
    assert rclone.asked[-1][1]["fs"] == f"s:bkt/pre/{NONEXISTENT_DIR}/"
    assert (sum(bucket._meters.bucket_probe.counts), bucket._meters.failed_bucket_probes) == (2, 0)
    rclone.answers |= {"operations/list": NO_ROOM}
    assert not await bucket.ask()
    assert (sum(bucket._meters.bucket_probe.counts), bucket._meters.failed_bucket_probes) == (3, 1)
    assert not bucket.is_asked_for_room


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
    assert await bucket_of(client, remote).ask()
    assert [params["remote"] for method, params in rclone.asked if method == "operations/list"] == [remote[2:]]


async def test_an_outage_is_asked_once(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= {"operations/fsinfo": BUCKETS, "operations/list": NO_ROOM}
    bucket = bucket_of(client)
    assert not await bucket.ask()
    assert code_of(bucket) == "bucket-unreachable"
    assert len(rclone.asked) == 2
    assert not await bucket.could_start()


async def test_an_answer_outruns_the_news_that_there_is_none(fake: Fake) -> None:
    """It came while rclone was asked whether it is responsive."""
    rclone, client = fake
    rclone.answers |= EMPTY
    bucket = bucket_of(client)
    rclone.held["rc/noop"] = asyncio.Event()
    missing = asyncio.create_task(bucket.miss())
    while not rclone.asked:
        await asyncio.sleep(0.001)
    assert await bucket.ask()
    rclone.held["rc/noop"].set()
    await missing
    assert code_of(bucket) == ""
    await bucket.miss()
    assert code_of(bucket) == "bucket-slow"


def code_of(bucket: BucketProbe) -> str:
    return bucket.status.reason.code if bucket.status.reason else ""


async def test_what_has_whatever_it_is_asked_for_is_no_store(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY | PAGE
    bucket = bucket_of(client)
    assert not await bucket.ask()
    assert code_of(bucket) == "bucket-invalid"
    rclone.answers |= EMPTY
    assert await bucket.ask()


@pytest.mark.parametrize("kept", [True, False])
async def test_a_bucket_that_held_something_is_not_believed_to_be_empty(fake: Fake, kept: bool) -> None:
    """Whoever writes to it may also empty it."""
    rclone, client = fake
    rclone.answers |= EMPTY | HELD
    bucket = bucket_of(client)
    bucket.witness = Witness("s:bkt/pre", "v1", kept)
    assert await bucket.ask()
    assert [params["fs"] for method, params in rclone.asked if method == "operations/list"] == ["s:bkt/pre/v1/"]
    rclone.answers |= EMPTY
    assert await bucket.ask() is not kept
    assert code_of(bucket) == ("bucket-empty" if kept else "")
    rclone.answers |= PAGE
    bucket.witness = Witness("s:bkt/pre", "v1", kept)
    assert not await bucket.ask()
    assert code_of(bucket) == "bucket-invalid"
    rclone.answers |= EMPTY | HELD
    assert await bucket.ask()


async def test_a_witness_that_was_deleted_from_a_bucket_that_lives_is_forgotten(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY
    bucket = bucket_of(client, witness=Witness("s:bkt/pre", "v1", kept=True))

    async def answer(fs: str, *_: object, **__: object) -> list[object]:
        return [ENTRY] if fs == "s:" else []

    monkeypatch.setattr(client, "list", answer)
    assert await bucket.ask()
    assert bucket.witness is None


async def test_a_witness_stays_small_and_of_its_remote(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY | {"operations/list": {"list": [ENTRY] * (WITNESS_ENTRIES + 1)}}
    bucket = bucket_of(client, witness=Witness("s:bkt/pre", "v1", kept=True))
    assert (await bucket.ask(), bucket.witness) == (True, None)
    bucket.witness = small = Witness("s:bkt/pre", "v1", kept=True)
    bucket.begin()
    assert bucket.witness == small
    moved = bucket_of(client, "s:other", small)
    moved.begin()
    assert moved.witness is None


async def test_a_redirection_to_another_region_is_reported(fake: Fake) -> None:
    rclone, client = fake
    moved = "error in ListJSON: … StatusCode: 301, …, api error PermanentRedirect: …"
    rclone.answers |= EMPTY | {"operations/list": (500, {"error": moved})}
    bucket = bucket_of(client)
    assert not await bucket.ask()
    assert code_of(bucket) == "bucket-error"


@pytest.mark.parametrize("blames_witness", [True, False])
async def test_a_witness_that_takes_too_long_is_given_up_and_one_of_a_silent_bucket_is_not(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, blames_witness: bool
) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY | HELD
    bucket = bucket_of(client, witness=Witness("s:bkt/pre", "v1", kept=True))
    assert await bucket.ask()
    now = 0.0
    monkeypatch.setattr("mountd.mount.bucket.time", SimpleNamespace(monotonic=lambda: now))
    answers = client.list
    silent = {"v1"} if blames_witness else {"v1", NONEXISTENT_DIR}

    async def answer(fs: str, *given: Any, **named: Any) -> Any:
        nonlocal now
        if any(directory in fs for directory in silent):
            now += named["timeout_s"]
            raise RemoteError("the store has not answered", code="bucket-slow")
        return await answers(fs, *given, **named)

    monkeypatch.setattr(client, "list", answer)
    asked = [await bucket.ask() for _ in range(3)]
    assert asked == ([False, True, False] if blames_witness else [False] * 3)
    silent.clear()
    assert await bucket.ask()
    assert (bucket.witness is None) is blames_witness
    assert await bucket.ask()
    assert (bucket.witness is None) is blames_witness


async def test_requests_that_are_late_at_the_same_time_do_not_blame_the_witness(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY | HELD
    bucket = bucket_of(client, witness=Witness("s:bkt/pre", "v1", kept=True))
    now, waiting, late = 0.0, 0, asyncio.Event()
    monkeypatch.setattr("mountd.mount.bucket.time", SimpleNamespace(monotonic=lambda: now))
    answers = client.list

    async def answer(fs: str, *given: Any, **named: Any) -> Any:
        nonlocal now, waiting
        if "v1" not in fs:
            return await answers(fs, *given, **named)
        waiting += 1
        if waiting == 2:
            now += named["timeout_s"]
            late.set()
        await late.wait()
        raise RemoteError("the store has not answered", code="bucket-slow")

    monkeypatch.setattr(client, "list", answer)
    assert not any(await asyncio.gather(bucket.ask(), bucket.ask()))
    assert bucket.witness is not None


async def test_a_witness_whose_listing_is_too_large_to_be_asked_often_is_given_up(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY | {"operations/list": {"list": [ENTRY | {"Path": "a" * WITNESS_BYTES}]}}
    bucket = bucket_of(client, witness=Witness("s:bkt/pre", "v1", kept=True))
    assert await bucket.ask()
    assert bucket.witness is None


async def test_what_answers_in_the_stores_place_confirms_nothing(fake: Fake) -> None:
    """Also when it came after the store had been looked at."""
    rclone, client = fake
    rclone.answers |= EMPTY
    bucket = bucket_of(client)
    assert await bucket.ask()
    await bucket.confirm()
    rclone.answers |= PAGE
    with pytest.raises(RemoteError) as caught:
        await bucket.confirm()
    assert caught.value.code == "bucket-invalid"


async def test_nothing_is_there_only_where_the_store_says_so(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY
    bucket = bucket_of(client)
    disk = MountDisk(
        "/mnt",
        files=cast(Any, None),
        engine=cast(Engine, SimpleNamespace(rc=client, mount=SimpleNamespace(remote="s:bkt/pre", options={}))),
        cache=cast(Any, None),
        index=cast(Any, None),
        bucket=bucket,
    )
    assert await disk.list_bucket("v1") == []
    rclone.answers |= PAGE
    with pytest.raises(RemoteError) as caught:
        await disk.list_bucket("v1")
    assert caught.value.code == "bucket-invalid"


async def test_what_is_known_of_a_store_is_asked_again_for_a_new_rclone(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY
    bucket = bucket_of(client)
    await bucket.ask()
    rclone.asked.clear()
    bucket.begin()
    assert bucket.is_asked_for_room
    await bucket.ask()
    asked = [method for method, _ in rclone.asked]
    assert asked == ["operations/fsinfo", "operations/list", "operations/stat"]


async def test_where_only_the_root_may_be_listed_that_is_asked_from_then_on(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY
    answers, asked = client.list, list[str]()
    refused = RemoteError("no", code="access-denied")

    async def answer(fs: str, *given: Any, **named: Any) -> Any:
        asked.append(fs)
        if NONEXISTENT_DIR in fs:
            raise refused
        return await answers(fs, *given, **named)

    monkeypatch.setattr(client, "list", answer)
    bucket = bucket_of(client)
    assert [await bucket.ask() for _ in range(2)] == [True, True]
    assert [NONEXISTENT_DIR in fs for fs in asked] == [True, False, False]
    bucket = bucket_of(client)
    refused = RemoteError("away", code="bucket-unreachable")
    assert not await bucket.ask()
    assert len(asked) == 4, "an outage says nothing of the root"


@pytest.mark.parametrize(("code", "usable"), [("access-denied", True), ("bucket-unreachable", False)])
async def test_who_may_not_ask_for_one_object_may_still_have_a_store(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, code: str, usable: bool
) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY

    async def refuse(*_: object) -> bool:
        raise RemoteError("no", code=code)

    monkeypatch.setattr(client, "invents_objects", refuse)
    assert await bucket_of(client).ask() is usable


async def test_an_rclone_that_does_not_answer_says_nothing_of_the_bucket(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY
    bucket = bucket_of(client)
    assert await bucket.ask()
    await client.close()
    silent = RcClient(RcAddress("nobody", "answers", socket=Path("/nowhere/rc")))
    cast(Any, bucket)._engine.rc = silent
    assert not await bucket.ask()
    assert code_of(bucket) == ""
    assert not await bucket.rclone_answers()
    await bucket.miss()
    assert code_of(bucket) == "", "rclone itself is silent"
    await silent.close()


async def test_when_a_new_rclone_could_start(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY
    bucket = bucket_of(client)
    assert not await bucket.could_start(), "nothing is known yet"
    assert rclone.asked == []
    assert await bucket.ask()
    assert await bucket.could_start()
    rclone.answers |= {"operations/list": (500, {"error": "AccessDenied: no"})}
    assert await bucket.could_start(), "one with other credentials"
    assert bucket.is_refusing
    rclone.answers |= {"operations/list": NO_ROOM}
    assert not await bucket.could_start()


async def test_a_request_that_is_late_is_shown_before_it_ends(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mountd.mount.bucket.SLOW_S", 0.001)
    rclone, client = fake
    rclone.answers |= EMPTY
    rclone.held["operations/list"] = asyncio.Event()
    shown: list[str] = []
    bucket = bucket_of(client)

    def publish(change: Callable[[MountStatus], MountStatus]) -> None:
        reason = change(MountStatus("/m", "s:b")).backend.reason
        shown.append(reason.code if reason else "")
        rclone.held["operations/list"].set()

    cast(Any, bucket)._publish = publish
    assert await bucket.probe(60.0)
    assert shown == ["bucket-slow", ""]
    assert bucket.answers.bad_at > 0
    assert bucket.answers.quick_at > 0
