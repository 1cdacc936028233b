"""From a trained model to a served one and back: publish, commit, live or rolled back, each part with its own rights.

Real are the scripts of deploy/ci, Git, `kubectl kustomize`, mountd, its mount and a store that enforces policies. Argo
CD and the kubelet are played: what they do with a commit is to put a file into a pod.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import deployment
from tests.support.daemon import Daemon
from tests.support.manifests import DEPLOY, build
from tests.support.policies import HUB, EnforcingS3
from tests.support.publishing import new_version

AWAIT = DEPLOY / "ci" / "await_version.py"
NOT_V25 = {"command": ["sh", "-c", '[ "$MOUNTD_VERSION" != v25 ]'], "timeout": "30s"}

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture
def enforcing(hub_directory: Path) -> Iterator[EnforcingS3]:
    with EnforcingS3() as server:
        server.create_bucket(HUB)
        server.upload(HUB, hub_directory / HUB)
        server.enforce()
        yield server


def await_version(daemon: Daemon, version: str, *more: str) -> subprocess.CompletedProcess[str]:
    """In a pod the command is `kubectl exec …`; here it says which daemon is meant."""
    via = f"env MOUNTD_SOCKET={daemon.socket}"
    words = [sys.executable, str(AWAIT), version, "--timeout", "90s", "--via", via, *more]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False, env=environment)


def test_from_training_to_live_or_rolled_back(
    make_daemon: Callable[..., Daemon], enforcing: EnforcingS3, tmp_path: Path, hub_directory: Path
) -> None:
    build("kubernetes/overlays/dev")  # skips without a kubectl
    origin = deployment.repository(tmp_path)
    pipeline = deployment.clone(origin, "pipeline")
    assert deployment.commit(pipeline, "dev", "v23").returncode == 0

    reader, publisher = (enforcing.keys["s3", role] for role in ("hub-reader", "publisher"))
    daemon = make_daemon(endpoint=enforcing.endpoint, access_key_id=reader[0], secret_access_key=reader[1])
    daemon.config["models"]["cache_hub"]["gates"] = [NOT_V25]
    cluster = deployment.Cluster(origin, "dev", daemon)
    daemon.start_ready()
    writer = make_daemon(endpoint=enforcing.endpoint, access_key_id=publisher[0], secret_access_key=publisher[1])

    def release(version: str) -> None:
        source = new_version(tmp_path / version, hub_directory)
        words = [sys.executable, "-m", "mountd", "publish", "-c", str(writer.write_config()), str(source), version]
        published = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert published.returncode == 0, published.stderr
        committed = deployment.commit(pipeline, "dev", version)
        assert committed.returncode == 0, committed.stderr
        assert cluster.sync() == version

    release("v24")
    live = await_version(daemon, "v24")
    assert (live.returncode, "v24 is live" in live.stdout) == (0, True), live

    release("v25")
    undone = await_version(daemon, "v25")
    assert (undone.returncode, "v25 was rolled back" in undone.stdout) == (5, True), undone
    assert daemon.status()["models"]["cache_hub"]["current"] == "v24"
    late = await_version(daemon, "v25")
    assert (late.returncode, "v25 was rolled back" in late.stdout) == (5, True), "it began after the end"
    assert "gate" in late.stdout, "why"

    deployment.git(pipeline, "pull", "--quiet")
    deployment.git(pipeline, "revert", "--no-edit", "HEAD")
    deployment.git(pipeline, "push", "--quiet")
    assert cluster.sync() == "v24"
    assert daemon.cli("wait", "--for", "version=v24", "--timeout", "60s").code == 0
    assert "AccessDenied" not in daemon.log_text()
