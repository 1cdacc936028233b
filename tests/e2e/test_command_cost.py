"""What a command costs, as ratios to a bare Python and to supervisorctl in one run: scripts and people ask often."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.conftest import IN_CI
from tests.support import dies_with_us
from tests.support.daemon import Daemon
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.alone, pytest.mark.thorough]

ROUNDS = 9
ATTEMPTS = 4
JSON_LIMIT, TABLE_LIMIT, SUPERVISOR_LIMIT = 6.0, 12.0, 1.2

SUPERVISORD = """\
[unix_http_server]
file={root}/s.sock
[supervisord]
logfile={root}/log
pidfile={root}/pid
nodaemon=true
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{root}/s.sock
[program:one]
command=sleep 3600
[program:two]
command=sleep 3600
"""

# As a shell of a user has it: nothing that changes how Python starts.
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "MOUNTD_", "COVERAGE"))}


@pytest.fixture
def supervisorctl() -> Iterator[list[str]]:
    """`supervisorctl -c …` of a supervisord that runs two programs."""
    if not shutil.which("supervisord"):
        (pytest.fail if IN_CI else pytest.skip)("no supervisord: ./dev test installs it")
    with tempfile.TemporaryDirectory(prefix="mountd-t-") as name:
        config = Path(name, "supervisord.conf")
        config.write_text(SUPERVISORD.format(root=name))
        with Path(name, "out").open("wb") as out:
            server = subprocess.Popen(
                dies_with_us(["supervisord", "-c", str(config)]), stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            words = ["supervisorctl", "-c", str(config)]
            asked = [*words, "status"]
            until(
                lambda: subprocess.run(asked, capture_output=True, check=False).stdout.count(b"RUNNING") == 2,
                60,
                "supervisord to run its programs",
            )
            yield words
        finally:
            server.terminate()  # it ends its programs
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def costs(commands: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Seconds of processor time of each command itself, the commands taking turns: the least of all rounds.

    Not the time on the clock, which on a busy machine is mostly what others take, the daemon among them; and other work
    only ever adds to what a command costs.
    """
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, argv in commands.items():
            taken[name].append(_processor_s(argv))
    return {name: min(times) for name, times in taken.items()}


def _processor_s(argv: Sequence[str]) -> float:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, argv
    return used.ru_utime + used.ru_stime


def test_a_command_costs_little(daemon: Daemon, supervisorctl: list[str], record_property: Callable[..., None]) -> None:
    daemon.start_ready()
    bin_ = Path(sys.prefix) / "bin"
    status = [str(bin_ / "mountd"), "--socket", str(daemon.socket), "status"]
    commands = {
        "python": [str(bin_ / "python"), "-c", "pass"],
        "json": [*status, "-o", "json"],
        "table": status,
        "supervisorctl": [*supervisorctl, "status"],
    }
    cost = dict.fromkeys(commands, math.inf)
    for attempt in range(1, ATTEMPTS + 1):  # until the machine had a quiet moment for each of them
        cost = {name: min(cost[name], now) for name, now in costs(commands).items()}
        ratios = {
            "json": (cost["json"] / cost["python"], JSON_LIMIT),
            "table": (cost["table"] / cost["python"], TABLE_LIMIT),
            "table to supervisorctl": (cost["table"] / cost["supervisorctl"], SUPERVISOR_LIMIT),
        }
        shown = ", ".join(f"{name} {ratio:.2f} (limit {limit:g})" for name, (ratio, limit) in ratios.items())
        record_property(f"ratios {attempt}", shown)
        print(shown)
        if all(ratio < limit for ratio, limit in ratios.values()):
            return
    pytest.fail(f"a command costs too much: {shown}; see where with `python -X importtime`")
