"""A bucket that goes away, hangs, refuses or takes its time while the model is in use: a report, and no more.

What is cached is read all the while, nothing is restarted, and all is well again by itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.faults import ANY, EXPIRED, NO_KEY, SKEWED, SLOW_DOWN, Failure
from tests.support.onlooker import Onlooker, cached_bytes
from tests.support.proxy import Proxy
from tests.support.read import Reader, digests, read_like
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

BACK_S = 30.0
"""Seconds to Healthy, generous: measured 0.1 to 1.5, with 5 s a request 5.2."""
CLEANED_S = 15.0
"""A new rclone cleans its cache after a minute, and the tests have read from it for some seconds before."""
MINUTE = pytest.param(60.0, marks=[pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)], id="minute")


@dataclass
class Served:
    """A daemon whose model is in the cache, and what its files hold."""

    daemon: Daemon
    proxy: Proxy
    store: RcloneS3
    model: dict[str, str]

    @property
    def version(self) -> Path:
        return self.daemon.mount / "cache_hub_v23"

    def until_remembered(self) -> None:
        """rclone notes what it holds of a file when it is closed."""
        meta = self.daemon.root / "cache" / "vfsMeta"
        files = [path for path in meta.rglob("*") if path.is_file()]
        assert len(files) >= len(self.model)
        until(lambda: all(json.loads(path.read_text())["Rs"] for path in files), 60, "all to be noted", every_s=0.2)

    def read_cached(self, for_s: float) -> None:
        """Reads the whole model repeatedly; every byte is there at once."""
        end = time.monotonic() + for_s

        def read_until_the_end() -> bool:
            assert read_like(self.model, self.version, 20) == self.model
            return time.monotonic() >= end

        until(read_until_the_end, for_s + 20, "the time to be over", every_s=0.5)

    def until_healthy(self, onlooker: Onlooker) -> None:
        now = time.monotonic()
        until(lambda: any(each.health == "Healthy" for each in onlooker.since(now)), BACK_S, "Healthy")


def reported(onlooker: Onlooker) -> list[str]:
    """Every reason but that requests take long, which they do on a machine that is busy enough."""
    return [code for code in onlooker.codes() if code != "bucket-slow"]


@pytest.fixture
def serve(make_daemon: Callable[..., Daemon], store: RcloneS3, proxy: Proxy) -> Callable[..., Served]:
    def start(backend: str = "2s") -> Served:
        daemon = make_daemon(endpoint=proxy.endpoint)
        daemon.config["mounts"]["storage"]["health"] = {"backend": backend}
        daemon.start_ready()
        served = Served(daemon, proxy, store, digests(store.directory / hub.BUCKET / "cache_hub_v23"))
        served.read_cached(0)
        return served

    return start


@pytest.fixture
def keep() -> Iterator[ExitStack]:
    """What ends with the test before the daemon does."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.parametrize("for_s", [pytest.param(12.0, id="short"), MINUTE])
def test_the_bucket_is_away(serve: Callable[..., Served], for_s: float) -> None:
    served = serve("15s" if for_s >= 60 else "2s")
    with Onlooker(served.daemon) as onlooker:
        served.proxy.down()
        down = time.monotonic()
        until_explained(served.daemon, "bucket-unreachable")
        served.read_cached(for_s)
        served.proxy.up()
        up = time.monotonic()
        served.until_healthy(onlooker)
    onlooker.assert_steady()
    onlooker.assert_kept()
    assert reported(onlooker) == ["bucket-unreachable"]
    assert onlooker.healths() == ["Healthy", "Degraded", "Healthy"]
    print(onlooker.measured(down, up))


@pytest.mark.shown_by("goes-on")
@pytest.mark.parametrize("way", ["goes-on", "dropped", "listing"])
@pytest.mark.parametrize("for_s", [pytest.param(15.0, id="short"), MINUTE])
def test_the_bucket_is_a_black_hole(serve: Callable[..., Served], keep: ExitStack, way: str, for_s: float) -> None:
    """With readers stuck on files that are not cached; what hung goes on after it, or is dropped.

    What is cached can be read meanwhile, with two exceptions that are rclone's (measured): while somebody waits for a
    listing, it soon lets nobody through the directories above; and once a minute (`--vfs-cache-poll-interval`) it
    cleans its cache, locks it, and waits for the files that others are stuck on. mountd still answers
    and nothing adds up.
    """
    served = serve("15s" if for_s >= 60 else "2s")
    daemon, other = served.daemon, served.daemon.mount / "cache_hub_v22"
    source = digests(served.store.directory / hub.BUCKET / "cache_hub_v22")
    uncached = ["models/gpt.pth", "models/gpt.pth", "models/s2mel.pth"]
    if way == "listing":
        uncached.append("models/hf_cache/campplus_cn_common.bin")
    assert read_like({hub.UNUSED: ""}, other)[hub.UNUSED] == source[hub.UNUSED]  # now their directory is listed
    with Onlooker(daemon) as onlooker:
        began = time.monotonic()
        served.proxy.faults.black_hole = True
        readers = [keep.enter_context(Reader([(other / name, 0, -1)])) for name in uncached]
        keep.callback(served.proxy.faults.clear)  # first of all, or nobody could end them
        until_explained(daemon, "bucket-silent", "bucket-slow")
        if way != "listing":
            served.read_cached(CLEANED_S)
        until(lambda: time.monotonic() > began + for_s, 2 * for_s, "the time to pass", every_s=0.2)
        assert not any(reader.done for reader in readers)
        if way == "dropped":
            served.proxy.down()
            served.proxy.up()
        served.proxy.faults.clear()
        lifted = time.monotonic()
        served.until_healthy(onlooker)
        for name, reader in zip(uncached, readers, strict=True):
            assert reader.result(60) in ([source[name]], ["EIO"])
        assert read_like(source, other, 60) == source
        served.read_cached(0)
    onlooker.assert_steady()
    onlooker.assert_kept()
    assert set(onlooker.codes()) <= {"bucket-slow", "bucket-silent", "bucket-unreachable"}
    assert onlooker.healths() == ["Healthy", "Degraded", "Healthy"]
    onlooker.assert_nothing_adds_up(1)  # the first look at the root starts its worker
    print(onlooker.measured(began, lifted))


