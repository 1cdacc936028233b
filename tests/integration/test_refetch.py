"""Nothing that was read is fetched twice, whatever ends; and what the cache holds is never taken on trust."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.mapped import CASES, PLANTED, Mapped, add_large
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3

pytestmark = [pytest.mark.fuse]

MODEL_BYTES = 12 * 1024**2
MOST = 0.01
"""Of the model's bytes that may come again."""


@pytest.fixture
def make(store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Callable[..., Mapped]:
    def made(*, manifest: bool = True, options: dict[str, str] | None = None) -> Mapped:
        bucket = store.directory / hub.BUCKET
        add_large(bucket, MODEL_BYTES, manifest=manifest)
        mapped = Mapped(make_daemon(endpoint=proxy.endpoint), bucket, proxy)
        mapped.daemon.config["mounts"]["storage"]["options"] = options or {}
        mapped.start()
        assert mapped.proxy.counts.object_bytes >= mapped.bytes
        return mapped

    return made


def again(mapped: Mapped, fault: Callable[[Mapped], None]) -> float:
    """The share of the model that is fetched again; that all of it is right is asserted beside it."""
    return mapped.fetched(functools.partial(fault, mapped)) / mapped.bytes


def test_each_end_and_each_fault_after_the_other(make: Callable[..., Mapped]) -> None:
    """What was planted makes rclone fetch the model again, so that each exit meets one that was never closed."""
    mapped = make()
    for end, planted in (
        ("rclone SIGKILL", "wrong bytes after a clean stop"),
        ("rclone and mountd SIGKILL", "wrong index after SIGKILL"),
        ("clean stop and start", ""),
    ):
        assert again(mapped, CASES[end]) < MOST, end
        if planted:
            assert again(mapped, PLANTED[planted]) > 0.9, planted
    # A hole reads as zeros: with a wrong index it is the digest that shows it.
    assert len(mapped.daemon.until_events("cached files had other bytes than their manifest says", 2)) == 2


@pytest.mark.thorough
@pytest.mark.parametrize("case", CASES)
def test_a_mapped_model_is_fetched_once(make: Callable[..., Mapped], case: str) -> None:
    """In each case by an rclone that has fetched it and never closed it."""
    assert again(make(), CASES[case]) < MOST


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("manifest", [True, False])
def test_one_after_the_other(make: Callable[..., Mapped], manifest: bool) -> None:
    mapped = make(manifest=manifest)
    do_all = {name: do for name, do in CASES.items() if manifest or name != "loss of power"}
    fetched = {name: again(mapped, do) for name, do in do_all.items()}
    assert {name: share for name, share in fetched.items() if share >= MOST} == {}


@pytest.mark.thorough
@pytest.mark.parametrize("case", PLANTED)
def test_wrong_bytes_and_a_wrong_index_are_never_served(make: Callable[..., Mapped], case: str) -> None:
    mapped = make()
    assert again(mapped, PLANTED[case]) > 0.9
    assert len(mapped.daemon.until_events("cached files had other bytes than their manifest says")) == 1


@pytest.mark.thorough
def test_without_a_manifest_a_loss_of_power_costs_what_was_not_on_disk(make: Callable[..., Mapped]) -> None:
    mapped = make(manifest=False)

    def stop_and_boot(mapped: Mapped) -> None:
        assert mapped.daemon.stop() == 0
        mapped.boot()
        mapped.daemon.start()

    assert again(mapped, stop_and_boot) < MOST
    assert again(mapped, Mapped.lose_power) > 0.9


@pytest.mark.thorough
def test_after_an_update_from_a_mountd_that_kept_no_stamps(make: Callable[..., Mapped]) -> None:
    """Its rclone kept each file open for 5 s after its close, and was stopped before it had noted what it had read."""
    mapped = make(options={"vfs-handle-caching": "5s"})

    def update(mapped: Mapped) -> None:
        assert mapped.daemon.stop() == 0
        (mapped.cache / "index.json").unlink()
        shutil.rmtree(mapped.cache / "digests")
        mapped.daemon.start()

    assert again(mapped, update) < MOST


@pytest.mark.thorough
def test_a_pod_that_keeps_its_cache_alone(make: Callable[..., Mapped]) -> None:
    """And is started on another node, after it was killed."""

    def move(mapped: Mapped) -> None:
        mapped.power_off()
        shutil.rmtree(mapped.daemon.root / "state")
        mapped.boot()
        mapped.daemon.start()

    assert again(make(), move) < MOST


@pytest.mark.thorough
def test_an_object_that_was_replaced_meanwhile_is_fetched(make: Callable[..., Mapped]) -> None:
    """With another content of the same size: rclone asks for it, and the index of the former one counts nothing."""
    mapped = make()

    def fault(mapped: Mapped) -> None:
        mapped.power_off()
        add_large(mapped.source.parent, MODEL_BYTES, seed=1)
        mapped.daemon.start()

    assert again(mapped, fault) > 0.9


@pytest.mark.thorough
def test_what_was_read_of_a_file_stays_read(make: Callable[..., Mapped]) -> None:
    """A killed rclone had a file open of which only a part was read."""
    mapped = make()
    part, size = 8 * 1024**2, 32 * 1024**2
    fresh = mapped.source.parent / "fresh"
    content = os.urandom(size)
    fresh.mkdir()
    (fresh / "large").write_bytes(content)
    mapped.daemon.config["mounts"]["storage"]["options"] = {"vfs-read-ahead": "0", "buffer-size": "1M"}
    again(mapped, Mapped.stop_and_start)
    path = mapped.daemon.mount / "fresh" / "large"
    with reading(path, part) as digest:
        assert digest == hashlib.sha256(content[:part]).hexdigest()
        again(mapped, Mapped.kill_rclone)
    mapped.proxy.reset_counts()
    with reading(path, part) as digest:
        assert digest == hashlib.sha256(content[:part]).hexdigest()
    # Its edge comes again, and what rclone reads ahead of that.
    assert mapped.proxy.counts.object_bytes < part // 2
    with reading(path, size) as digest:
        assert digest == hashlib.sha256(content).hexdigest()


@contextlib.contextmanager
def reading(path: Path, size: int) -> Iterator[str]:
    """The sha256 of so many bytes, by a process that then keeps the file open."""
    code = (
        "import hashlib, sys; f = open(sys.argv[1], 'rb', 0); d = hashlib.sha256(); n = int(sys.argv[2])\n"
        "while n and (b := f.read(min(n, 1 << 17))): d.update(b); n -= len(b)\n"
        "print(d.hexdigest(), flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code, str(path), str(size)]
    reader = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with reader:
        try:
            assert reader.stdout is not None
            yield reader.stdout.readline().strip()
        finally:
            reader.kill()
