"""What the load benchmark plays on: hubs on disk, a store behind the shaping proxy, daemons, and apps that load."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.load_figures import Sample
from bench.peers import NotInstalled, Place, loader
from bench.shaping import Shaped
from mountd.demo import hub
from mountd.demo.webui import LOAD_ORDER
from tests.support.daemon import Daemon
from tests.support.machine import children
from tests.support.s3 import RcloneS3
from tests.support.wait import until, until_gone

GPT = "models/gpt.pth"
"""What v23 does not share with v22: 39 % of its bytes."""
SCALE, QUICK_SCALE = 1 / 10, 1 / 100
OBJECTS, QUICK_OBJECTS = 5_000, 300
PER_DIRECTORY = 100
ANSWER_LIMIT_S = 900.0
LOAD_LIMIT_S = 600.0
ORDER = tuple(LOAD_ORDER)
FOUR = tuple(name for name in ORDER if name.endswith((".pth", ".safetensors")))[:4]
"""The large ones, in upstream's order."""
Figures = dict[str, float]
Contestant = tuple[str, Callable[[], Figures]]
"""A name, and what it does once."""


class NotThere(Exception):
    """A feature that this mountd does not have."""


def build_hub(root: Path, scale: float) -> None:
    """v22 and v23 of the hub below `root`, with all files but one in common."""
    hub.build(root, ("v22",), scale)
    old, new = (root / hub.BUCKET / f"cache_hub_{version}" for version in ("v22", "v23"))
    for path in sorted(old.rglob("*")):
        if path.is_file() and path.name != hub.MANIFEST and path != old / GPT:
            target = new / path.relative_to(old)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    hub.write_file(new / GPT, math.ceil(hub.FULL_BYTES[GPT] * scale), seed=f"v23/{GPT}")
    (new / hub.MANIFEST).write_bytes(hub.manifest(new, "v23"))


def build_many(root: Path, objects: int) -> None:
    """v23 of a tiny hub, and so many objects more in directories of 100."""
    hub.build(root, ("v23",), scale=1 / 10_000)
    directory = root / hub.BUCKET / "cache_hub_v23"
    for number in range(objects):
        path = directory / "more" / f"{number // PER_DIRECTORY:04}" / f"{number:06}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number.to_bytes(8, "little"))
    (directory / hub.MANIFEST).write_bytes(hub.manifest(directory, "v23"))


def forget(*paths: Path) -> None:
    """The kernel's copy of these files and of all below these directories goes."""
    subprocess.run(loader("forget", *paths), check=True, timeout=LOAD_LIMIT_S, cwd="/")


