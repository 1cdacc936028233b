"""mountd as process 1, as in a container: becomes ready, reaps what others leave behind, and ends in good order."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.cgroups import can_be_made
from tests.support.daemon import Daemon
from tests.support.process_one import NEW_PID_NAMESPACE, ORPHANING, ProcessOne, zombies
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

# An app that leaves things behind: one that ends at once, so that somebody must reap it, one that stays in a session
# of its own, and one that also shed its environment, by which mountd would know it.
APP = """\
import os, sys
def detach(argv, environment):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(argv[0], argv, environment)
        os._exit(0)
    os.wait()
detach(["/bin/true"], os.environ)
detach(["/bin/sleep", "100001"], os.environ)
detach(["/bin/sleep", "100002"], {})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
KNOWN, UNKNOWN = "100001", "100002"


def leaving(daemon: Daemon) -> None:
    """Make its app leave things behind."""
    script = daemon.root / "app.py"
    script.write_text(APP)
    command = daemon.config["apps"]["webui"]["command"]
    daemon.config["apps"]["webui"]["command"] = [command[0], str(script), *command[1:]]


def below(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def detached(process: psutil.Process, seconds: str) -> list[int]:
    """The sleeping ones below `process`."""
    found = []
    for each in below(process):
        with contextlib.suppress(psutil.Error):
            if each.cmdline() == ["/bin/sleep", seconds]:
                found.append(each.pid)
    return found


def one_detached(process: psutil.Process, seconds: str) -> int:
    """The only one of those, once it is what it executes."""

    def only() -> int | None:
        found = detached(process, seconds)
        return found[0] if len(found) == 1 else None

    return until(only, 60, f"one `sleep {seconds}`")


@pytest.fixture
def process_one(store: RcloneS3) -> Iterator[ProcessOne]:
    given: dict[str, Any] = {
        "endpoint": store.endpoint,
        "access_key_id": store.access_key_id,
        "secret_access_key": store.secret_access_key,
        "wrap": NEW_PID_NAMESPACE,
    }
    with ProcessOne(**given) as daemon:
        yield daemon


@pytest.mark.root
def test_as_process_one_it_serves_reaps_and_ends_in_good_order(process_one: ProcessOne) -> None:
    daemon = process_one
    leaving(daemon)
    status = daemon.start_ready()
    assert status["ready"]
    assert daemon.page()["version"] == "v23"
    daemon.hold_mounts()
    assert len(daemon.mounts()) == 1
    init = daemon.init
    inside = Path(f"/proc/{init.pid}/status").read_text()
    assert next(line.split()[-1] for line in inside.splitlines() if line.startswith("NSpid:")) == "1"

    until(lambda: not zombies(init), 60, "what ended to be reaped")
    known, unknown = one_detached(init, KNOWN), one_detached(init, UNKNOWN)
    assert {psutil.Process(known).ppid(), psutil.Process(unknown).ppid()} == {init.pid}

    assert daemon.cli("restart", "webui").code == 0
    until(lambda: not psutil.pid_exists(known), 60, "what is known to be ended and reaped")
    # Process 1 takes in what anybody in a container leaves: of what shows no mark only a cgroup shows whose it is.
    until(lambda: psutil.pid_exists(unknown) is not can_be_made(), 60, "what only a cgroup shows to be ended")
    assert daemon.cli("switch", "v22").code == 0
    assert daemon.page()["version"] == "v22"
    assert one_detached(init, KNOWN) != known
    until(lambda: not zombies(init), 60, "what ended to be reaped")

    everything = [each.pid for each in below(init)]
    began = time.monotonic()
    assert daemon.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began < daemon.events("mountd stops")[0]["at_most_s"]
    assert daemon.mounts() == []
    assert [pid for pid in everything if psutil.pid_exists(pid)] == []


@pytest.mark.thorough
def test_what_an_app_detached_ends_with_it(make_daemon: Callable[..., Daemon]) -> None:
    """The same outside a container, where the kernel does not clear up at the end."""
    daemon = make_daemon()
    leaving(daemon)
    daemon.start_ready()
    assert daemon.process is not None
    parent = psutil.Process(daemon.process.pid)
    known, unknown = one_detached(parent, KNOWN), one_detached(parent, UNKNOWN)

    os.kill(daemon.status()["apps"]["webui"]["pid"], signal.SIGKILL)
    until(lambda: daemon.status()["apps"]["webui"]["restarts"] == 1, 60, "the app to be back")
    until(lambda: not psutil.pid_exists(known) and not psutil.pid_exists(unknown), 60, "both to be ended and reaped")
    assert {one_detached(parent, KNOWN), one_detached(parent, UNKNOWN)}.isdisjoint({known, unknown})
    until(lambda: not zombies(parent), 60, "what ended to be reaped")

    everything = [each.pid for each in below(parent)]
    assert daemon.stop() == 0
    assert [pid for pid in everything if psutil.pid_exists(pid)] == []
    assert daemon.mounts() == []


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
@pytest.mark.root
def test_other_signals_end_process_one_too(process_one: ProcessOne, number: signal.Signals) -> None:
    process_one.start_ready()
    process_one.hold_mounts()
    assert process_one.stop(number) == 0
    assert process_one.mounts() == []


@pytest.mark.root
def test_a_thousand_orphans_are_reaped(process_one: ProcessOne) -> None:
    daemon = process_one
    script = daemon.root / "app.py"
    script.write_text(ORPHANING)
    app = daemon.config["apps"]["webui"]
    app["command"] = [app["command"][0], "-I", "-S", str(script), *app["command"]]
    daemon.start_ready()
    daemon.until_events("app says", text="orphans left")
    init = daemon.init
    until(lambda: not zombies(init), 60, "all of them to be reaped")
    assert len(init.children(recursive=True)) < 50
    assert daemon.page()["version"] == "v23"
    assert daemon.stop() == 0
