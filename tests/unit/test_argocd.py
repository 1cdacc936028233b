"""Argo CD: Applications, projects, the ApplicationSet, the health check that shows mountd's stage, its reporter."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support import health_check
from tests.support.manifests import (
    DEPLOY,
    ENVIRONMENTS,
    SERVING,
    Object,
    build,
    documents,
    named,
    of_kind,
    problems,
    script,
)

HEALTHS = {"Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"}
DOCUMENTS = json.loads(Path(__file__).with_name("documents.json").read_text())
REPORT = "kubernetes/components/argocd-health/report.py"


def application(name: str) -> Object:
    (found,) = documents(f"argocd/applications/{name}.yaml")
    return found


def project(name: str) -> Object:
    (found,) = documents(f"argocd/projects/{name}.yaml")
    return found


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_schemas_accept_applications_and_projects(name: str) -> None:
    assert problems(application(name)) == []
    assert problems(project(name)) == []


@pytest.mark.parametrize(("name", "namespace"), ENVIRONMENTS.items())
def test_an_application_keeps_its_environment_as_git_says(name: str, namespace: str) -> None:
    spec = application(name)["spec"]
    policy = spec["syncPolicy"]
    assert policy["automated"] == {"prune": True, "selfHeal": True}
    assert policy["retry"] == {"limit": 3, "backoff": {"duration": "10s", "factor": 2, "maxDuration": "1m"}}
    assert policy["syncOptions"] == ["CreateNamespace=true"], "PruneLast waits for health, and no other sync begins"
    assert spec["source"]["path"] == f"deploy/kubernetes/overlays/{name}"
    assert (DEPLOY.parent / spec["source"]["path"] / "kustomization.yaml").exists()
    assert spec["destination"]["namespace"] == namespace
    assert {each["metadata"]["namespace"] for each in build(f"kubernetes/overlays/{name}")} == {namespace}
    labels = policy["managedNamespaceMetadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged", "FUSE needs what baseline forbids"


@pytest.mark.parametrize(("name", "namespace"), ENVIRONMENTS.items())
def test_a_project_permits_its_application_and_no_other_namespace(name: str, namespace: str) -> None:
    found, of_app = project(name)["spec"], application(name)["spec"]
    assert project(name)["metadata"]["name"] == of_app["project"]
    assert found["sourceRepos"] == [of_app["source"]["repoURL"]]
    assert found["destinations"] == [{"server": of_app["destination"]["server"], "namespace": namespace}]
    assert found["clusterResourceWhitelist"] == [{"group": "", "kind": "Namespace"}]
    permitted = {(each["group"], each["kind"]) for each in found["namespaceResourceWhitelist"]}
    variants = ["kubernetes/variants/sidecar", "kubernetes/variants/node"]
    canaries = ["argocd/canary-rollouts", "argocd/canary-flagger"]
    for built in (f"kubernetes/overlays/{name}", *variants, *canaries):
        kinds = {(each["apiVersion"].rpartition("/")[0], each["kind"]) for each in build(built)}
        assert kinds <= permitted, built
    assert ("", "Secret") not in permitted, "Secrets are not kept in Git"
    for role in found["roles"]:
        verbs = {line.split(", ")[3] for line in role["policies"]}
        assert verbs <= ({"get"} if role["name"] == "reader" else {"get", "sync"})


@pytest.mark.parametrize("name", SERVING)
def test_no_sync_removes_the_configuration_of_pods_that_are_not_replaced_yet(name: str) -> None:
    for each in of_kind(build(name), "ConfigMap"):
        if re.search(r"-[0-9a-z]{10}$", each["metadata"]["name"]):
            annotations = each["metadata"]["annotations"]
            assert annotations["argocd.argoproj.io/sync-options"] == "Prune=false"
            assert annotations["argocd.argoproj.io/compare-options"] == "IgnoreExtraneous", "and it is Synced"


def filled_in(template: object, values: dict[str, str]) -> Any:
    """As Argo CD renders a template whose only expressions are names."""
    text = json.dumps(template)
    for name, value in values.items():
        text = text.replace("{{." + name + "}}", value)
    assert "{{" not in text
    return json.loads(text)


def test_the_applicationset_makes_the_same_applications() -> None:
    (found,) = documents("argocd/applicationset.yaml")
    assert problems(found) == []
    spec = found["spec"]
    assert spec["goTemplate"]
    assert spec["syncPolicy"]["preserveResourcesOnDeletion"]
    assert "finalizers" not in spec["template"]["metadata"], "one in the template is kept, and deletes all the same"
    (generator,) = spec["generators"]
    made = [filled_in(spec["template"], values) for values in generator["list"]["elements"]]
    assert {each["metadata"]["name"]: each["spec"] for each in made} == {
        application(name)["metadata"]["name"]: application(name)["spec"] for name in ENVIRONMENTS
    }


def status_map(pods: dict[str, tuple[str, str]]) -> Object:
    found = copy.deepcopy(named(build("kubernetes/overlays/dev"), "ConfigMap", "index-tts-status"))
    for pod, reported in pods.items():
        merge(found, script(REPORT).patch(pod, reported))
    return found


def merge(target: Object, change: Object) -> None:
    """A JSON merge patch (RFC 7386), in place."""
    for key, value in change.items():
        if isinstance(value, dict):
            merge(target.setdefault(key, {}), value)
        elif value is None:
            target.pop(key, None)
        else:
            target[key] = value


@pytest.mark.parametrize(
    ("pods", "status", "message"),
    [
        ({}, "Progressing", "no pod has reported yet"),
        ({"index-tts-0": ("Healthy", "hub v23 (linked)")}, "Healthy", "index-tts-0: hub v23 (linked)"),
        (
            {"index-tts-1": ("Healthy", "hub v23"), "index-tts-0": ("Progressing", "switch hub v22 → v23: warm 43 %")},
            "Progressing",
            "index-tts-0: switch hub v22 → v23: warm 43 %\nindex-tts-1: hub v23",
        ),
        (
            {"a": ("Degraded", "away"), "b": ("Progressing", "x"), "c": ("Suspended", "y")},
            "Degraded",
            "a: away\nb: x\nc: y",
        ),
        ({"a": ("Suspended", "by tina"), "b": ("Healthy", "y")}, "Suspended", "a: by tina\nb: y"),
        ({"a": ("Splendid", "?")}, "Unknown", "a: ?"),
    ],
)
def test_the_health_check_shows_stage_and_percent(pods: dict[str, tuple[str, str]], status: str, message: str) -> None:
    assert health_check.health(status_map(pods)) == (status, message)


def test_of_many_pods_the_health_check_shows_those_that_are_not_well() -> None:
    """One line for each would be more than anybody reads, and than Argo CD should keep."""
    pods = {f"index-tts-{number}": ("Healthy", "hub v23") for number in range(300)}
    pods |= {f"index-tts-{number}": ("Progressing", "warm 43 %") for number in range(100, 130)}
    pods["index-tts-250"] = ("Degraded", "v24 was rolled back")
    status, message = health_check.health(status_map(pods))
    assert (status, message is not None) == ("Degraded", True)
    first, second, *_, last_but_one, last = str(message).splitlines()
    assert (first, second) == ("index-tts-250: v24 was rolled back", "index-tts-100: warm 43 %")
    assert (last_but_one, last) == ("and 11 more Progressing", "and 269 more Healthy")
    assert len(str(message)) < 2000


@pytest.mark.parametrize(
    ("found", "written", "age_s", "due"),
    [
        (("Healthy", "v23"), None, 0.0, True),
        (("Healthy", "v23"), ("Healthy", "v23"), 600.0, False),
        (("Degraded", "v23"), ("Healthy", "v23"), 0.0, True),
        (("Progressing", "warm 43 %"), ("Progressing", "warm 42 %"), 10.0, False),
        (("Progressing", "warm 43 %"), ("Progressing", "warm 42 %"), 60.0, True),
    ],
)
def test_when_a_pod_reports(found: tuple[str, str], written: tuple[str, str] | None, age_s: float, due: bool) -> None:
    """Hundreds of pods write the same ConfigMap."""
    assert script(REPORT).is_due(found, written, age_s) is due


def test_a_pod_that_leaves_is_shown_no_more() -> None:
    found = status_map({"a": ("Degraded", "away"), "b": ("Healthy", "fine")})
    merge(found, script(REPORT).patch("a", None))
    assert health_check.health(found) == ("Healthy", "b: fine")


@pytest.mark.parametrize("name", ["kubernetes/overlays/dev", "kubernetes/overlays/prod"])
def test_other_config_maps_stay_as_they_are(name: str) -> None:
    """The check is asked for each ConfigMap of the cluster."""
    others = [each for each in build(name) if each["kind"] == "ConfigMap" and "status" not in each["metadata"]["name"]]
    assert others
    assert {health_check.health(each) for each in others} == {("Healthy", None)}
    assert health_check.health({"kind": "ConfigMap", "metadata": {"name": "bare"}}) == ("Healthy", None)


def status(**changes: Any) -> Object:
    found: Object = copy.deepcopy(DOCUMENTS["status"])
    return found | changes


def test_the_report_of_an_operation() -> None:
    running = DOCUMENTS["status"]["operation"] | {"step": "warm", "percent": 43}
    health, line = script(REPORT).summarize(status(operation=running))
    assert health == "Progressing"
    assert line.endswith(": warm 43 %")
    assert f"→ {running['to']}" in line


def test_the_report_of_what_is_live() -> None:
    model = DOCUMENTS["status"]["models"]["hub"] | {"loading": None, "suspended": None, "sync": "Synced"}
    calm = status(operation=None, health="Healthy", ready=True, models={"hub": model}, reasons=[])
    assert script(REPORT).summarize(calm) == ("Healthy", "hub v22 (linked)")
    assert script(REPORT).summarize(calm | {"ready": False})[0] == "Progressing", "it runs, and serves nobody yet"


def test_the_report_says_why_it_is_not_well() -> None:
    health, line = script(REPORT).summarize(status(operation=None))
    assert health in HEALTHS
    assert "pin of v22 30 %" in line
    assert "sync suspended: tina" in line
    assert DOCUMENTS["status"]["reasons"][0]["text"] in line
    assert "voice waits for" in line