@dataclass
class Rig:
    """One case: its store and proxy, the samples so far. `root` is its own, `shelf` keeps what other cases need too."""

    root: Path
    shelf: Path
    rclone: Path
    quick: bool = False
    tree: str = "hub"
    skip: frozenset[str] = frozenset()
    """contestants that are left out"""
    about: str = ""
    """the bucket in words, of a case that has others than that of `tree`"""
    samples: list[Sample] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=dict)
    proxy_cpu: float = 0.0

    def __post_init__(self) -> None:
        self._stack = ExitStack()
        self._places = 0

    def __enter__(self) -> Rig:
        with ExitStack() as stack:
            self.store = RcloneS3(self._tree(), self.rclone)
            stack.callback(self.store.close)
            self.proxy = stack.enter_context(Shaped(self.store.endpoint))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _tree(self) -> Path:
        path = self.shelf / self.tree
        if not path.exists():
            new = self.shelf / f"{self.tree}.new"
            shutil.rmtree(new, ignore_errors=True)
            if self.tree == "hub":
                build_hub(new, QUICK_SCALE if self.quick else SCALE)
            else:
                build_many(new, self.objects)
            new.rename(path)
        return path

    # -- what is there ----------------------------------------------------------------------------------------------

    @property
    def objects(self) -> int:
        return QUICK_OBJECTS if self.quick else OBJECTS

    def source(self, version: str = "v23") -> Path:
        """What the store serves; do not read it with a clock."""
        return self._tree() / hub.BUCKET / f"cache_hub_{version}"

    @cached_property
    def local(self) -> Path:
        """v23 on the local disk."""
        path = self.shelf / "local"
        if not path.exists():
            new = self.shelf / "local.new"
            shutil.rmtree(new, ignore_errors=True)
            shutil.copytree(self.source(), new)
            new.rename(path)
        return path

    def size(self, name: str = "", version: str = "v23") -> int:
        """Bytes of a file of a version, or of all of it without its manifest."""
        files = [entry for entry in self._manifest(version) if name in {"", entry["path"]}]
        return sum(int(entry["size"]) for entry in files)

    def _manifest(self, version: str) -> list[dict[str, Any]]:
        files: list[dict[str, Any]] = json.loads((self.source(version) / hub.MANIFEST).read_bytes())["files"]
        return files

    def bucket(self) -> str:
        """In words."""
        if self.about:
            return f"{self.about}; {self.proxy.shape}"
        files = [path for path in self._tree().rglob("*") if path.is_file()]
        total = sum(path.stat().st_size for path in files)
        return f"{len(files):,} objects, {total / 1e6:,.0f} MB; {self.proxy.shape}"

    # -- contestants ------------------------------------------------------------------------------------------------

    def place(self) -> Place:
        """A new one for a peer."""
        self._places += 1
        root = self.root / f"place-{self._places}"
        root.mkdir()
        return Place(root, self.proxy.endpoint, self.store, self.rclone)

    @contextmanager
    def daemon(
        self, *words: object, version: str = "v23", warm: dict[str, Any] | None = None, **needs: str
    ) -> Iterator[Daemon]:
        """Not started yet; `words` for its app, `warm` of the model, `level` that the app needs.

        Raises NotThere when this mountd does not know that.
        """
        with Daemon(self.proxy.endpoint, self.store.access_key_id, self.store.secret_access_key, self.rclone) as daemon:
            cache = self.shelf / "mountd"  # the machine's, as the unit names it: what rclone can do is known there
            cache.mkdir(mode=0o700, exist_ok=True)
            daemon.environment["CACHE_DIRECTORY"] = str(cache)
            app, model = daemon.config["apps"]["webui"], daemon.config["models"]["cache_hub"]
            app["command"] = loader("serve", "--port", daemon.web_port, "--model_dir", "./cache_hub", *words)
            app["ready"]["timeout"] = "15m"
            model["version"] = version
            if warm is not None:
                model["warm"] = warm
                self.need(daemon)
            if needs:
                app["needs"] = [{"model": "cache_hub", **needs}]
                self.need(daemon)
            yield daemon

    def need(self, daemon: Daemon, command: str = "warm") -> None:
        """Raises NotThere when this mountd does not have the command, or does not know the configuration."""
        mountd = [sys.executable, "-m", "mountd"]
        for words in ([command, "--help"], ["config", "check", "-c", str(daemon.write_config())]):
            done = subprocess.run([*mountd, *words], capture_output=True, text=True, timeout=60, check=False)
            if done.returncode:
                raise NotThere(f"not there yet: mountd {' '.join(words[:2])}")

    def round(self, number: int, contestants: Sequence[Contestant], slow: Sequence[Contestant] = ()) -> None:
        """All of them, each time another one first: whatever drifts hits all alike. Those that are `slow`, many minutes
        some of them, only in the first round."""
        turns = [*contestants, *(slow if number == 0 else ())]
        first = number % len(turns)
        for who, do in (*turns[first:], *turns[:first]):
            self.take(who, number, do)

    def take(self, who: str, number: int, do: Callable[[], Figures]) -> None:
        """One sample, with what passed the proxy; what goes wrong is its `broken`, and the others go on."""
        if who in self.absent or who in self.skip:
            return
        self.proxy.reset()
        figures, broken = dict[str, float](), ""
        try:
            figures = do()
        except (NotThere, NotInstalled) as error:
            self.absent[who] = str(error)
            return
        except Exception as error:
            broken = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        counts = self.proxy.counts()
        if counts.wall_s >= 1:  # of less it would be that of the question itself
            self.proxy_cpu = max(self.proxy_cpu, counts.cpu_share)
        kinds = {f"{kind.lower()}s": float(counts.kinds[kind]) for kind in ("LIST", "HEAD", "GET")}
        figures = figures | {"fetched_bytes": float(counts.object_bytes), **kinds}
        self.samples.append(Sample(who, number, figures, broken))
        shown = ", ".join(f"{name} {value:,.2f}" for name, value in figures.items())
        print(f"{who} {number + 1}: {shown} {broken}", file=sys.stderr, flush=True)

    # -- apps -------------------------------------------------------------------------------------------------------

    def answer(self, port: int, *, not_pid: int = 0, process: subprocess.Popen[bytes] | None = None) -> dict[str, Any]:
        """What the app on `port` says once it answers, another process than `not_pid`. Raises AssertionError."""

        def page() -> dict[str, Any] | None:
            assert process is None or process.poll() is None, f"it ended with {process.returncode}"
            found = ask(port, "/config")
            return found if found["pid"] != not_pid else None

        found = until(page, ANSWER_LIMIT_S, "the app to answer", every_s=0.02)
        assert found is not None
        return found

    def check(self, digests: dict[str, str], version: str = "v23") -> None:
        """Raises AssertionError when a byte is wrong."""
        expected = {entry["path"]: entry["sha256"] for entry in self._manifest(version)}
        wrong = [name for name, digest in digests.items() if name in expected and expected[name] != digest]
        assert not wrong, f"wrong bytes in {', '.join(wrong)}"

    def run_app(self, directory: Path, *words: object) -> dict[str, Any]:
        """An app that loads from there, without anybody around it, and what it says. Raises AssertionError."""
        argv = loader("load", "--digests", "--model_dir", directory, *words)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=LOAD_LIMIT_S, check=False, cwd="/")
        assert done.returncode == 0, f"the app ended with {done.returncode}: {done.stderr[-300:]}"
        found: dict[str, Any] = json.loads(done.stdout)
        self.check(found["digests"])
        return found

    def load(self, directory: Path, *words: object) -> Figures:
        return {"load_s": self.run_app(directory, *words)["load_s"]}

    def load_local(self) -> Figures:
        """From the local disk, cold."""
        forget(self.local)
        return self.load(self.local, "--files", *ORDER)


def ask(port: int, path: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        document: dict[str, Any] = json.load(answer)
        return document


def moments(document: dict[str, Any], started: float) -> Figures:
    """Seconds since `started` until the app answered and until it was started, and of its load."""
    return {
        "seconds": document["answers"] - started,
        "start_s": document["began"] - started,
        "load_s": document["load_s"],
    }


def power_off(daemon: Daemon) -> None:
    """All of its processes at once; the mount goes, and so does what lies below /run."""
    assert daemon.process is not None
    parent = daemon.process.pid
    pids = {parent, *children(parent, all_below=True), *daemon.processes()}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    daemon.wait_exit()
    for pid in pids:
        until_gone(pid)  # one of them holds the lock of the state until then
    for point in daemon.mounts():
        subprocess.run(["fusermount3", "-uz", point], timeout=20, check=True)
    shutil.rmtree(daemon.root / "run", ignore_errors=True)
