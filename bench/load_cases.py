"""Cases of `./dev bench load`: a start, a load and a download, each of mountd beside what others do today."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from bench import peers
from bench.load_figures import Sample
from bench.load_rig import ORDER, Contestant, Figures, Rig, ask, forget, moments
from bench.peers import loader
from mountd.demo import hub
from tests.support import hold_port
from tests.support.daemon import Daemon
from tests.support.wait import until

W2V = "models/hf_cache/w2v-bert-2.0/model.safetensors"
SHUFFLED_BYTES = 4 * 1024**2
"""Of a tensor: w2v-bert has about a thousand, most of them smaller than this at its full size."""
QUIET_S, QUIET_LIMIT_S = 2.0, 60.0
WARM_LIMIT_S = 600.0
DATA, PIN = {"level": "data"}, {"level": "pin"}
RAW = {"raw: ranges": "ranges", "raw: boto3": "boto3", "raw: rclone copy": "rclone"}
SECOND = ("mountd, app restarted", "mountd, remounted", "mountd restarted")


# -- contestants ----------------------------------------------------------------------------------------------------


def mountd(rig: Rig, *words: object, warm: dict[str, Any] | None = None, **needs: str) -> Figures:
    """From the start of mountd, its cache empty, until its app answers."""
    with rig.daemon(*words, warm=warm, **needs) as daemon:
        return started(rig, daemon)


def started(rig: Rig, daemon: Daemon) -> Figures:
    began = time.monotonic()
    daemon.start()
    found = moments(rig.answer(daemon.web_port, process=daemon.process), began)
    rig.check(ask(daemon.web_port, "/digests"))
    return found


def baseline(rig: Rig, *words: object, lsl: bool = True) -> Figures:
    """From the start of the script until its app answers."""
    place = rig.place()
    with hold_port() as held:
        port = held.getsockname()[1]
        app = loader("serve", "--port", port, "--model_dir", place.link, *words)
        began = time.monotonic()
        with peers.baseline(place, app, lsl=lsl) as process:
            found = moments(rig.answer(port, process=process), began)
            rig.check(ask(port, "/digests"))
    return found


def mount_and_load(rig: Rig, argv: Callable[[peers.Place], Sequence[str]], *words: object) -> Figures:
    """A peer's mount, then the app. Seconds of both, and of the load."""
    place = rig.place()
    began = time.monotonic()
    with peers.mounted(place, argv(place)):
        start_s = time.monotonic() - began
        found = rig.run_app(place.model, *words)
    seconds = start_s + found["loaded"] - found["began"]
    return {"seconds": seconds, "start_s": start_s, "load_s": found["load_s"]}


def raw(rig: Rig, way: str, prefix: str = "cache_hub_v23") -> Figures:
    return {"seconds": peers.download(rig.place(), way, prefix)}


def plain_mount(rig: Rig, *words: object) -> Contestant:
    return "rclone mount, its defaults", partial(mount_and_load, rig, peers.plain_mount, *words)


def s3fs(rig: Rig, *words: object) -> Contestant:
    return "s3fs, its defaults", partial(mount_and_load, rig, peers.s3fs_mount, *words)


def baseline_mount(rig: Rig, *words: object) -> Contestant:
    """Of the baseline its mount alone."""
    return "baseline", partial(mount_and_load, rig, peers.baseline_mount, *words)


# -- cases ------------------------------------------------------------------------------------------------------------


def start(rig: Rig, rounds: int) -> None:
    """The app may start: of many objects."""
    words = ("--files", "config.yaml")
    for number in range(rounds):
        rig.round(
            number,
            [
                ("mountd", partial(mountd, rig, *words)),
                ("baseline without lsl", partial(baseline, rig, *words, lsl=False)),
                plain_mount(rig, *words),
                s3fs(rig, *words),
            ],
            [("baseline", partial(baseline, rig, *words))],
        )


