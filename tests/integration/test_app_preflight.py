"""Preflight of a real app under a real daemon: it waits for its GPU, and a switch rolls back when a check fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.fake_gpu import FakeGpu, FakeNvidiaSmi, uuid_of
from tests.support.stage import SOON_S, Stage, says
from tests.support.wait import until

pytestmark = pytest.mark.fuse

GPU = uuid_of(0)
FULL, FREE = FakeGpu(GPU, free=300), FakeGpu(GPU, free=24_000)
# The model of this version cannot be loaded; the command is in the directory of the app.
LOADS = """
import json, sys
version = json.load(open("cache_hub/MANIFEST.json"))["version"]
sys.exit("v22: no tensor" if version == "v22" else 0)
"""


@pytest.fixture
def smi(tmp_path: Path) -> FakeNvidiaSmi:
    return FakeNvidiaSmi(tmp_path / "bin", FREE)


@pytest.fixture
def staged(make_daemon: Callable[..., Daemon], smi: FakeNvidiaSmi) -> Callable[..., Stage]:
    def make(**preflight: Any) -> Stage:
        stage = Stage(make_daemon())
        app = stage.daemon.config["apps"]["webui"]
        app["preflight"] = {"timeout": "30s", **preflight}
        app["environment"]["PATH"] = smi.path
        app["restart"] = {"backoff": {"initial": "200ms", "max": "1s"}}
        return stage

    return make


def test_it_waits_until_its_gpu_has_room(staged: Callable[..., Stage], smi: FakeNvidiaSmi) -> None:
    smi.has(FULL)
    stage = staged(gpu_memory="8G", timeout="1s")
    daemon = stage.daemon
    daemon.start()
    reason = daemon.until_reason("gpu-memory")
    assert GPU in reason["text"]
    assert (reason["layer"], reason["object"]) == ("app", "webui")
    assert "nvidia-smi" in reason["hint"]
    first = smi.asked.count("-L")
    until(lambda: smi.asked.count("-L") > first + 2, SOON_S, "it to be tried again")
    app = daemon.status()["apps"]["webui"]
    assert (app["pid"], app["restarts"], app["health"]) == (None, 0, "Degraded")
    assert daemon.events("app says") == []
    smi.has(FREE)
    daemon.until_ready()
    stage.check_serves("v23")


def test_a_switch_looks_when_the_old_process_has_given_its_memory_back(
    staged: Callable[..., Stage], smi: FakeNvidiaSmi
) -> None:
    """And when somebody else takes it, goes back: the version is not at fault."""
    stage = staged(gpu_memory="8G")
    daemon = stage.daemon
    daemon.start_ready()
    smi.held_by(f"{daemon.root}/app.py", FULL)
    assert daemon.cli("switch", "v22").code == 0
    stage.check_serves("v22")

    daemon.config["apps"]["webui"]["preflight"] = {"command": [sys.executable, "-c", "raise SystemExit('no')"]}
    daemon.write_config()
    assert daemon.cli("reload").code == 0
    pid = stage.pid()
    assert pid == daemon.status()["apps"]["webui"]["pid"], "what runs goes on"
    stuck = daemon.cli("switch", "v23")
    assert stuck.code == 1, "the previous version's start is checked as well"
    assert daemon.until_reason("preflight-failed")["hint"]
    assert stage.link() == "v22"
    daemon.config["apps"]["webui"]["preflight"] = {"gpu_memory": "8G"}
    daemon.write_config()
    assert daemon.cli("reload").code == 0
    daemon.until_ready()
    versions = daemon.cli("versions", "-o", "json").json["versions"]
    assert [row["quarantined"] for row in versions] == [False, False]


def test_of_an_app_that_a_person_has_stopped_nothing_is_asked(staged: Callable[..., Stage], smi: FakeNvidiaSmi) -> None:
    """Stopped in the middle of its preflight; a switch meanwhile leaves it out."""
    smi.hang()
    stage = staged(gpu_memory="8G")
    daemon = stage.daemon
    daemon.start()
    until(lambda: bool(smi.asked), SOON_S, "its GPU to be asked for")
    assert daemon.cli("stop", "webui").code == 0
    app = daemon.status()["apps"]["webui"]
    assert (app["state"], app["health"], app["pid"]) == ("stopped", "Suspended", None)
    asked = smi.asked
    assert daemon.cli("switch", "v22").code == 0
    assert (stage.link(), smi.asked) == ("v22", asked)
    smi.answer()
    assert daemon.cli("start", "webui").code == 0
    daemon.until_ready()
    stage.check_serves("v22")
    assert len(smi.asked) > len(asked)


def test_a_version_that_cannot_be_loaded_is_rolled_back_before_it_serves(staged: Callable[..., Stage]) -> None:
    stage = staged(command=[sys.executable, "-c", LOADS])
    daemon = stage.daemon
    daemon.start_ready()
    failed = daemon.cli("switch", "v22", "-o", "json")
    says(failed, 5, "v22: no tensor", "preflight")
    assert stage.operation(failed.json["id"])["result"] == "rolled-back"
    stage.check_serves("v23")
    assert not [event for event in daemon.events("app says") if event["text"].startswith("loading v22")]
    says(daemon.cli("switch", "v22"), 7, "quarantine")
