"""Ways to say from outside which version a daemon should serve: Git, by webhook or polling, and a swapped ConfigMap."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Protocol

from tests.support.daemon import Daemon
from tests.support.git_server import AUTHOR, GitRepository, GitServer

PATH = "production/tts.yaml"
SECRET = "a webhook's secret"


class Way(Protocol):
    """`says` declares a version → the commit, if there is one."""

    source: str
    operator: str

    def says(self, version: str, message: str = "") -> str | None: ...


def post_webhook(daemon: Daemon, headers: dict[str, str], body: bytes = b"{}", model: str = "cache_hub") -> int:
    """The status of the answer, over TCP and under a name of the outer world, as a Git server's request comes."""
    url = f"http://127.0.0.1:{daemon.http_port}/api/v1/webhook/{model}"
    request = urllib.request.Request(url, body, {"Host": "mountd.example.com", **headers}, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    return {"X-Hub-Signature-256": f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"}


class ByGit:
    source, operator = "git", AUTHOR

    def __init__(self, daemon: Daemon, repository: GitRepository, server: GitServer, **keys: Any) -> None:
        self.daemon, self.repository, self.server = daemon, repository, server
        secret = daemon.root / "webhook"
        secret.write_text(SECRET)
        self.webhooks = not keys
        git = {"url": server.url, "path": PATH, "key": "hub.version", "timeout": "20s", "interval": "1h", **keys}
        git["webhook"] = {"secret": {"file": str(secret)}}
        model = daemon.config["models"]["cache_hub"]
        del model["version"]
        model["desired"] = {"git": git}

    def says(self, version: str, message: str = "") -> str:
        commit = self.repository.commit({PATH: f"hub: {{version: {version}}}\n"}, message or f"Deliver {version}")
        if self.webhooks and self.daemon.process is not None:
            self.hook()
        return commit

    def hook(self) -> None:
        body = b'{"ref": "refs/heads/main"}'
        assert post_webhook(self.daemon, signed(body), body) == 202


class ByConfigMap:
    """As the kubelet does it: `version → ..data/version`, and `..data` is replaced by another link."""

    source = operator = "file"

    def __init__(self, daemon: Daemon) -> None:
        self.directory = daemon.root / "wanted"
        self.directory.mkdir()
        self._numbers = itertools.count()
        self._link(self.directory / "version", "..data/version")
        model = daemon.config["models"]["cache_hub"]
        del model["version"]
        model["desired"] = {"file": str(self.directory / "version")}

    def says(self, version: str, message: str = "") -> None:
        data = self.directory / f"..2026_{next(self._numbers)}"
        data.mkdir()
        (data / "version").write_text(f"{version}\n")
        self._link(self.directory / "..data", data.name)

    def take_away(self) -> None:
        (self.directory / "..data").unlink()

    def _link(self, path: Path, target: str) -> None:
        new = path.with_name("..data_tmp")
        new.symlink_to(target)
        os.replace(new, path)
