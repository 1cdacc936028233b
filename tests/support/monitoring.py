"""What stands in deploy/monitoring and docs about metrics; Debian's Prometheus, run for a test."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import dies_with_us, hold_port
from tests.support.manifests import DEPLOY, TOP
from tests.support.wait import until

MONITORING = DEPLOY / "monitoring"
DOCS = TOP / "docs"
DASHBOARD = MONITORING / "grafana-dashboard.json"
ALERTS = MONITORING / "alerts.yml"
SOON_S = 60.0
TOOL_S = 120.0
_SUFFIXES = ("_bucket", "_sum", "_count")


def need(program: str) -> str:
    """The path of a program of Debian's package prometheus; skips without it, which is a failure in CI."""
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"no {program}: apt-get install prometheus")
    return found


def promtool(*words: str, stdin: str | None = None) -> str:
    """What it prints. Fails with that when it finds something wrong."""
    done = subprocess.run(
        [need("promtool"), *words], input=stdin, capture_output=True, text=True, timeout=TOOL_S, check=False
    )
    assert done.returncode == 0, f"promtool {' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@lru_cache
def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """name → type and labels, as docs/metrics.md has them."""
    found = {}
    for row in re.findall(r"^\| `\w+` \|.*$", (DOCS / "metrics.md").read_text(), re.MULTILINE):
        name, kind, _, labels, _ = (cell.strip() for cell in row.strip("|").split("|"))
        # Before the colon the label, after it its values.
        names = re.findall(r"(?:^|, )`(\w+)`", re.sub(r":[^;]*?(?=, `\w+`:|$)", "", labels))
        found[name.strip("`")] = (kind, frozenset(names))
    return found


def groups() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"]
    return found


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in groups() for rule in group["rules"] if "alert" in rule}


def records() -> dict[str, str]:
    return {rule["record"]: rule["expr"] for group in groups() for rule in group["rules"] if "record" in rule}


def panels() -> list[dict[str, Any]]:
    """Of the dashboard, without the rows."""
    found = json.loads(DASHBOARD.read_text())["panels"]
    return [each for each in found if each["type"] != "row"]


def queries() -> list[str]:
    """Of the dashboard."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def metrics_in(query: str) -> set[str]:
    """The metrics that a query names; of a histogram its own name."""
    words = set(re.findall(r"\b(?:mountd|process)[_:][\w:]+", re.sub(r'"[^"]*"', "", query)))
    return {_family(word) for word in words}


def _family(word: str) -> str:
    for suffix in _SUFFIXES:
        base = word.removesuffix(suffix)
        if base != word and documented().get(base, ("",))[0] == "histogram":
            return base
    return word


def anchors(page: str) -> set[str]:
    """What can follow the `#` of a link to docs/PAGE.md."""
    heads = re.findall(r"^#+ (.+)$", (DOCS / f"{page}.md").read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


# -- Prometheus -------------------------------------------------------------------------------------------------------


class Prometheus:
    """One that runs."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **query: str) -> Any:
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found


@contextmanager
def prometheus(root: Path, targets: dict[str, list[str]], interval_s: int = 1) -> Iterator[Prometheus]:
    """With the shipped configuration and rules, but other targets (job → addresses) and a shorter interval."""
    program = need("prometheus")
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": f"{interval_s}s", "evaluation_interval": f"{interval_s}s"}
    (scrape,) = config["scrape_configs"]
    config["scrape_configs"] = [
        scrape | {"job_name": job, "static_configs": [{"targets": found}]} for job, found in targets.items()
    ]
    (root / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(ALERTS, root / "alerts.yml")
    promtool("check", "config", str(root / "prometheus.yml"))
    held = hold_port()
    address = f"127.0.0.1:{held.getsockname()[1]}"
    with (root / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            dies_with_us(
                [
                    program,
                    f"--config.file={root}/prometheus.yml",
                    f"--storage.tsdb.path={root}/data",
                    f"--web.listen-address={address}",
                    "--web.enable-lifecycle",
                    "--log.level=warn",
                ]
            ),
            stdout=log,
            stderr=log,
        )
    try:
        found = Prometheus(address)

        def answers() -> bool:
            assert process.poll() is None, (root / "prometheus.log").read_text()
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)

        until(answers, SOON_S, "Prometheus to be ready")
        yield found
    finally:
        process.terminate()
        process.wait(SOON_S)
        held.close()