PARTS = {
    "HEAD-404": {"HEAD": NO_KEY},
    "HEAD-403": {"HEAD": EXPIRED},
    "LIST-503": {"LIST": SLOW_DOWN},
    "GET-503": {"GET": SLOW_DOWN},
    "all-but-GET": {"HEAD": SLOW_DOWN, "LIST": SLOW_DOWN},
    "all-but-LIST": {"HEAD": SLOW_DOWN, "GET": SLOW_DOWN},
}


@pytest.mark.shown_by("GET-503")
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize(
    "fresh", [pytest.param(False, id="used"), pytest.param(True, id="restarted", marks=pytest.mark.long)]
)
@pytest.mark.thorough
def test_a_part_of_the_bucket_fails(serve: Callable[..., Served], part: str, fresh: bool) -> None:
    """No cached data is lost, also in an rclone that has just begun.

    But for a file that nobody has opened since it began it needs one HEAD, and without it forgets what it has.
    """
    served = serve()
    if fresh:
        served.until_remembered()
        assert served.daemon.cli("restart", "storage").code == 0
        served.daemon.until_ready()
        del served.model[hub.UNUSED]
    cached = cached_bytes(served.daemon.root / "cache")
    with Onlooker(served.daemon) as onlooker:
        served.proxy.faults.fail = PARTS[part]
        if "LIST" in PARTS[part]:
            until_explained(served.daemon, "bucket-slow")
        served.read_cached(6)
        served.proxy.faults.clear()
        served.until_healthy(onlooker)
        served.read_cached(0)
    onlooker.assert_steady()
    onlooker.assert_kept()
    assert cached_bytes(served.daemon.root / "cache") >= cached


@pytest.mark.shown_by("expired")
@pytest.mark.parametrize(
    ("failure", "code"), [(EXPIRED, "credentials-expired"), (SKEWED, "clock-skew")], ids=["expired", "skewed"]
)
def test_the_bucket_says_no(serve: Callable[..., Served], failure: Failure, code: str) -> None:
    served = serve()
    with Onlooker(served.daemon) as onlooker:
        began = time.monotonic()
        served.proxy.faults.fail = {ANY: failure}
        served.daemon.until_reason(code, BACK_S)
        until_explained(served.daemon, code)
        served.read_cached(8)
        served.proxy.faults.clear()
        lifted = time.monotonic()
        served.until_healthy(onlooker)
    onlooker.assert_steady()
    onlooker.assert_kept()
    assert reported(onlooker) == [code]
    assert onlooker.healths() == ["Healthy", "Degraded", "Healthy"]
    print(onlooker.measured(began, lifted))


@pytest.mark.thorough
def test_each_request_takes_5_s(serve: Callable[..., Served]) -> None:
    served = serve()
    with Onlooker(served.daemon) as onlooker:
        began = time.monotonic()
        served.proxy.latency_s = 5.0
        until_explained(served.daemon, "bucket-slow", timeout_s=2 * BACK_S)
        served.read_cached(12)
        served.proxy.faults.clear()
        lifted = time.monotonic()
        served.until_healthy(onlooker)
    onlooker.assert_steady()
    onlooker.assert_kept()
    assert onlooker.codes() == ["bucket-slow"]
    assert onlooker.healths() == ["Healthy", "Degraded", "Healthy"]
    print(onlooker.measured(began, lifted))


@pytest.mark.thorough
def test_the_bucket_is_deleted_and_made_again(serve: Callable[..., Served]) -> None:
    served = serve()
    bucket = served.store.directory / hub.BUCKET
    aside = served.store.directory.with_name("aside")
    with Onlooker(served.daemon) as onlooker:
        began = time.monotonic()
        bucket.rename(aside)
        assert served.daemon.until_reason("bucket-missing", BACK_S)["hint"]
        served.read_cached(8)
        aside.rename(bucket)
        back = time.monotonic()
        served.until_healthy(onlooker)
        served.read_cached(0)
    onlooker.assert_steady()
    onlooker.assert_kept()
    assert reported(onlooker) == ["bucket-missing"]
    print(onlooker.measured(began, back))
