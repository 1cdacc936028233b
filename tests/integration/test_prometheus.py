"""A real Prometheus scrapes a real daemon: what it says of the metrics, and what the dashboard and the alerts get."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.metrics import Scrape, scrape
from tests.support.monitoring import alerts, documented, panels, prometheus, promtool
from tests.support.receiver import Receiver
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = [pytest.mark.fuse]

SOON_S = 90.0
ONLY_SOMETIMES = ("mountd_operation_progress_ratio", "mountd_reasons", "mountd_tls_certificate")
"""While an operation loads data, while something is wrong, with TLS."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found


@pytest.fixture
def serving(daemon: Daemon, store: RcloneS3, receiver: Receiver) -> Daemon:
    """A daemon with two mounts, one of them for outputs, an outbox, and a target of notifications."""
    (store.directory / "outputs").mkdir()
    storage = daemon.config["mounts"]["storage"]
    storage["cache"]["max_size"] = "1G"
    daemon.config["mounts"]["outputs"] = {
        "remote": "store:outputs",
        "path": str(daemon.root / "out"),
        "profile": "outputs",
        "cache": {"dir": str(daemon.root / "cache-out"), "min_free": "1%"},
    }
    (daemon.root / "results").mkdir()
    daemon.config["outbox"] = {
        "results": {"directory": str(daemon.root / "results"), "remote": "store:outputs/results"}
    }
    address = daemon.root / "receiver"
    address.write_text(receiver.url)
    daemon.config["notify"] = {"ops": {"webhook": {"file": str(address)}}}
    daemon.start_ready()
    return daemon


def are_probed(found: Scrape) -> bool:
    """Both mounts, of which mountd is ready without the one for outputs, and their buckets."""
    probes = [f"mountd_{each}_probe_duration_seconds_count" for each in ("mount", "bucket")]
    up = ["mountd_mount_up", "mountd_bucket_up"]
    return all(found.value(name, mount=mount) > 0 for name in (*probes, *up) for mount in ("storage", "outputs"))


def test_the_page_names_what_a_daemon_shows(serving: Daemon) -> None:
    found = scrape(serving)
    exposed = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type for family in found.families
    }
    assert exposed == {name: kind for name, (kind, _) in documented().items()}
    found = until(lambda: found if are_probed(found := scrape(serving)) else None, SOON_S, "both mounts to be up")
    for family in found.families:
        for sample in family.samples:
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert {*sample.labels} - {"le"} == documented()[name][1], name
    for mount in ("storage", "outputs"):
        assert found.value("mountd_mount_up", mount=mount) == 1
        assert found.value("mountd_bucket_up", mount=mount) == 1
        assert found.value("mountd_bucket_probe_duration_seconds_count", mount=mount) > 0
        assert found.value("mountd_cache_usable", mount=mount) == 1
    assert found.value("mountd_ready") == 1
    assert found.value("mountd_mount_fetched_bytes_total", mount="storage") >= 0
    assert found.value("mountd_app_up", app="webui") == 1
    assert found.value("mountd_model_version_info", model="cache_hub", role="current", version="v23") == 1
    (build,) = found.samples("mountd_build_info")
    assert re.match(r"v?1\.\d+", dict(build)["rclone"])
    assert found.value("process_resident_memory_bytes") > 10_000_000
    assert serving.secret_access_key not in found.text
    assert found.value("mountd_mount_restarts_total", mount="storage") == 0
    os.kill(serving.status()["mounts"]["storage"]["pid"], signal.SIGKILL)
    until(lambda: scrape(serving).value("mountd_mount_restarts_total", mount="storage") == 1, SOON_S, "a restart")
    assert scrape(serving).value("mountd_mount_restarts_total", mount="outputs") == 0


@pytest.mark.prometheus
@pytest.mark.slow
def test_prometheus_gets_what_dashboard_and_alerts_ask_for(serving: Daemon, tmp_path: Path) -> None:
    assert promtool("check", "metrics", stdin=scrape(serving).text).strip() == ""
    switched = {"kind": "switch", "result": "committed"}
    assert scrape(serving).value("mountd_operations_total", **switched) == 0
    done = serving.cli("switch", "v22")
    assert done.code == 0, done.err
    address = f"127.0.0.1:{serving.http_port}"
    with prometheus(tmp_path, {"mountd": [address]}) as server:
        (target,) = until(lambda: server.get("targets")["activeTargets"], SOON_S, "a target")
        until(lambda: server.get("targets")["activeTargets"][0]["health"] == "up", SOON_S, "the target to be up")
        assert target["labels"] == {"job": "mountd", "instance": address}
        until(lambda: server.query("count_over_time(mountd_ready[1h]) > 4"), SOON_S, "a few scrapes")
        loaded = {
            rule["name"]: rule for group in server.get("rules")["groups"] for rule in group["rules"] if "state" in rule
        }
        assert loaded.keys() == alerts().keys()
        until(
            lambda: all(rule["health"] == "ok" for group in server.get("rules")["groups"] for rule in group["rules"]),
            SOON_S,
            "each rule to be evaluated",
        )

        def are_full() -> bool:
            if empty := {panel["title"]: expr for panel in panels() if (expr := without_data(server.query, panel))}:
                raise LookupError(f"no data: {empty}")
            return True

        until(are_full, SOON_S, "each panel to have data")  # a rate needs two scrapes since the counter is there
        (switches,) = server.query('mountd_operations_total{kind="switch",result="committed"}')
        assert switches["value"][1] == "1"
        (live,) = server.query('mountd_model_version_info{role="current"}')
        assert live["metric"]["version"] == "v22"
        firing = {each["labels"]["alertname"] for each in server.get("alerts")["alerts"] if each["state"] == "firing"}
        assert firing == set()


def without_data(query: Callable[[str], list[dict[str, object]]], panel: dict[str, object]) -> list[str]:
    """The queries of a panel that give nothing."""
    found = []
    targets = panel["targets"]
    assert isinstance(targets, list)
    for target in targets:
        expr = target["expr"].replace("$job", ".+").replace("$instance", ".+").replace("$__rate_interval", "1m")
        # Whether something happens within the time of the test is not the question.
        expr = expr.removesuffix(" > 0")
        if not any(name in expr for name in ONLY_SOMETIMES) and not query(expr):
            found.append(expr)
    return found
