"""The case `metadata` of `./dev bench load`: 1,000 to a million objects, on a store whose pages all cost the same."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from functools import partial
from typing import Any

from bench.load_figures import Mark
from bench.load_rig import Figures, Rig, moments
from bench.machine import pss_bytes
from bench.many_objects import ManyObjects
from bench.peers import loader
from bench.shaping import Shaped
from tests.support.daemon import Daemon
from tests.support.machine import children

SIZES, QUICK_SIZES = (1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000)
WITH_MANIFEST = 100_000
"""Of more objects there is none: making it would take longer than what is measured."""
FIRST = "models/d00000/f0000000.bin"
GROWS_BYTES = 10e6


def marks(*, quick: bool) -> tuple[Mark, ...]:
    found = []
    for size in (size for size in (QUICK_SIZES if quick else SIZES) if size <= WITH_MANIFEST):
        who = _who(size)
        found.append(Mark(f"{who}: LIST requests", who, 1.1 * size / 1000 + 10, "lists"))
        if size != SIZES[0]:
            smallest = (_who(SIZES[0]),)
            found.append(Mark(f"{who}: time an object, beside 1,000", who, 1.0, "object_s", smallest))
            found.append(Mark(f"{who}: the daemon is larger by", who, GROWS_BYTES, "grown_bytes"))
    return tuple(found)


def _who(size: int) -> str:
    return f"{size:,} objects"


def metadata(rig: Rig, rounds: int) -> None:
    """From the start of mountd until its app is started, by the number of objects in the version."""
    sizes = QUICK_SIZES if rig.quick else SIZES
    rig.about = f"{', '.join(map(_who, sizes))} of 1 KiB in 100 directories, a store whose LIST pages all cost the same"
    daemon_bytes: list[float] = []
    with ExitStack() as stack:
        stores: dict[int, ManyObjects] = {}
        for size in sizes:
            store = ManyObjects({"v23": size}, manifest=size <= WITH_MANIFEST)
            stores[size] = stack.enter_context(store)
        proxies = {size: stack.enter_context(Shaped(store.endpoint)) for size, store in stores.items()}
        own = rig.proxy
        for number in range(rounds):
            for size in sizes:
                rig.proxy = proxies[size]
                rig.take(_who(size), number, partial(_start, rig, stores[size], size, daemon_bytes))
        rig.proxy = own


def _start(rig: Rig, store: Any, size: int, smallest: list[float]) -> Figures:
    """`smallest`: what the daemon held with the fewest objects, round by round."""
    with Daemon(rig.proxy.endpoint, store.access_key_id, store.secret_access_key, rig.rclone) as daemon:
        words = ("--port", daemon.web_port, "--model_dir", "./cache_hub", "--files", FIRST)
        daemon.config["apps"]["webui"] |= {"command": loader("serve", *words)}
        daemon.config["apps"]["webui"]["ready"]["timeout"] = "15m"
        daemon.config["models"]["cache_hub"]["required"] = [FIRST]
        began = time.monotonic()
        daemon.start()
        found = moments(rig.answer(daemon.web_port, process=daemon.process), began)
        lists = rig.proxy.counts().kinds["LIST"]
        status = daemon.status()
        own = float(pss_bytes([status["pid"]]))
        rclone = status["mounts"]["storage"]["pid"]
        rclone_bytes = float(pss_bytes([rclone, *children(rclone, all_below=True)]))
    if size == SIZES[0]:
        smallest.append(own)
    return {
        "start_s": found["start_s"],
        "object_s": found["start_s"] / size,
        "lists": float(lists),
        "daemon_bytes": own,
        "grown_bytes": max(0.0, own - statistics.median(smallest)) if smallest else 0.0,
        "rclone_bytes": rclone_bytes,
    }