def boot(rig: Rig, rounds: int, *, imports_s: float, files: Sequence[str] = ORDER, beside: bool = True) -> None:
    """Cold, from nothing to the app's first answer; the limit is what the slower of imports and download needs, and
    the load from local disk. `beside`: with those who take many minutes."""
    words = ("--imports", f"{imports_s:g}", "--files", *files)
    slow: list[Contestant] = [
        ("baseline", partial(baseline, rig, *words)),
        ("baseline without lsl", partial(baseline, rig, *words, lsl=False)),
        plain_mount(rig, *words),
    ]
    for number in range(rounds):
        rig.round(
            number,
            [
                ("mountd", partial(mountd, rig, *words)),
                ("mountd, data meanwhile", partial(mountd, rig, *words, warm=DATA, level="metadata")),
                ("mountd, data first", partial(mountd, rig, *words, warm=DATA, level="data")),
                s3fs(rig, *words),
                ("raw: ranges", partial(raw, rig, "ranges")),
                ("local disk", partial(_local, rig, files)),
            ],
            slow if beside else (),
        )
        found = {each.who: each.figures for each in rig.samples if each.round == number and not each.broken}
        if {"raw: ranges", "local disk"} <= found.keys():
            limit_s = max(imports_s, found["raw: ranges"]["seconds"]) + found["local disk"]["load_s"]
            rig.samples.append(Sample("the limit", number, {"seconds": limit_s}))


def _local(rig: Rig, files: Sequence[str]) -> Figures:
    forget(rig.local)
    return rig.load(rig.local, "--files", *files)


def one_file(rig: Rig, rounds: int) -> None:
    """A cold read of one large file from front to back; the streamer reads it into memory without a disk."""
    words = ("--files", W2V)
    for number in range(rounds):
        rig.round(
            number,
            [
                ("mountd", partial(mountd, rig, *words)),
                ("mountd, data first", partial(mountd, rig, *words, warm=DATA, level="data")),
                s3fs(rig, *words),
                ("raw: ranges", partial(raw, rig, "ranges", f"cache_hub_v23/{W2V}")),
                ("Run:ai model streamer", partial(raw, rig, "runai", f"cache_hub_v23/{W2V}")),
            ],
            [baseline_mount(rig, *words), plain_mount(rig, *words)],
        )


def shuffled(rig: Rig, rounds: int) -> None:
    """A cold mmap of one safetensors file, its tensors in a random order."""
    words = ("--files", W2V, "--shuffle", SHUFFLED_BYTES)

    def share(contestant: Contestant) -> Contestant:
        who, do = contestant

        def counted() -> Figures:
            found = do()
            return found | {"fetched_share": rig.proxy.counts().bytes_by_object[_key(W2V)] / rig.size(W2V)}

        return who, counted

    for number in range(rounds):
        rig.round(
            number,
            [share(("mountd", partial(mountd, rig, *words))), share(s3fs(rig, *words))],
            [share(baseline_mount(rig, *words)), share(plain_mount(rig, *words))],
        )


def _key(name: str, version: str = "v23") -> str:
    return f"{hub.BUCKET}/cache_hub_{version}/{name}"


def unopened(rig: Rig, rounds: int) -> None:
    """What is fetched of a file that the app never opens, some seconds after its load as well."""

    def do() -> Figures:
        with rig.daemon("--files", *ORDER) as daemon:
            found = started(rig, daemon)
            until_quiet(rig)
            return {"load_s": found["load_s"], "unopened_bytes": rig.proxy.counts().bytes_by_object[_key(hub.UNUSED)]}

    for number in range(rounds):
        rig.take("mountd", number, do)


def until_quiet(rig: Rig) -> None:
    """Until no byte of an object has come for a while. Raises AssertionError when that never is."""
    deadline, last, since = time.monotonic() + QUIET_LIMIT_S, -1, time.monotonic()
    while time.monotonic() < since + QUIET_S:
        if (seen := rig.proxy.counts().object_bytes) != last:
            last, since = seen, time.monotonic()
        assert time.monotonic() < deadline, f"bytes still come after {QUIET_LIMIT_S:g} s"
        time.sleep(0.1)


