"""All that a cluster reads of deploy/: kubectl builds it, Kubernetes' schemas and those of the CRDs accept it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mountd.settings import names
from tests.support.manifests import (
    BUILT,
    DEPLOY,
    ENVIRONMENTS,
    SERVING,
    SHARING,
    TOP,
    Object,
    all_workloads,
    build,
    documents,
    named,
    of_kind,
    parsed,
    problems,
    raw,
    read,
    settings,
    workloads,
)

MODES = (
    *(("kubernetes/overlays/dev", False), ("kubernetes/overlays/staging", False), ("kubernetes/overlays/prod", True)),
    *(("kubernetes/variants/sidecar", False), ("kubernetes/variants/node", False)),
    *(("argocd/canary-rollouts", True), ("argocd/canary-flagger", True)),
)
"""Whether another version is another ConfigMap, so that pods are replaced; else it is switched in place."""


def test_every_kustomization_is_tested() -> None:
    found = {str(path.parent.relative_to(DEPLOY)) for path in DEPLOY.rglob("kustomization.yaml")}
    components = {name for name in found if "kind: Component" in (DEPLOY / name / "kustomization.yaml").read_text()}
    assert found - components == {*BUILT, "kubernetes/base"}
    used = {
        str((DEPLOY / name / component).resolve().relative_to(DEPLOY))
        for name in BUILT
        for (each,) in [read((DEPLOY / name / "kustomization.yaml").read_text())]
        for component in each.get("components", [])
    }
    assert used == components


@pytest.mark.parametrize("name", BUILT)
def test_schemas_accept_what_is_built(name: str) -> None:
    objects = build(name)
    assert {f"{each['kind']} {each['metadata']['name']}": problems(each) for each in objects} == {
        f"{each['kind']} {each['metadata']['name']}": [] for each in objects
    }


def test_schemas_notice_mistakes() -> None:
    good = named(build("kubernetes/overlays/dev"), "StatefulSet", "index-tts")
    typo = good | {"spec": good["spec"] | {"replica": 1}}
    assert problems(typo)
    rollout = named(build("argocd/canary-rollouts"), "Rollout", "index-tts")
    assert problems(rollout | {"spec": rollout["spec"] | {"strategy": {"canary": {"step": []}}}})


@pytest.mark.parametrize("name", BUILT)
def test_nothing_is_defined_twice_and_all_have_a_namespace(name: str) -> None:
    keys = [(each["kind"], each["metadata"]["name"], each["metadata"].get("namespace")) for each in build(name)]
    assert len(set(keys)) == len(keys)
    assert [key for key in keys if key[2] is None] == []


@pytest.mark.parametrize("name", [*SERVING, *SHARING])
def test_mountd_accepts_its_configuration(name: str) -> None:
    found = settings(build(name))
    assert set(found.models) == {"cache_hub"}
    assert bool(found.apps) == (name in SERVING)


def test_the_configuration_for_publishing() -> None:
    (data,) = documents("ci/mountd-publish.yaml")
    assert set(parsed(data).models) == {"cache_hub"}


def wanted(objects: tuple[Object, ...]) -> Object:
    (found,) = (each for each in of_kind(objects, "ConfigMap") if "version" in each.get("data", {}))
    return found


@pytest.mark.parametrize(("name", "rolls"), MODES)
def test_the_wanted_version_is_data(name: str, rolls: bool) -> None:
    """A file of its own, that CI writes; its ConfigMap is what `models.*.desired.file` reads."""
    objects = build(name)
    config_map = wanted(objects)
    version = (DEPLOY / name / "version").read_text()
    assert config_map["data"]["version"] == version
    names.check_version(version.strip())
    has_hash = re.search(r"-[0-9a-z]{10}$", config_map["metadata"]["name"]) is not None
    assert (has_hash, config_map.get("immutable", False)) == (rolls, rolls)
    desired = raw(objects)["models"]["cache_hub"]["desired"]["file"]
    (workload,) = (each for each in workloads(objects) if each.mountd)
    assert workload.mountd is not None
    assert desired in workload.files(workload.mountd)
    sources = [each["configMap"] for each in workload.volumes["config"]["projected"]["sources"]]
    assert config_map["metadata"]["name"] in [each["name"] for each in sources], "the name is replaced where it is used"


@pytest.mark.parametrize("name", [*SERVING, *SHARING])
def test_references_lead_somewhere(name: str) -> None:
    """ConfigMaps, claims and accounts are in the same build; Secrets are made by hand, as the page says."""
    objects = build(name)
    page = (TOP / "docs/kubernetes.md").read_text()
    there = {each["metadata"]["name"] for each in objects} | {"kube-root-ca.crt"}
    for workload in workloads(objects):
        assert workload.pod.get("serviceAccountName", "index-tts") in there | {"index-tts"}
        for volume in workload.volumes.values():
            for source in volume.get("projected", {}).get("sources", [volume]):
                if held := source.get("configMap"):
                    assert held["name"] in there
                if secret := source.get("secret"):
                    assert f"create secret generic {secret.get('secretName') or secret['name']} " in page
            if claim := volume.get("persistentVolumeClaim"):
                assert claim["claimName"] in there


def test_services_and_monitors_find_their_pods() -> None:
    for name in (*SERVING, *SHARING):
        objects = build(name)
        ports = {
            (frozenset(workload.labels.items()), port["name"])
            for workload in workloads(objects)
            for container in workload.containers
            for port in container.get("ports", [])
        }
        for service in of_kind(objects, "Service"):
            for port in service["spec"]["ports"]:
                assert (frozenset(service["spec"]["selector"].items()), port["targetPort"]) in ports, (name, port)
        for monitor in of_kind(objects, "PodMonitor"):
            named_ports = {each["port"] for each in monitor["spec"]["podMetricsEndpoints"]}
            assert named_ports <= {port for _, port in ports}


def test_images_are_pinned_and_come_from_one_place() -> None:
    """One registry of the reader's own, to change in one place of each kustomization; never a tag that moves."""
    for name, workload in all_workloads():
        for container in workload.containers:
            image = container["image"]
            assert re.fullmatch(r"registry\.example\.com/[\w/-]+:[\w.-]*\d[\w.-]*", image), (name, image)


