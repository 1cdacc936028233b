"""The client against a stand-in that answers as rclone does, on a Unix socket and on a port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from mountd.errors import RemoteError, Unavailable
from mountd.rclone import rc
from mountd.rclone.command import RcAddress
from mountd.rclone.keys import BucketEntry
from mountd.rclone.rc import NONEXISTENT_DIR, RcClient, RcTimeout, StoreFeatures, Upload, names_bucket
from tests.support.patient_rc import PatientRcClient

Handler = Callable[[str, dict[str, Any]], Awaitable[web.StreamResponse]]


class FakeRclone:
    """Answers each method from `answers` (value, or status and value) and remembers what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"rc/noop": {}}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.authorization = ""
        self.forever = asyncio.Event()
        self.held: dict[str, asyncio.Event] = {}
        """methods that answer when it is set"""
        self.objects: dict[str, tuple[int, bytes]] = {}
        """what a GET of a path, as it was written, gives: status and body"""
        self.ranges: list[str] = []
        """that these GETs asked for"""
        self.connections: list[object] = []
        """that of each call"""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.authorization = request.headers.get("Authorization", "")
        self.connections.append(request.transport)
        method = request.match_info["method"]
        self.asked.append((method, await request.json()))
        answer = self.answers[method]
        if method in self.held:
            await self.held[method].wait()
        if answer is None:
            await self.forever.wait()
        status, value = answer if isinstance(answer, tuple) else (200, answer)
        text = value if isinstance(value, str) else json.dumps(value)
        return web.Response(status=status, text=text)  # text/plain

    async def give(self, request: web.Request) -> web.StreamResponse:
        self.ranges.append(request.headers.get("Range", ""))
        status, body = self.objects.get(request.raw_path, (404, b"Not Found"))
        return web.Response(status=status, body=body)


@pytest_asyncio.fixture
async def fake(tmp_path: Path) -> AsyncIterator[tuple[FakeRclone, RcClient]]:
    rclone = FakeRclone()
    app = web.Application()
    app.router.add_post("/{method:.*}", rclone.handle)
    app.router.add_get("/{path:.*}", rclone.give)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    socket = tmp_path / "rc"
    await web.UnixSite(runner, str(socket)).start()
    client = PatientRcClient(RcAddress("me", "pw", socket=socket), rclone.answers, rclone.held)
    yield rclone, client
    await client.close()
    rclone.forever.set()
    await runner.cleanup()


Fake = tuple[FakeRclone, RcClient]


