"""A deployment repository with the overlays, and what Argo CD and a kubelet make of a commit: a file in a pod."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.daemon import Daemon
from tests.support.manifests import DEPLOY, of_kind, read

COMMIT = DEPLOY / "ci" / "commit-version.sh"
MODEL = "cache_hub"


def git(directory: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=directory,
        env=_environment(directory),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def commit(clone: Path, environment: str, version: str) -> subprocess.CompletedProcess[str]:
    """By the script of deploy/ci."""
    words = ["sh", str(COMMIT), environment, version]
    kept = _environment(clone)
    return subprocess.run(words, cwd=clone, env=kept, capture_output=True, text=True, timeout=60, check=False)


def clone(origin: Path, name: str) -> Path:
    """A clone in the same directory."""
    made = origin.parent / name
    git(origin.parent, "clone", "--quiet", origin.name, name)
    git(made, "config", "user.name", name)
    git(made, "config", "user.email", f"{name}@example.com")
    return made


def repository(directory: Path) -> Path:
    """A bare one, whose one commit holds deploy/kubernetes."""
    git(directory, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    first = clone(directory / "origin.git", "first")
    shutil.copytree(DEPLOY / "kubernetes", first / "deploy/kubernetes")
    git(first, "checkout", "--quiet", "-B", "main")
    git(first, "add", "--all")
    git(first, "commit", "--quiet", "--message", "begin")
    git(first, "push", "--quiet", "--set-upstream", "origin", "main")
    return directory / "origin.git"


class Cluster:
    """Follows the repository as Argo CD does, and gives a daemon the wanted version as its pod gets it."""

    def __init__(self, origin: Path, environment: str, daemon: Daemon) -> None:
        self._clone = clone(origin, "cluster")
        self._overlay = self._clone / "deploy/kubernetes/overlays" / environment
        self._wanted = daemon.root / "wanted" / "version"
        self._wanted.parent.mkdir()
        del daemon.config["models"][MODEL]["version"]
        daemon.config["models"][MODEL]["desired"] = {"file": str(self._wanted)}
        self.sync()

    def sync(self) -> str:
        """The wanted version, now in the pod."""
        git(self._clone, "pull", "--quiet")
        words = ["kubectl", "kustomize", str(self._overlay)]
        built = read(subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout)
        data = [each.get("data", {}) for each in of_kind(built, "ConfigMap")]
        (version,) = (each["version"] for each in data if "version" in each)
        new = self._wanted.with_suffix(".new")
        new.write_text(version)
        new.replace(self._wanted)
        return str(version).strip()


def _environment(home: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
