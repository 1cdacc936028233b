"""Switches, kills, drift and outages in any order, against a model of what must hold after each of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from mountd.demo import hub
from tests.support.bad_versions import build_bad
from tests.support.daemon import ONLY_BY_EVENTS, Daemon
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.switch_world import CRASHING, GATED, MISSING, World
from tests.support.versioned import Versioned

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

# What once went wrong.
SCRIPTS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "an app that found another version behind the link": [
        ("pause", {}),
        ("drift", {"how": "other"}),
        ("kill_the_app", {}),
        ("kill_mountd", {"both": False, "version": None, "after_s": 0.0}),
        ("resume", {}),
    ],
    "a link that was left elsewhere, and a switch to what is live": [
        ("pause", {}),
        ("drift", {"how": "other"}),
        ("switch", {"version": "v23", "force": False}),
        ("drift", {"how": "nowhere"}),
        ("switch", {"version": "v23", "force": False}),
        ("resume", {}),
    ],
    "a request of the file, and a switch by hand that is cut off": [
        ("declare", {"version": MISSING}),
        ("kill_mountd", {"both": True, "version": "v22", "after_s": 0.3}),
    ],
    "a removed link of a paused model, and a restart in an outage": [
        ("pause", {}),
        ("drift", {"how": "removed"}),
        ("outage_begins", {}),
        ("roll_back", {}),
        ("kill_mountd", {"both": False, "version": None, "after_s": 0.0}),
        ("outage_ends", {}),
    ],
}
LIMITS = [
    pytest.param(2, 30, 20.0, marks=pytest.mark.timeout(300), id="short"),
    pytest.param(30, 60, 40.0, marks=[pytest.mark.long, pytest.mark.timeout(1800)], id="long"),
]


@pytest.fixture
def world(make_daemon: Callable[..., Daemon], store: RcloneS3, proxy: Proxy) -> type[World]:
    """Of daemons over one bucket."""
    hub.build(store.directory, versions=(CRASHING, GATED), scale=1 / 10_000)
    build_bad(store.directory)
    bucket = proxy

    class This(World):
        proxy = bucket

        @staticmethod
        def begin() -> Versioned:
            daemon = make_daemon(endpoint=bucket.endpoint, program=(sys.executable, "-c", ONLY_BY_EVENTS))
            daemon.config["mounts"]["storage"]["options"] = {"low-level-retries": "2"}
            daemon.config["models"]["cache_hub"]["sync"] = {"retry": {"limit": 0}}
            daemon.config["apps"]["webui"]["restart"] = {"backoff": {"max": "2s"}, "limit": "100 in 10m"}
            at = Versioned(daemon, store.directory, ready="60s")
            at.behave(CRASHING, "crash")
            at.close_gate(GATED)
            daemon.start_ready()
            return at

        def teardown(self) -> None:
            self.proxy.up()
            if self.begun is not None and not self.failed:  # else its log is shown at the end
                self.daemon.close()

    return This


@pytest.mark.thorough
@pytest.mark.parametrize("script", SCRIPTS)
def test_what_once_went_wrong(world: type[World], script: str) -> None:
    each = world()
    for name, given in SCRIPTS[script]:
        getattr(each, name)(**given)
    each.teardown()


@pytest.mark.parametrize(("examples", "steps", "each_s"), LIMITS)
def test_whatever_happens_in_whatever_order(world: type[World], examples: int, steps: int, each_s: float) -> None:
    world.each_s = each_s
    run_state_machine_as_test(
        world,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # made smaller, a failure would take an hour; what was done is shown with it
            suppress_health_check=list(HealthCheck),
        ),
    )
