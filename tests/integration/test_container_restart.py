"""A container that comes back with its cache volume, and nothing else: it does not download the model again."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.mapped import add_large
from tests.support.process_one import NEW_PID_NAMESPACE, ProcessOne
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.root]

MODEL_BYTES = 12 * 1024**2
SOON_S = 60.0
Start = Callable[..., ProcessOne]
# Without a state the version is a first one: the store must show that it gives the files, by a byte of those that are
# required (an archived object is listed like any other).
ASKED_OF_A_FIRST_VERSION = Counter({"/index-tts-data/cache_hub_v23/models/gpt.pth": 1})


@pytest.fixture
def start(store: RcloneS3, proxy: Proxy, tmp_path: Path) -> Iterator[Start]:
    """Starts a pod: a PID namespace, a mount namespace and directories of its own; the cache is that of all pods.

    So is the state, with `keep_state`.
    """
    add_large(store.directory / hub.BUCKET, MODEL_BYTES)
    with ExitStack() as stack:

        def started(*, keep_state: bool) -> ProcessOne:
            pod = stack.enter_context(
                ProcessOne(
                    endpoint=proxy.endpoint,
                    access_key_id=store.access_key_id,
                    secret_access_key=store.secret_access_key,
                    wrap=NEW_PID_NAMESPACE,
                )
            )
            pod.config["mounts"]["storage"]["cache"]["dir"] = str(tmp_path / "cache")
            pod.config["models"]["cache_hub"]["warm"] = {"level": "data"}
            if keep_state:
                pod.config["state"] = str(tmp_path / "state")
            pod.start_ready()
            return pod

        yield started


def is_complete(pod: Daemon) -> bool:
    model = pod.status()["models"]["cache_hub"]
    return bool(model["level"] == "data" and model["warmed_percent"] == 100)


def model_bytes(proxy: Proxy) -> Counter[str]:
    """Bytes of content that came from the store, by file of the model; those of manifests are left out."""
    found: Counter[str] = Counter()
    for exchange in proxy.counts.exchanges:
        path = exchange.target.partition("?")[0]
        if exchange.kind == "GET" and exchange.status in (200, 206) and not path.endswith("MANIFEST.json"):
            found[path] += exchange.body_bytes
    return found


def read_all(pod: ProcessOne) -> int:
    """Every byte behind the link, as a program in the container reads them; how many those are."""
    root = f"/proc/{pod.init.pid}/root"
    version = Path(root + os.readlink(root + str(pod.link)))
    return sum(len(path.read_bytes()) for path in version.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("keep_state", "number"),
    [
        (False, signal.SIGTERM),
        (True, signal.SIGTERM),
        pytest.param(False, signal.SIGKILL, marks=pytest.mark.thorough),
        pytest.param(True, signal.SIGKILL, marks=pytest.mark.thorough),
    ],
)
def test_a_restart_with_the_cache_volume_downloads_nothing_again(
    start: Start, proxy: Proxy, number: signal.Signals, keep_state: bool
) -> None:
    first = start(keep_state=keep_state)
    until(lambda: is_complete(first), SOON_S, "all data of the version")
    assert read_all(first) > MODEL_BYTES
    assert sum(model_bytes(proxy).values()) > MODEL_BYTES, "they came from the store"
    if number == signal.SIGTERM:
        assert first.stop() == 0
    first.close()  # of what is killed, its kernel ends all

    proxy.counts.exchanges.clear()
    second = start(keep_state=keep_state)
    until(lambda: is_complete(second), SOON_S, "all data to be known")
    assert read_all(second) > MODEL_BYTES
    assert second.page()["version"] == "v23"
    assert +model_bytes(proxy) == (Counter() if keep_state else ASKED_OF_A_FIRST_VERSION)