def test_what_has_to_be_changed_is_marked() -> None:
    """Each place that names something of the reader's own."""
    own = re.compile(r"example\.com|compshare|tts-developers|tts-operators")
    files = [path for room in ("kubernetes", "argocd") for path in (DEPLOY / room).rglob("*.yaml")]
    unmarked = [
        f"{path.relative_to(DEPLOY)}: {line.strip()}"
        for path in files
        for line in path.read_text().splitlines()
        if own.search(line) and "CHANGE" not in line and not line.lstrip().startswith(("#", "compshare:"))
    ]
    assert [line for line in unmarked if not line.startswith("argocd/applicationset")] == []


def test_the_environments_differ_in_little() -> None:
    """One configuration for all: a version that worked in dev meets the same in prod."""
    texts = {name: raw(build(f"kubernetes/overlays/{name}")) for name in ENVIRONMENTS}
    assert texts["dev"] == texts["staging"] == texts["prod"]
    for name, namespace in ENVIRONMENTS.items():
        assert {each["metadata"]["namespace"] for each in build(f"kubernetes/overlays/{name}")} == {namespace}


def test_the_schemas_have_an_origin() -> None:
    page = (TOP / "tests/schemas/README.md").read_text()
    for path in Path(TOP / "tests/schemas").glob("*.json"):
        assert path.name.rpartition("_")[2].removesuffix(".json") in page


RECORDING = """#!/bin/sh
case " $* " in
    *" create secret "*) exec {kubectl} "$@" --dry-run=client -o yaml ;;
esac
"""


def test_the_secrets_of_the_page_are_those_of_the_manifests(tmp_path: Path) -> None:
    """Its first block, line by line; of a cluster only `create secret` is played, which prints what it would make."""
    page = (TOP / "docs/kubernetes.md").read_text()
    block = page.partition("```sh\n")[2].partition("```")[0]
    build("kubernetes/overlays/dev")  # skips without a kubectl
    tool = tmp_path / "bin" / "kubectl"
    tool.parent.mkdir()
    tool.write_text(RECORDING.format(kubectl=shutil.which("kubectl")))
    tool.chmod(0o755)
    for name in ("access_key_id", "secret_key"):
        (tmp_path / name).write_text(f"the {name}")
    path = f"{tool.parent}:{os.environ['PATH']}"
    words = ["sh", "-eu", "-c", block]
    environment = {"PATH": path, "HOME": str(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    documents_of = re.sub(r"(?m)^apiVersion", "---\n\\g<0>", done.stdout)
    made = {each["metadata"]["name"]: set(each["data"]) for each in read(documents_of)}
    for workload in workloads(build("kubernetes/overlays/dev")):
        for volume in workload.volumes.values():
            for source in volume.get("projected", {}).get("sources", [volume]):
                if secret := source.get("secret"):
                    name = secret.get("secretName") or secret["name"]
                    assert {item["key"] for item in secret["items"]} <= made[name]
