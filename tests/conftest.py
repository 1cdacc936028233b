"""What all tests share: FUSE tests never pass by being skipped in CI, and servers that end with their test."""

from __future__ import annotations

import gc
import inspect
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from mountd import i18n
from mountd.demo import hub
from tests.support import blocking
from tests.support.cache_disk import make_unread
from tests.support.daemon import Daemon
from tests.support.machine import Tmpfs
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.standin import StandIn

# What an example takes says how busy the machine is, and nothing about what is tested.
settings.register_profile("mountd", deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("mountd"), max_examples=100)
# Of ./dev mutate: the same examples for each fault, and the first that notices it is enough.
settings.register_profile(
    "mutate", settings.get_profile("thorough"), derandomize=True, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("mountd")

LONG_S = 240
"""A test that may last longer than that is among the longest."""
NEVER_SKIPPED = ("fuse", "root", "prometheus")
"""Tests with these marks, in CI."""
MACHINE_WORKERS = 3
"""So many have the tests of `system`: until the disks of their machines are made, nobody else waits for that."""
IN_CI = os.environ.get("CI", "") not in ("", "0", "false")


def pytest_configure(config: pytest.Config) -> None:
    """Each run has other examples: of the everyday ones, which are many, fewer are enough.

    In the background of a script, or below nohup, these are ignored, and so would every program of a test do:
    a test whose program is to hear Ctrl-C means one that was started in a terminal."""
    if "not thorough" not in config.option.markexpr and not config.option.hypothesis_profile:
        settings.load_profile("thorough")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def no_blocking(request: pytest.FixtureRequest) -> Iterator[None]:
    """In each test that is a coroutine, with what it calls of the product; not in threads and other processes."""
    if not inspect.iscoroutinefunction(request.function):
        yield
        return
    with blocking.forbidden():
        yield


def _lacks_fuse() -> str:
    if not os.path.exists("/dev/fuse"):
        return "no /dev/fuse"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    return "" if shutil.which("fusermount3") else "no fusermount3"


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays until the end: nobody looks among it for garbage, a third of the time of a collection."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Gives marks before they are chosen from, then the order to those that were chosen."""
    for item in items:
        variant = item.name.partition("[")[2]
        shown_by = item.get_closest_marker("shown_by")
        if shown_by and not any(word in variant for word in shown_by.args):
            item.add_marker("thorough")
    yield
    _deal(items)


def _deal(items: list[pytest.Item]) -> None:
    """Each worker gets as many of each kind, in the order of `_kind`; it takes from others when it has done its own.

    What takes long begins first. Unit tests come last: they are short, so that all workers end together.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    machines, *long, others, units = ([item for item in items if _kind(item) == kind] for kind in range(5))
    dealt: list[pytest.Item] = []
    for number in range(workers):
        dealt += machines[number :: min(workers, MACHINE_WORKERS)] if number < MACHINE_WORKERS else []
        for kind in long:
            dealt += kind[number::workers]
        dealt += others[len(others) * number // workers : len(others) * (number + 1) // workers]  # a module together
        free = max(0, len(items) * (number + 1) // workers - len(dealt))  # there the next worker begins
        dealt += units[:free]
        del units[:free]
    items[:] = dealt


def _kind(item: pytest.Item) -> int:
    """0: one of a machine, 1: one of the longest, 2: a slow one, 3: another that is no unit test, 4: a unit test."""
    kind = item.path.parent.name
    if kind == "system":
        return 0
    if (limit := item.get_closest_marker("timeout")) and limit.args[0] >= LONG_S:
        return 1
    if item.get_closest_marker("slow"):
        return 2
    return 4 if kind == "unit" else 3


def pytest_runtest_setup(item: pytest.Item) -> None:
    lacking = ""
    if item.get_closest_marker("fuse"):
        lacking = _lacks_fuse()
    if not lacking and item.get_closest_marker("root") and os.geteuid() != 0:
        lacking = "not root"
    if lacking:
        pytest.skip(lacking)


@pytest.fixture(scope="session", autouse=True)
def own_cache_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """mountd keeps there what rclone can do: not on the machine, and not asked by each of a thousand starts."""
    os.environ["CACHE_DIRECTORY"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session", autouse=True)
def english() -> None:
    """Tests look at what commands say in English, whatever this machine speaks; one in another language sets it."""
    os.environ.pop("LANGUAGE", None)
    if i18n.language_of(os.environ) != i18n.ENGLISH:
        os.environ["LC_ALL"] = "C.UTF-8"


FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # Whatever a fixture or the test itself found missing, not only what was looked for before.
    if IN_CI and report.skipped and any(map(item.get_closest_marker, NEVER_SKIPPED)):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"must not be skipped in CI: {why}"
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(scope="session")
def hub_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bucket of the demo, small (1:10,000, under 1 MB a version); read-only for tests, which copy it."""
    root = tmp_path_factory.mktemp("hub")
    hub.build(root, scale=1 / 10_000)
    return root


@pytest.fixture
def store(hub_directory: Path, tmp_path: Path) -> Iterator[RcloneS3]:
    """A real S3 server over a copy of the hub that the test may change."""
    root = tmp_path / "store"
    shutil.copytree(hub_directory, root)
    with RcloneS3(root) as server:
        yield server


@pytest.fixture
def proxy(store: RcloneS3) -> Iterator[Proxy]:
    """Between mountd and the store: adds latency, counts, goes away."""
    with Proxy(store.endpoint) as between:
        yield between


@pytest.fixture
def make_daemon(store: RcloneS3, request: pytest.FixtureRequest) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons over the store (`endpoint=` puts a proxy between); all of them end with the test.

    Of a test that failed their logs are shown.
    """
    with ExitStack() as stack:

        def make(**changes: Any) -> Daemon:
            given: dict[str, Any] = {
                "endpoint": store.endpoint,
                "access_key_id": store.access_key_id,
                "secret_access_key": store.secret_access_key,
                **changes,
            }
            daemon = stack.enter_context(Daemon(**given))
            daemons.append(daemon)
            return daemon

        daemons: list[Daemon] = []
        yield make
        if request.node.stash.get(FAILED, False):
            for daemon in daemons:
                daemon.show_log()


@pytest.fixture
def daemon(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon over the store, not started yet."""
    return make_daemon()


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in for a daemon, which commands find by the environment."""
    made = StandIn(tmp_path / "mountd.sock")
    monkeypatch.setenv("MOUNTD_SOCKET", made.path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def unread(store: RcloneS3) -> Path:
    """A directory of the bucket with files that nobody has read."""
    return make_unread(store)


@pytest.fixture
def small_cache(make_daemon: Callable[..., Daemon]) -> Iterator[Callable[..., tuple[Daemon, Tmpfs]]]:
    """Makes a daemon whose cache has a small disk of its own."""
    with ExitStack() as stack:

        def make(mib: int = 200, **changes: Any) -> tuple[Daemon, Tmpfs]:
            daemon = make_daemon(**changes)
            return daemon, stack.enter_context(Tmpfs(daemon.root / "cache", mib))

        yield make
