"""What a pod is given is enough: the capabilities of the manifests, the reporter's token, the rights of its role."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support import dies_with_us, health_check
from tests.support.daemon import Daemon
from tests.support.manifests import DEPLOY, build, named, workloads
from tests.support.s3 import RcloneS3
from tests.support.tls import make_certificate
from tests.support.versioned import MODEL, Versioned
from tests.support.wait import until

SOON_S = 60.0
REPORT = DEPLOY / "kubernetes/components/argocd-health/report.py"
STATUS_MAP = "index-tts-status"
POD, NAMESPACE, TOKEN = "index-tts-0", "index-tts-dev", "the-token-of-the-account"

NOBODY = 65534
"""A user that is not root, and has a line in /etc/passwd: fusermount3 asks for it."""
MAY_READ = "dac_read_search"
"""What the tests' Python is, which may be root's."""
# As a device plugin gives it: /dev/fuse, for everybody. Run as `sh -c … LIMITS PROGRAM…`.
AS_USER = f"""
set -eu
mount -t tmpfs fuse /mnt
mknod -m 666 /mnt/fuse c 10 229
mount --bind /mnt/fuse /dev/fuse
kept=+{MAY_READ}
exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --bounding-set "-all,$0" \\
    --inh-caps "-all,$kept" --ambient-caps "-all,$kept" "$@"
"""


@pytest.mark.fuse
@pytest.mark.root
def test_the_capabilities_of_the_manifest_suffice(make_daemon: Callable[..., Daemon]) -> None:
    """The main job as a user that is not root, with those as limits: a mount, an app, a switch and the end."""
    (workload,) = workloads(build("kubernetes/overlays/prod"))
    assert workload.mountd is not None
    added = [name.lower() for name in workload.mountd["securityContext"]["capabilities"]["add"]]
    limits = ",".join(f"+{name}" for name in [MAY_READ, *added])
    daemon = make_daemon(wrap=("unshare", "--mount", "sh", "-c", AS_USER, limits))
    for path in (daemon.root, daemon.app, daemon.secret):
        os.chown(path, NOBODY, NOBODY)
    daemon.start_ready()
    assert daemon.cli("switch", "v22").code == 0
    assert daemon.status()["ready"]
    assert daemon.stop() == 0


@pytest.mark.fuse
@pytest.mark.parametrize("keeps_state", [True, False], ids=["in place", "by new pods"])
def test_a_pod_that_is_replaced_for_a_bad_version(
    make_daemon: Callable[..., Daemon], store: RcloneS3, keeps_state: bool
) -> None:
    """With its state it serves the former version and is ready; without it is not, and Kubernetes replaces no other."""
    daemon = make_daemon()
    at = Versioned(daemon, store.directory)
    wanted = daemon.root / "version"
    wanted.write_text("v23\n")
    del daemon.config["models"][MODEL]["version"]
    daemon.config["models"][MODEL]["desired"] = {"file": str(wanted)}
    daemon.start_ready()
    assert daemon.stop() == 0

    daemon.link.unlink()
    if not keeps_state:
        shutil.rmtree(daemon.config["state"])
    at.behave("v22", "crash")
    wanted.write_text("v22\n")
    daemon.start()
    if keeps_state:
        assert at.until_finished(SOON_S)["result"] == "rolled-back"
        daemon.until_ready()
        assert at.linked() == "v23"
    else:
        until(lambda: daemon.status()["apps"]["webui"]["state"] == "backoff", SOON_S, "the app to fail")
        assert (daemon.status()["ready"], at.linked()) == (False, "v22")
        assert at.newest() is None, "no switch"
        at.behave("v22", "")
        daemon.until_ready()


class Api(BaseHTTPRequestHandler):
    """Of Kubernetes only this: one ConfigMap, to be patched by who has the token."""

    item: dict[str, Any]
    path_of_item = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{STATUS_MAP}"

    def do_PATCH(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fine = self.path == self.path_of_item and self.headers["Authorization"] == f"Bearer {TOKEN}"
        if fine and self.headers["Content-Type"] == "application/merge-patch+json":
            merge(self.item, json.loads(body))
        self.send_response(200 if fine else 403)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


def merge(target: dict[str, Any], change: dict[str, Any]) -> None:
    """A JSON merge patch (RFC 7386), in place."""
    for key, value in change.items():
        if isinstance(value, dict):
            merge(target.setdefault(key, {}), value)
        elif value is None:
            target.pop(key, None)
        else:
            target[key] = value


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """What a pod has of its account: a token, and the authority that the API server is checked by."""
    make_certificate(tmp_path, "ca")
    (tmp_path / "ca.crt").write_bytes((tmp_path / "ca.pem").read_bytes())
    (tmp_path / "token").write_text(TOKEN)
    return tmp_path


@contextmanager
def api(account: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The port, and the ConfigMap as it is."""
    item: dict[str, Any] = {"metadata": {"labels": {"app.kubernetes.io/component": "mountd-status"}}}
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Api,), {"item": item})) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(account / "ca.pem", account / "ca.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_address[1], item
        finally:
            server.shutdown()
            thread.join(SOON_S)


@pytest.mark.fuse
def test_argo_cd_sees_what_mountd_does(daemon: Daemon, account: Path) -> None:
    reader = account / "reader"
    reader.write_text("a" * 64)
    tokens = account / "tokens"  # as in the pod: every address, and the token of a reader
    tokens.touch(mode=0o600)
    tokens.write_text(f"reader report {'a' * 64}\n")
    daemon.config["http"] = {"listen": f"0.0.0.0:{daemon.http_port}", "tokens": {"file": str(tokens)}}
    daemon.start_ready()
    container = next(
        each for each in workloads(build("kubernetes/overlays/dev"))[0].containers if each["name"] == "report"
    )
    environment = {
        "POD_NAME": POD,
        "POD_NAMESPACE": NAMESPACE,
        "MOUNTD_TOKEN_FILE": str(reader),
        "MOUNTD_URL": f"http://127.0.0.1:{daemon.http_port}",
        "SERVICE_ACCOUNT": str(account),
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
    }
    shipped = {each["name"]: each.get("value") for each in container["env"]}
    assert environment.keys() - {"SERVICE_ACCOUNT", "KUBERNETES_SERVICE_HOST"} <= shipped.keys()
    environment |= {"STATUS_CONFIGMAP": shipped["STATUS_CONFIGMAP"], "PATH": os.environ["PATH"]}
    with api(account) as (port, item):
        environment["KUBERNETES_SERVICE_PORT"] = str(port)
        with subprocess.Popen(dies_with_us([sys.executable, str(REPORT)]), env=environment) as process:
            try:
                until(lambda: POD in item.get("data", {}), SOON_S, "its line in the ConfigMap")
                assert health_check.health(item) == ("Healthy", f"{POD}: cache_hub v23 (linked)")
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(SOON_S)
        assert item["data"] == {}, "a pod that leaves takes its line with it"
        assert item["metadata"].get("annotations") == {}


def test_the_reporter_may_do_what_it_does_and_nothing_else() -> None:
    role = named(build("kubernetes/overlays/dev"), "Role", STATUS_MAP)
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [STATUS_MAP], "verbs": ["patch"]}
    ]
    (workload,) = workloads(build("kubernetes/overlays/dev"))
    tokens = {
        container["name"]
        for container in workload.containers
        for mount in container["volumeMounts"]
        if "serviceAccountToken" in str(workload.volumes[mount["name"]])
    }
    assert tokens == {"report"}
