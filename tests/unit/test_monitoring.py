"""deploy/monitoring: promtool accepts the rules, each alert fires and does not, all names and links exist."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.manifests import problems
from tests.support.monitoring import (
    ALERTS,
    DASHBOARD,
    DOCS,
    MONITORING,
    alerts,
    anchors,
    documented,
    groups,
    metrics_in,
    panels,
    promtool,
    queries,
    records,
)

BASE = "https://docs.example.com/mountd/"
LABEL = re.compile(r"\$labels\.(\w+)")
ALWAYS = {"job", "instance"}
"""Labels that Prometheus adds."""


# -- alerts -----------------------------------------------------------------------------------------------------------


@pytest.mark.prometheus
def test_prometheus_accepts_the_rules() -> None:
    rules = sum(len(group["rules"]) for group in groups())
    assert f"{rules} rules found" in promtool("check", "rules", str(ALERTS))


@pytest.mark.prometheus
def test_each_alert_fires_and_does_not() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(MONITORING / "alerts-test.yml"))


@pytest.mark.prometheus
def test_an_alert_that_is_broken_is_noticed(tmp_path: Path) -> None:
    broken = ALERTS.read_text().replace("expr: mountd_mount_up == 0", "expr: mountd_mount_up == 2")
    (tmp_path / "alerts.yml").write_text(broken)
    (tmp_path / "alerts-test.yml").write_text((MONITORING / "alerts-test.yml").read_text())
    with pytest.raises(AssertionError, match="MountdMountDown"):
        promtool("test", "rules", str(tmp_path / "alerts-test.yml"))


def test_no_alert_is_left_out_of_the_tests() -> None:
    tested = yaml.safe_load((MONITORING / "alerts-test.yml").read_text())["tests"]
    for name in alerts():
        (found,) = (each["promql_expr_test"] for each in tested if each["name"] == name)
        counts = [len(each["exp_samples"]) for each in found]
        assert (min(counts), max(counts)) == (0, 1), f"{name}: before its time, and after it on one of two machines"


@pytest.mark.parametrize("name", alerts())
def test_an_alert_says_what_happened_and_where_to_read_more(name: str) -> None:
    rule = alerts()[name]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert {*rule["annotations"]} == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["summary"] != rule["annotations"]["description"]
    url = rule["annotations"]["runbook_url"]
    assert url.startswith(BASE)
    page, anchor = url.removeprefix(BASE).split("/#")
    assert anchor in anchors(page)
    assert anchor == name.lower(), "each has a section of its own"
    section = (DOCS / f"{page}.md").read_text().split(f"### {name}\n")[1].split("\n### ")[0]
    assert section.strip().startswith(f"{rule['labels']['severity'].capitalize()}.")


@pytest.mark.parametrize("name", alerts())
def test_an_alert_knows_the_labels_that_it_names(name: str) -> None:
    rule = alerts()[name]
    of_metrics = frozenset[str]().union(*(documented()[each][1] for each in used(rule["expr"]) if each != "up"))
    named = set(LABEL.findall(f"{rule['annotations']}"))
    assert named <= of_metrics | ALWAYS


def used(query: str) -> set[str]:
    """Documented metrics, also through recording rules."""
    found = set()
    for name in metrics_in(query):
        found |= used(records()[name]) if ":" in name else {name}
    return found


def test_rules_name_metrics_that_there_are() -> None:
    for rule in [each for group in groups() for each in group["rules"]]:
        named = used(rule["expr"])
        assert named
        assert named <= documented().keys(), rule


def test_links_of_the_pages_exist() -> None:
    for page in ("monitoring", "metrics"):
        for target, anchor in re.findall(r"\]\((\w+)\.md(?:#([\w-]+))?\)", (DOCS / f"{page}.md").read_text()):
            assert (DOCS / f"{target}.md").exists()
            assert not anchor or anchor in anchors(target), f"{target}.md#{anchor}"


def test_what_the_page_makes_of_the_rules_is_a_prometheusrule() -> None:
    head = re.search(r"printf '(apiVersion.*?)'", (DOCS / "monitoring.md").read_text())
    assert head is not None
    text = head[1].replace("\\n", "\n") + re.sub("^", "  ", ALERTS.read_text(), flags=re.MULTILINE)
    made = yaml.safe_load(text)
    assert (made["kind"], made["spec"]["groups"]) == ("PrometheusRule", groups())


# -- the dashboard ----------------------------------------------------------------------------------------------------


def test_the_dashboard_names_metrics_and_labels_that_there_are() -> None:
    shown = set()
    for panel in panels():
        for target in panel["targets"]:
            named = metrics_in(target["expr"])
            assert named
            assert named <= documented().keys(), panel["title"]
            labels = frozenset[str]().union(*(documented()[name][1] for name in named))
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= labels | ALWAYS, panel["title"]
            shown |= named
    most = {name for name in documented() if name.startswith("mountd_")}
    assert len(most & shown) > len(most) * 3 // 4


def test_the_dashboard_takes_its_data_source_and_instances_from_variables() -> None:
    board = json.loads(DASHBOARD.read_text())
    variables = {each["name"]: each for each in board["templating"]["list"]}
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    sources: list[Any] = [each["datasource"] for each in [*panels(), *board["annotations"]["list"]]]
    sources += [target["datasource"] for panel in panels() for target in panel["targets"]]
    sources += [variables[name]["datasource"] for name in ("job", "instance")]
    assert all(each == {"type": "prometheus", "uid": "${datasource}"} for each in sources)
    for query in queries():
        assert 'job=~"$job",instance=~"$instance"' in query
        assert set(re.findall(r"\$(\w+)", query)) <= {*variables, "__rate_interval"}
    for name in ("job", "instance"):
        assert metrics_in(variables[name]["query"]["query"]) <= documented().keys()
    assert set(re.findall(r"\$(\w+)", board["annotations"]["list"][0]["expr"])) <= {*variables}


def test_a_panel_with_the_present_state_asks_for_that_alone() -> None:
    """Of a range it would show the last value of each series: also of a mountd, mount or health that is no more."""
    for panel in panels():
        if panel["type"] == "stat":
            assert [(each["instant"], each["range"]) for each in panel["targets"]] == [(True, False)] * len(
                panel["targets"]
            ), panel["title"]


def test_panels_have_names_and_places_of_their_own() -> None:
    board = json.loads(DASHBOARD.read_text())["panels"]
    assert len({each["id"] for each in board}) == len(board)
    assert len({each["title"] for each in board}) == len(board)
    taken: set[tuple[int, int]] = set()
    for panel in board:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    for panel in panels():
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs) > 0


# -- scraping ---------------------------------------------------------------------------------------------------------


@pytest.mark.prometheus
def test_prometheus_accepts_the_configuration() -> None:
    assert "SUCCESS" in promtool("check", "config", str(MONITORING / "prometheus.yml"))


def test_the_podmonitor_is_valid() -> None:
    monitor = yaml.safe_load((MONITORING / "podmonitor.yaml").read_text())
    assert problems(monitor) == []
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("mountd", "/metrics")
