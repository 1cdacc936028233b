"""Reads through a mount from a store that stumbles or holds back: every byte is right, what is stuck is replaced."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from mountd.mount.health import STALL_S
from tests.support.daemon import PATIENT_EVIDENCE, Daemon
from tests.support.faults import ANY, DENIED, SLOW_DOWN, Break, Exchange, Failure, Faults
from tests.support.onlooker import Onlooker
from tests.support.proxy import Proxy, Reply
from tests.support.read import Part, Reader
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

FILES, FILE_BYTES = 5, 20_000_000
READERS, PARTS = 4, 10
LOOK_S = 5.0  # how often mountd looks at the readers

FAULTS: dict[str, dict[str, object]] = {
    "slow-down": {"fail": {ANY: Failure(503, "SlowDown", rate=0.1)}},
    "resets": {"reset": {ANY: Break(rate=0.01), "GET": Break(rate=0.05)}},
    "cut-short": {"cut": {"GET": Break(rate=0.05)}},
    "all": {
        "fail": {ANY: Failure(503, "SlowDown", rate=0.05)},
        "reset": {ANY: Break(rate=0.01)},
        "cut": {"GET": Break(rate=0.03)},
    },
}


@pytest.mark.shown_by("all")
@pytest.mark.parametrize("kind", FAULTS)
def test_every_byte_is_that_of_the_source(
    make_daemon: Callable[..., Daemon], store: RcloneS3, proxy: Proxy, kind: str
) -> None:
    """From several processes at several offsets of the same files, with nothing cached, in requests of 1 MiB."""
    bucket = store.directory / "big"
    bucket.mkdir()
    draw = random.Random(kind)
    content = [draw.randbytes(FILE_BYTES) for _ in range(FILES)]
    for number, data in enumerate(content):
        (bucket / f"{number}.bin").write_bytes(data)
    (bucket / "small").write_bytes(b"read first")
    daemon = make_daemon(endpoint=proxy.endpoint)
    daemon.config |= {"models": {}, "apps": {}}
    storage = daemon.config["mounts"]["storage"]
    storage["remote"] = "store:big"
    storage["options"] = {"vfs-read-chunk-size": "1M", "vfs-read-chunk-size-limit": "1M", "vfs-read-ahead": "0"}
    daemon.start_ready()

    with ExitStack() as stack:
        onlooker = stack.enter_context(Onlooker(daemon))
        for name, rules in FAULTS[kind].items():
            setattr(proxy.faults, name, rules)
        proxy.reset_counts()
        plans = [[_part(draw, daemon.mount) for _ in range(PARTS)] for _ in range(READERS)]
        plans.append([(daemon.mount / f"{number}.bin", 0, -1) for number in range(FILES)])  # and all of it
        readers = [stack.enter_context(Reader(plan)) for plan in plans]
        for plan, reader in zip(plans, readers, strict=True):
            assert reader.result(90) == [_digest(content, part) for part in plan]
        faulty = sum(each.status == 503 or each.end is not None for each in proxy.counts.exchanges)
        proxy.faults.clear()
    assert faulty >= 3, "nothing went wrong"
    onlooker.assert_steady()
    print(f"{faulty} of {len(proxy.counts.exchanges)} requests went wrong; {onlooker.codes()}")


def _part(draw: random.Random, mount: Path) -> Part:
    offset = draw.randrange(FILE_BYTES)
    return mount / f"{draw.randrange(FILES)}.bin", offset, draw.randrange(1, min(3_000_000, FILE_BYTES - offset + 1))


def _digest(content: list[bytes], part: Part) -> str:
    path, offset, size = part
    data = content[int(path.stem)]
    return hashlib.sha256(data[offset : len(data) if size < 0 else offset + size]).hexdigest()


# -- a read that gets nothing although the bucket answers -------------------------------------------------------------

READ = 'while :; do if [ -e "$1/go" ]; then rm "$1/go"; cat "$2" >"$1/got"; echo $? >"$1/ended"; fi; sleep 0.2; done'
OBJECT = "models/s2mel.pth"


class Held(Faults):
    """Keeps the requests for the content of one object, and only these, as long as `key` says."""

    key = ""

    async def request(self, exchange: Exchange) -> Reply | None:
        while self.key and exchange.kind == "GET" and exchange.key == self.key:
            await asyncio.sleep(0.02)
        return await super().request(exchange)


@pytest.fixture
def held(store: RcloneS3) -> Iterator[Proxy]:
    with Proxy(store.endpoint, Held()) as proxy:
        yield proxy


def reading_app(daemon: Daemon) -> None:
    """Its app reads, each time that the test asks, an object that is not cached."""
    path = daemon.mount / "cache_hub_v22" / OBJECT
    daemon.config["apps"] = {
        "webui": {
            "command": ["/bin/sh", "-c", READ, "sh", str(daemon.root), str(path)],
            "needs": ["cache_hub"],
            "stop": {"signal": "SIGTERM", "grace": "2s"},
        }
    }
    daemon.config["mounts"]["storage"]["health"] = {"backend": "2s"}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_read_that_nobody_wakes_replaces_the_mount(make_daemon: Callable[..., Daemon], held: Proxy) -> None:
    """rclone's own deadline is put out of action, as a bug in there would."""
    faults = held.faults
    assert isinstance(faults, Held)
    program = (sys.executable, "-c", PATIENT_EVIDENCE)
    daemon = make_daemon(endpoint=held.endpoint, program=program)
    reading_app(daemon)
    daemon.config["mounts"]["storage"]["options"] = {"timeout": "1h", "low-level-retries": "1"}
    before = daemon.start_ready()["mounts"]["storage"]["pid"]
    with Onlooker(daemon) as onlooker:
        faults.key = f"cache_hub_v22/{OBJECT}"
        (daemon.root / "go").touch()
        began = time.monotonic()
        daemon.until_reason("read-stuck", 60)
        until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, STALL_S + 40, "a new mount", every_s=0.2)
        took_s = time.monotonic() - began
        faults.key = ""
        daemon.until_ready()
        until(lambda: onlooker.seen[-1].health == "Healthy", 60, "Healthy")
    assert STALL_S <= took_s < STALL_S + 40
    # By the log: in status it stands for as long as the repair takes, which is over between two looks.
    causes = [event.get("cause", "") for event in daemon.events("state changed") if "mount" in event]
    waited = [int(found[1]) for cause in causes if (found := re.search(r"a read waits for (\d+) s", cause))]
    assert waited, causes
    assert STALL_S <= waited[0] < STALL_S + 15, "a busy machine looks a little later"
    assert onlooker.unanswered == []
    assert daemon.status()["mounts"]["storage"]["pid"] != before
    (incident,) = (daemon.root / "state" / "incidents").iterdir()
    assert json.loads((incident / "incident.json").read_text())["verdict"] == "hung"
    assert "goroutine " in (incident / "goroutines.txt").read_text()
    (daemon.root / "go").touch()
    until((daemon.root / "ended").exists, 60, "the read to end")
    until(lambda: (daemon.root / "ended").read_text() == "0\n", 60, "the read to succeed")
    print(f"replaced after {took_s:.0f} s")


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_store_that_lists_but_does_not_give_is_reported_and_nothing_is_replaced(
    make_daemon: Callable[..., Daemon], proxy: Proxy
) -> None:
    """rclone tries again for longer than a read may be stuck, and then the app gets an error."""
    daemon = make_daemon(endpoint=proxy.endpoint)
    reading_app(daemon)
    daemon.start_ready()
    with Onlooker(daemon) as onlooker:
        proxy.faults.fail = {"GET": SLOW_DOWN}
        (daemon.root / "go").touch()
        began = time.monotonic()
        reason = daemon.until_reason("reads-failing", 60)
        print(f"reported after {time.monotonic() - began:.0f} s: {reason['text']}")
        assert "SlowDown" in reason["text"], "the store's own code"
        until((daemon.root / "ended").exists, 120, "the app's read to end", every_s=0.2)
        took_s = time.monotonic() - began
        proxy.faults.clear()
        (daemon.root / "ended").unlink()
        (daemon.root / "go").touch()
        until(lambda: onlooker.seen[-1].health == "Healthy", 8 * LOOK_S, "Healthy")
        until((daemon.root / "ended").exists, 60, "the read to end")
    assert took_s > STALL_S
    onlooker.assert_steady()
    assert onlooker.healths() == ["Healthy", "Degraded", "Healthy"]
    until(lambda: (daemon.root / "ended").read_text() == "0\n", 60, "the read to succeed")


@pytest.mark.thorough
def test_keys_that_may_list_but_not_read_are_reported(make_daemon: Callable[..., Daemon], proxy: Proxy) -> None:
    daemon = make_daemon(endpoint=proxy.endpoint)
    reading_app(daemon)
    daemon.start_ready()
    with Onlooker(daemon) as onlooker:
        proxy.faults.fail = {"GET": DENIED}

        def reads_again() -> dict[str, Any] | None:
            """What arrives in the same five seconds, as mountd's own looks at a new version, hides one failed read."""
            (daemon.root / "go").touch()
            return daemon.reasons().get("reads-failing")

        reason = until(reads_again, 60, "the reason reads-failing")
        assert "AccessDenied" in reason["text"], "the store's own code"
        assert reason["hint"]
        until((daemon.root / "ended").exists, 40, "the app's read to end")
        proxy.faults.clear()
        (daemon.root / "go").touch()
        until(lambda: onlooker.seen[-1].health == "Healthy", 8 * LOOK_S, "Healthy")
    onlooker.assert_steady()
