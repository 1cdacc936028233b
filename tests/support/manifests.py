"""What stands in deploy/, as a cluster would get it: built by kubectl, and held against schemas."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings

TOP = Path(__file__).parents[2]
DEPLOY = TOP / "deploy"
SCHEMAS = TOP / "tests" / "schemas"
KUBERNETES = ("1.30", "1.37")
"""The oldest version that knows what is used here, and the newest whose schemas there are."""
OLDEST_KUBECTL = 27
"""1.27: the first with kustomize 5."""
BUILT = (
    *(f"kubernetes/overlays/{name}" for name in ("dev", "staging", "prod")),
    *(f"kubernetes/variants/{name}" for name in ("sidecar", "node")),
    "kubernetes/components/fuse-device-plugin/node",
    "argocd/canary-rollouts",
    "argocd/canary-flagger",
    "argocd/health",
    "ci",
)
"""Directories with a kustomization."""
SERVING = tuple(name for name in BUILT if name.startswith("kubernetes/overlays") or "canary" in name)
"""Those in which mountd starts the app itself."""
SHARING = tuple(name for name in BUILT if name.startswith("kubernetes/variants"))
"""Those in which it mounts for other containers."""
ENVIRONMENTS = {"dev": "index-tts-dev", "staging": "index-tts-staging", "prod": "index-tts"}
"""Name → namespace."""
PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))
Object = dict[str, Any]
# It reads its schemas, 1.5 MB, again for each object.
kubernetes_validate.utils.schema_contents = lru_cache(kubernetes_validate.utils.schema_contents)


@lru_cache
def build(name: str) -> tuple[Object, ...]:
    """The objects of a directory below deploy/, as `kubectl kustomize` prints them.

    Skips without a kubectl that is new enough, in CI as well: neither Debian nor PyPI has one.
    """
    if lacking := _lacks_kubectl():
        pytest.skip(lacking)
    words = ["kubectl", "kustomize", str(DEPLOY / name)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "not even a warning"
    return read(done.stdout)


@lru_cache
def _lacks_kubectl() -> str:
    if shutil.which("kubectl") is None:
        return "no kubectl here"
    words = ["kubectl", "version", "--client", "--output=json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    found = json.loads(done.stdout)["clientVersion"]["minor"]
    return "" if int(found.rstrip("+")) >= OLDEST_KUBECTL else f"kubectl 1.{found} is too old"


@lru_cache
def documents(pattern: str) -> tuple[Object, ...]:
    """The objects in files below deploy/ that no kustomization holds."""
    return tuple(each for path in sorted(DEPLOY.glob(pattern)) for each in read(path.read_text("utf-8")))


def read(text: str) -> tuple[Object, ...]:
    return tuple(each for each in yaml.load_all(text, yaml.CSafeLoader) if each)


def of_kind(objects: Sequence[Object], *kinds: str) -> list[Object]:
    return [each for each in objects if each["kind"] in kinds]


def named(objects: Sequence[Object], kind: str, name: str) -> Object:
    (found,) = (each for each in of_kind(objects, kind) if each["metadata"]["name"] == name)
    return found


def problems(item: Object) -> list[str]:
    """What a cluster would not accept, or would silently drop; strictly."""
    version = item["apiVersion"]
    own = SCHEMAS / f"{version.replace('/', '_')}_{item['kind']}.json"
    if own.exists():
        found = jsonschema.Draft7Validator(json.loads(own.read_text("utf-8"))).iter_errors(item)
        return [f"{each.json_path}: {each.message}" for each in found]
    texts = []
    for kubernetes in KUBERNETES:
        try:
            kubernetes_validate.validate(item, kubernetes, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            texts.append(f"{kubernetes}: {getattr(error, 'message', error)}")
    return texts


@dataclass(frozen=True, slots=True)
class Workload:
    """What makes pods."""

    item: Object

    @property
    def name(self) -> str:
        return f"{self.item['kind']} {self.item['metadata']['name']}"

    @property
    def replicas(self) -> int:
        return int(self.item["spec"].get("replicas", 1))

    @property
    def pod(self) -> Object:
        found: Object = self.item["spec"]["template"]["spec"]
        return found

    @property
    def labels(self) -> Object:
        found: Object = self.item["spec"]["template"]["metadata"]["labels"]
        return found

    @property
    def containers(self) -> list[Object]:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def mountd(self) -> Object | None:
        """The container that runs it."""
        return next((each for each in self.containers if each.get("command") == ["mountd", "run"]), None)

    @property
    def volumes(self) -> dict[str, Object]:
        """By name; claims that the workload makes for each pod too."""
        made = self.item["spec"].get("volumeClaimTemplates", [])
        return {each["name"]: each for each in self.pod["volumes"]} | {
            each["metadata"]["name"]: {"made": each["spec"]} for each in made
        }

    def mounts(self, container: Object) -> dict[str, Object]:
        """Path in the container → its volumeMount."""
        return {each["mountPath"]: each for each in container.get("volumeMounts", [])}

    def files(self, container: Object) -> set[str]:
        """What ConfigMaps and Secrets put into the container; a whole one only as its directory."""
        found = set()
        for path, mount in self.mounts(container).items():
            volume = self.volumes[mount["name"]]
            for source in volume.get("projected", {}).get("sources", [volume]):
                held = source.get("configMap") or source.get("secret") or {}
                found |= {f"{path}/{item['path']}" for item in held.get("items", [])} or {path}
        return found


def workloads(objects: Sequence[Object]) -> list[Workload]:
    return [Workload(each) for each in of_kind(objects, "StatefulSet", "Deployment", "DaemonSet", "Rollout")]


@lru_cache
def all_workloads() -> list[tuple[str, Workload]]:
    """With the directory that each comes from."""
    return [(name, workload) for name in BUILT for workload in workloads(build(name))]


def configuration(objects: Sequence[Object]) -> str:
    """The mountd.yaml among the ConfigMaps."""
    data = [each.get("data", {}) for each in of_kind(objects, "ConfigMap")]
    (text,) = (each["mountd.yaml"] for each in data if "mountd.yaml" in each)
    return str(text)


def raw(objects: Sequence[Object]) -> Object:
    found: Object = yaml.load(configuration(objects), yaml.BaseLoader)
    return found


def settings(objects: Sequence[Object]) -> Settings:
    return parsed(raw(objects))


def parsed(data: Object) -> Settings:
    """Raises ConfigError."""
    return parse(yaml.safe_dump(data), "mountd.yaml", PLACES).settings


def within(path: str | Path, parent: str) -> bool:
    return PurePosixPath(parent) in PurePosixPath(path).parents


def script(name: str) -> Any:
    """A Python file below deploy/ as a module: they are shipped, and not part of the package."""
    path = DEPLOY / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