async def test_calls_carry_the_credentials(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers["rc/noop"] = {}
    await client.call("rc/noop")
    assert rclone.authorization == "Basic bWU6cHc="


async def test_refresh_checks_every_value_and_says_true_as_a_word(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers["vfs/refresh"] = {"result": {"v23": "OK"}}
    await client.vfs_refresh("v23", recursive=True)
    assert rclone.asked[-1] == ("vfs/refresh", {"dir": "v23", "recursive": "true"})
    rclone.answers["vfs/refresh"] = {"result": {"nope": "file does not exist"}}
    with pytest.raises(RemoteError, match="nope") as caught:
        await client.vfs_refresh("nope")
    assert caught.value.code == "directory-missing"
    rclone.answers["vfs/refresh"] = {"result": {}}
    with pytest.raises(RemoteError):
        await client.vfs_refresh()


async def test_the_upload_queue(fake: Fake) -> None:
    rclone, client = fake
    entry = {"name": "a.bin", "id": 1, "size": 5, "expiry": -0.8, "tries": 3, "delay": 4, "uploading": True}
    rclone.answers["vfs/queue"] = {"queue": [entry]}
    assert await client.vfs_queue() == [Upload(1, "a.bin", -0.8, True)]
    rclone.answers["vfs/queue-set-expiry"] = {}
    await client.vfs_upload_now(1)
    assert rclone.asked[-1] == ("vfs/queue-set-expiry", {"id": 1, "expiry": -1e9})
    rclone.answers["vfs/queue-set-expiry"] = (500, {"error": "id not found in queue", "status": 500})
    with pytest.raises(RemoteError):
        await client.vfs_upload_now(1)
    rclone.answers["vfs/queue-set-expiry"] = {}
    await client.vfs_upload_in(1, 60.0)
    assert rclone.asked[-1] == ("vfs/queue-set-expiry", {"id": 1, "expiry": 60.0})


async def test_a_listing(fake: Fake) -> None:
    rclone, client = fake
    entry = {"Path": "v1/a", "Name": "a", "Size": 3, "ModTime": "", "IsDir": False, "Tier": "STANDARD"}
    rclone.answers["operations/list"] = {"list": [entry]}
    assert await client.list("cs:bkt/pre", recursive=True) == [BucketEntry("v1/a", "a", 3, False)]
    asked = rclone.asked[-1][1]
    assert (asked["fs"], asked["remote"]) == ("cs:bkt/pre/", "")
    assert asked["opt"]["recurse"] is True
    assert "_config" not in asked


@pytest.mark.parametrize(
    ("directory", "fs", "remote"),
    [("", "cs:", "bkt/pre"), ("v1", "cs:bkt/pre/v1/", ""), ("v1/x", "cs:bkt/pre/v1/x/", "")],
)
async def test_a_probe_has_an_fs_of_its_own(fake: Fake, directory: str, fs: str, remote: str) -> None:
    rclone, client = fake
    entry = {"Path": "a", "Name": "a", "Size": 3, "ModTime": "", "IsDir": False}
    rclone.answers["operations/list"] = {"list": [entry]}
    assert await client.probe_bucket("cs:bkt/pre", 5.0, directory) == [BucketEntry("a", "a", 3, False)]
    asked = rclone.asked[-1][1]
    assert (asked["fs"], asked["remote"]) == (fs, remote)
    assert asked["_config"]["LowLevelRetries"] == 1


async def test_a_store_that_hangs_is_not_taken_for_an_rclone_that_hangs(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    rclone, client = fake
    rclone.answers["operations/list"] = None
    with pytest.raises(RemoteError) as caught:
        await client.probe_bucket("cs:bkt", 0.1)
    assert caught.value.code == "bucket-slow"
    monkeypatch.setattr(rc, "NOOP_S", 0.1)
    rclone.answers["rc/noop"] = None
    with pytest.raises(RcTimeout, match="rc/noop"):
        await client.probe_bucket("cs:bkt", 0.1)


@pytest.mark.parametrize(
    ("answer", "kind", "shown"),
    [
        ((401, "401 Unauthorized\n"), Unavailable, r"\(401\)"),
        ((403, {"error": "authentication must be set up on the rc server to use x"}), Unavailable, r"\(403\)"),
        ((200, "<html>"), Unavailable, "JSON"),
        ((200, [1]), Unavailable, "JSON"),
        ((200, "[" * 100_000), Unavailable, "JSON"),
        ((200, "x" * 5000), rc.AnswerTooLarge, "MiB"),
    ],
)
async def test_answers_that_are_none(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, answer: tuple[int, Any], kind: type[Unavailable], shown: str
) -> None:
    rclone, client = fake
    if kind is rc.AnswerTooLarge:
        monkeypatch.setattr(rc, "MAX_ANSWER_BYTES", 1024)
    rclone.answers["core/stats"] = answer
    with pytest.raises(Unavailable, match=shown) as caught:
        await client.core_stats()
    assert type(caught.value) is kind, "and no RemoteError"


async def test_an_error_of_rclone(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers["operations/list"] = (404, {"error": "error in ListJSON: directory not found", "status": 404})
    with pytest.raises(RemoteError) as caught:
        await client.list("cs:nobucket")
    assert caught.value.code == "bucket-missing"
    assert caught.value.hint


@pytest.mark.parametrize("status", [200, 500])
async def test_an_error_inside_the_answer_counts_whatever_the_status(fake: Fake, status: int) -> None:
    rclone, client = fake
    rclone.answers["core/stats"] = (status, {"bytes": 0, "error": "NoSuchBucket: it is gone"})
    rclone.answers["vfs/queue"] = (status, {"queue": [], "error": "no VFS found"})
    rclone.answers["operations/list"] = (status, {"list": [], "error": "AccessDenied: no"})
    rclone.answers["operations/stat"] = (status, {"item": None, "error": "AccessDenied: no"})
    with pytest.raises(RemoteError) as caught:
        await client.core_stats()
    assert caught.value.code == "bucket-missing"
    with pytest.raises(RemoteError):
        await client.vfs_queue()
    with pytest.raises(RemoteError):
        await client.list("cs:bkt")
    with pytest.raises(RemoteError):
        await client.fingerprint("cs:bkt", "a")


async def test_a_refresh_fails_for_each_value_that_is_not_ok(fake: Fake) -> None:
    """rclone answers it with 200 and puts the failure into `result`."""
    rclone, client = fake
    for values, cause in (
        ({"": "invalid argument"}, "/: .*: invalid argument$"),
        ({"a": "OK", "b": "AccessDenied"}, "b: .*: AccessDenied$"),
        ({"a": "ok"}, "a: .*: ok$"),
        ({"a": None}, "a: .*: None$"),
    ):
        rclone.answers["vfs/refresh"] = {"result": values}
        with pytest.raises(RemoteError, match=cause):
            await client.vfs_refresh("a")


async def test_nobody_listens(tmp_path: Path) -> None:
    client = RcClient(RcAddress("me", "pw", socket=tmp_path / "none"))
    with pytest.raises(Unavailable, match="no such file"):
        await client.core_stats()
    await client.close()


async def test_a_listing_is_saved_as_it_comes(fake: Fake, tmp_path: Path) -> None:
    rclone, client = fake
    answer = {"list": [{"Path": f"v1/{number}", "Size": number} for number in range(20_000)]}
    rclone.answers["operations/list"] = answer
    to = tmp_path / "listing"
    size = await client.save_listing("cs:bkt", "v1/", to, exclude=["*.tmp"])
    assert (json.loads(to.read_text()), size) == (answer, to.stat().st_size)
    (method, asked) = rclone.asked[-1]
    assert (method, asked["remote"], asked["opt"]["recurse"]) == ("operations/list", "v1", True)
    assert asked["_filter"] == {"ExcludeRule": ["*.tmp"]}


async def test_a_listing_that_fails_saves_nothing(fake: Fake, tmp_path: Path) -> None:
    rclone, client = fake
    rclone.answers["operations/list"] = (404, {"error": "error in ListJSON: directory not found", "status": 404})
    with pytest.raises(RemoteError) as caught:
        await client.save_listing("cs:bkt", "v1", tmp_path / "listing")
    assert caught.value.code == "bucket-missing"
    rclone.answers["operations/list"] = None
    with pytest.raises(RemoteError) as caught:
        await client.save_listing("cs:bkt", "v1", tmp_path / "listing", timeout_s=0.05)
    assert caught.value.code == "bucket-slow", "rclone itself answers"
    assert not (tmp_path / "listing").exists()


TIERS = {"STANDARD": True, "glacier_ir": True, "GLACIER": False, "INTELLIGENT_TIERING": False, "": False}


@pytest.mark.parametrize("tier", [*TIERS, None])
async def test_whether_an_object_is_read_at_once(fake: Fake, tier: str | None) -> None:
    rclone, client = fake
    metadata = {} if tier is None else {"Metadata": {"tier": tier}}
    for item, is_at_hand in (({"Size": 1, **metadata}, TIERS.get(tier or "", False)), (None, False)):
        rclone.answers["operations/stat"] = {"item": item}
        assert await client.is_at_hand("cs:bkt", "v1/a") is is_at_hand
        assert rclone.asked[-1][1]["remote"] == "v1/a"


@pytest.mark.parametrize(("item", "size"), [({"Size": 7}, 7), ({"Size": 0}, 0), (None, None)])
async def test_how_large_an_object_is(fake: Fake, item: dict[str, int] | None, size: int | None) -> None:
    rclone, client = fake
    rclone.answers["operations/stat"] = {"item": item}
    assert await client.size("cs:bkt", "v1/a") == size
    assert rclone.asked[-1][1]["opt"]["filesOnly"], "no directory is looked for"


# -- what each call asks, and what of its answer counts ---------------------------------------------------------------


async def test_each_call_has_a_connection_of_its_own(fake: Fake) -> None:
    """A kept one would be that of the process before."""
    rclone, client = fake
    for _ in range(2):
        await client.call("rc/noop")
    first, second = rclone.connections
    assert first is not second


async def test_a_listing_costs_no_request_for_each_object_and_leaves_out_what_it_is_told(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers["operations/list"] = {"list": [{"Path": "v1", "Name": "v1", "IsDir": True}]}
    assert await client.list("cs:bkt", "/v1/", exclude=["*.tmp"]) == [BucketEntry("v1", "v1", -1, True)]
    asked = rclone.asked[-1][1]
    assert (asked["remote"], asked["_filter"]) == ("v1", {"ExcludeRule": ["*.tmp"]})
    assert asked["opt"] == {"noModTime": True, "noMimeType": True, "recurse": False}
    await client.list("cs:bkt")
    assert rclone.asked[-1][1]["_filter"] == {"ExcludeRule": []}, "and not what the mount leaves out"


async def test_a_refresh_of_the_root_names_no_directory(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers["vfs/refresh"] = {"result": {"": "OK"}}
    await client.vfs_refresh()
    assert rclone.asked[-1] == ("vfs/refresh", {})


@pytest.mark.parametrize("answer", [{}, {"list": None}, {"list": {}}, {"queue": None}, {"Features": 7}, {"result": []}])
async def test_an_answer_without_what_was_asked_for_is_none(fake: Fake, answer: dict[str, Any]) -> None:
    rclone, client = fake
    for method in ("operations/list", "vfs/queue", "operations/fsinfo", "vfs/refresh"):
        rclone.answers[method] = answer
    for call, kind in (
        (client.list("cs:bkt"), RemoteError),
        (client.vfs_queue(), Unavailable),
        (client.features("cs:bkt", 5.0), Unavailable),
        (client.vfs_refresh("v1"), RemoteError),
    ):
        with pytest.raises(kind):
            await call


async def test_a_refusal_of_the_store_is_none_of_rclones_own_password(fake: Fake) -> None:
    rclone, client = fake
    rclone.answers["core/stats"] = (403, {"error": "AccessDenied: Access Denied", "status": 403})
    with pytest.raises(RemoteError) as caught:
        await client.core_stats()
    assert caught.value.code == "access-denied"
    rclone.answers["core/stats"] = (500, {"status": 500})
    with pytest.raises(RemoteError):
        await client.core_stats()


async def test_a_fingerprint_is_another_one_after_each_change(fake: Fake) -> None:
    rclone, client = fake
    item = {"Path": "v1/a", "Size": 7, "ModTime": "2026-01-01T00:00:00Z", "Hashes": {"md5": "a"}}
    changes: list[dict[str, Any]] = [{}, {"Size": 8}, {"ModTime": "2026-01-02T00:00:00Z"}, {"Hashes": {"md5": "b"}}]
    seen = []
    for change in changes:
        rclone.answers["operations/stat"] = {"item": item | change}
        seen.append(await client.fingerprint("cs:bkt/pre", "v1/a"))
    assert len(set(seen)) == len(changes)
    rclone.answers["operations/stat"] = {"item": item | {"Tier": "STANDARD"}}
    assert await client.fingerprint("cs:bkt/pre", "v1/a") == seen[0]
    asked = rclone.asked[-1][1]
    assert (asked["fs"], asked["remote"], asked["opt"]["showHash"]) == ("cs:bkt/pre/", "v1/a", True)
    rclone.answers["operations/stat"] = {"item": None}
    assert await client.fingerprint("cs:bkt/pre", "v1/a") == ""


async def test_a_byte_is_asked_for_past_the_mount(fake: Fake) -> None:
    rclone, client = fake
    rclone.objects["/%5Bcs%3Abkt%2Fpre%2F%5D/v1/a%20%231.bin"] = (206, b"x")
    await client.read_byte("cs:bkt/pre", "v1/a #1.bin")
    assert (rclone.ranges, rclone.asked) == (["bytes=0-0"], []), "no more than that"


@pytest.mark.parametrize("given", [(404, b"Not Found"), (206, b"")])
async def test_why_no_byte_came_is_asked_for(fake: Fake, given: tuple[int, bytes]) -> None:
    rclone, client = fake
    rclone.objects["/%5Bcs%3Abkt%5D/a"] = given
    rclone.answers["operations/hashsumfile"] = (500, {"error": "InvalidObjectState: archived"})
    with pytest.raises(RemoteError) as caught:
        await client.read_byte("cs:bkt", "a")
    assert caught.value.code == "object-archived"
    asked = rclone.asked[-1][1]
    assert (asked["fs"], asked["remote"], asked["download"]) == ("cs:bkt", "a", True), "else only a checksum is read"


async def test_one_object_is_copied_to_a_local_file(fake: Fake, tmp_path: Path) -> None:
    rclone, client = fake
    rclone.answers["operations/copyfile"] = {}
    await client.copy_file("cs:bkt", "v1/MANIFEST.json", tmp_path / "manifest")
    assert rclone.asked[-1][1] == {
        "srcFs": "cs:bkt",
        "srcRemote": "v1/MANIFEST.json",
        "dstFs": str(tmp_path),
        "dstRemote": "manifest",
    }


@pytest.mark.parametrize("item", [{"Path": "x"}, None])
async def test_what_has_an_object_that_no_bucket_holds_invents_it(fake: Fake, item: object) -> None:
    rclone, client = fake
    rclone.answers["operations/stat"] = {"item": item}
    assert await client.invents_objects("cs:bkt/pre", 5.0) is (item is not None)
    asked = rclone.asked[-1][1]
    assert (asked["fs"], asked["remote"]) == (f"cs:bkt/pre/{NONEXISTENT_DIR}/", NONEXISTENT_DIR)
    assert asked["_config"]["Retries"] == 1, "fails fast"


@pytest.mark.parametrize(
    ("fs", "asked", "has_bucket"),
    [("cs:bkt/pre", "cs:", True), ("cs:bkt", "cs:", True), ("cs:", "cs:", False), ("disk:/data", "disk:/data/", False)],
)
async def test_what_a_kind_of_store_can_do(fake: Fake, fs: str, asked: str, has_bucket: bool) -> None:
    rclone, client = fake
    rclone.answers["operations/fsinfo"] = {"Features": {"BucketBased": True, "About": False, "Copy": True}}
    assert await client.features(fs, 5.0) == StoreFeatures(has_buckets=True, reports_room=False)
    rclone.answers["operations/fsinfo"] = {"Features": {"BucketBased": False, "About": True}}
    assert await client.features(fs, 5.0) == StoreFeatures(has_buckets=False, reports_room=True)
    assert rclone.asked[-1][1]["fs"] == asked
    assert names_bucket(fs) is has_bucket
