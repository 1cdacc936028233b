"""Results, while mountd is killed and the bucket goes away: none is lost, none is doubled, each is announced."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.support.daemon import Daemon
from tests.support.faults import Failure
from tests.support.outbox import SOON_S, Results, making
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse


@pytest.fixture
def make(store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Callable[..., Results]:
    return making(store, proxy, make_daemon)


@pytest.mark.parametrize(
    ("count", "kills"),
    [
        pytest.param(40, 3, id="40 files"),
        pytest.param(500, 10, marks=[pytest.mark.thorough, pytest.mark.slow, pytest.mark.timeout(900)], id="500 files"),
    ],
)
def test_no_result_is_lost_or_doubled(make: Callable[..., Results], count: int, kills: int) -> None:
    results = make()
    files: dict[str, str] = {}
    stop = threading.Event()

    def write() -> None:
        """An app that goes on while mountd does not."""
        for number in range(count):
            files[f"{number % 7}/{number:03}.wav"] = results.write(f"{number % 7}/{number:03}.wav", size=50_000)
            if stop.wait(0.02):
                return

    results.daemon.start_ready()
    # So that a kill meets something under way.
    results.proxy.latency_s = 0.05
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(kills):
            # Each kill at another point of the work.
            least = (number + 1) * count // (kills + 2)
            until(lambda least=least: len(results.events()) >= least, SOON_S, f"{least} results announced")  # type: ignore[misc]
            is_outage = number in (0, kills - 1)
            if is_outage:
                results.proxy.down()
                results.daemon.until_reason("outbox-waiting")
            results.kill(children=number % 2 == 0)
            results.daemon.start()
            if is_outage:
                results.daemon.until_reason("outbox-waiting")
                results.proxy.up()
        writer.join(SOON_S)
    finally:
        stop.set()
        writer.join()
    assert len(files) == count
    started = time.monotonic()
    results.until_stored(files, 120.0)
    print(f"all there {time.monotonic() - started:.1f} s after the last kill")
    events = results.events()
    announced = {(each["key"].partition("/")[2], each["digest"]) for each in events}
    assert announced == {(name, f"sha256:{digest}") for name, digest in files.items()}
    assert len(events) == count  # one each
    assert len({each["id"] for each in events}) == count
    rows = results.journal("SELECT state, event FROM outbox")
    assert {state for state, _ in rows} == {"uploaded"}
    assert {event for _, event in rows} == {each["id"] for each in events}
    results.until_status(pending=0, failed=0, uploaded=count, health="Healthy")


@pytest.mark.thorough
def test_what_the_bucket_has_and_does_not_show_is_not_sent_again_and_not_lost(make: Callable[..., Results]) -> None:
    """Keys that may write and not look: then the app removes the file, and mountd begins again."""
    results = make()
    results.daemon.start_ready()
    results.proxy.faults.fail = {"HEAD": Failure(403, "AccessDenied")}
    files = {"a.wav": results.write("a.wav")}
    until(lambda: results.stored() == files, SOON_S, "the object")
    until(lambda: results.journal("SELECT 1 FROM outbox WHERE tries > 1"), SOON_S, "two tries")
    assert results.proxy.counts.requests["PUT"] == 1
    results.kill()
    (results.directory / "a.wav").unlink()
    results.daemon.start()
    results.daemon.until_reason("outbox-waiting")
    until(lambda: results.journal("SELECT 1 FROM outbox WHERE tries > 3"), SOON_S, "more tries")
    assert results.events() == results.events("result-lost") == []
    results.proxy.faults.clear()
    results.until_stored(files)
    assert results.proxy.counts.requests["PUT"] == 1
    assert results.announced() == {("a.wav", f"sha256:{files['a.wav']}"): 1}
    assert results.events("result-lost") == []