def warm(rig: Rig, rounds: int) -> None:
    """All of a version, cold, beside raw downloads of the same."""

    def warmed(level: str) -> Figures:
        with rig.daemon("--files", "config.yaml", warm={"level": "metadata"}) as daemon:
            daemon.start_ready()
            rig.proxy.reset()
            began = time.monotonic()
            fill(daemon, level)
            return {"seconds": time.monotonic() - began}

    for number in range(rounds):
        rig.round(
            number,
            [
                ("mountd warm, data", partial(warmed, "data")),
                ("mountd warm, pin", partial(warmed, "pin")),
                *((who, partial(raw, rig, way)) for who, way in RAW.items()),
            ],
        )


def fill(daemon: Daemon, level: str) -> None:
    """Raises AssertionError when it does not succeed."""
    done = daemon.cli("warm", "v23", "--level", level, timeout_s=WARM_LIMIT_S)
    assert done.code == 0, f"mountd warm ended with {done.code}: {done.err[-300:]}"


def loads(rig: Rig, rounds: int) -> None:
    """The load of an app once all is here, the kernel's copies gone, and the same from the local disk, in turns."""
    with ExitStack() as stack:
        turns: list[Contestant] = [("local disk", rig.load_local)]
        for who, level, setting in (
            ("mountd, after a read", "", None),
            ("mountd, after warm data", "data", DATA),
            ("mountd, pinned", "pin", PIN),
        ):
            turns.append((who, partial(_prepared, rig, stack, level, setting, [])))
        for number in range(rounds):
            rig.round(number, turns)


def _prepared(rig: Rig, stack: ExitStack, level: str, setting: dict[str, Any] | None, kept: list[Daemon]) -> Figures:
    """Of a daemon that is made and filled the first time."""
    if not kept:
        daemon = stack.enter_context(rig.daemon("--files", "config.yaml", warm=setting))
        daemon.start_ready()
        if level:
            fill(daemon, level)
        else:
            rig.load(daemon.link)
        until_quiet(rig)
        kept.append(daemon)
    rig.proxy.reset()
    forget_all(kept[0])
    return rig.load(kept[0].link, "--files", *ORDER)


def forget_all(daemon: Daemon) -> None:
    """What the kernel knows of the files that an app reads here: through the mount, in the cache, among the pins."""
    places = [daemon.link, daemon.root / "cache", daemon.root / "state" / "pins"]
    forget(*(path for path in places if path == daemon.link or path.exists()))


def second(rig: Rig, rounds: int) -> None:
    """The next load of what was loaded before, after a restart of the app, of the mount and of mountd."""
    total = rig.size()
    with ExitStack() as stack:
        daemon = stack.enter_context(rig.daemon("--files", *ORDER))
        daemon.start()
        last = rig.answer(daemon.web_port, process=daemon.process)
        place = rig.place()
        stack.enter_context(peers.mounted(place, peers.baseline_mount(place)))

        def again(restart: Callable[[], object]) -> Figures:
            nonlocal last
            until(lambda: daemon.status()["ready"], WARM_LIMIT_S, "mountd to be ready")
            forget_all(daemon)
            rig.proxy.reset()
            restart()
            last = rig.answer(daemon.web_port, not_pid=last["pid"], process=daemon.process)
            rig.check(ask(daemon.web_port, "/digests"))
            return {"load_s": last["load_s"], "fetched_share": rig.proxy.counts().object_bytes / total}

        def by_baseline() -> Figures:
            rig.load(place.model, "--files", *ORDER)
            forget(place.model)
            rig.proxy.reset()
            found = rig.load(place.model, "--files", *ORDER)
            return found | {"fetched_share": rig.proxy.counts().object_bytes / total}

        def restart_mountd() -> None:
            daemon.stop()
            daemon.start()

        restarts: tuple[Callable[[], object], ...] = (
            partial(daemon.cli, "restart", "webui"),
            partial(daemon.cli, "restart", "storage"),
            restart_mountd,
        )
        turns = [(who, partial(again, restart)) for who, restart in zip(SECOND, restarts, strict=True)]
        for number in range(rounds):
            rig.round(number, turns, [("baseline", by_baseline)])
