"""`mountd debug` with a real daemon: what helps is in the archive, and no secret, wherever one was planted."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mountd.settings import redaction
from tests.support.archives import unpacked
from tests.support.daemon import Daemon, Result
from tests.support.machine import Stopped
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SAYS = """
echo "starting with $API_TOKEN and $FROM_ENV"; echo "$KEY_PEM"
echo "Authorization: Bearer $API_TOKEN"; echo "get https://me:$FROM_ENV@example.com/?sig=$API_TOKEN"
printf %s "user:$FROM_ENV" | base64 -w0; echo; echo "id AKIAIOSFODNN7EXAMPLE"
while [ "$1" != -- ]; do shift; done; shift; exec "$@"
"""


class Planted:
    """A daemon with a secret in each place that may hold one."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.found: dict[str, str] = {"S3 key, a file": daemon.secret_access_key}
        config = daemon.config
        config["allow_plain_secrets"] = True
        config["remotes"]["other"] = {
            "type": "s3",
            "provider": "Other",
            "endpoint": "http://127.0.0.1:1",
            "access_key_id": "AKIAIOSFODNN7EXAMPLE",
            "secret_access_key": self.secret("a plain secret of a remote"),
        }
        config["http"]["tokens"] = {"file": str(self.file("tokens", f"operator ci {self.secret('a token')}\n"))}
        config["mounts"]["storage"]["options"] = {
            "header": f"X-Token: {self.secret('a header of rclone, in its argv')}"
        }
        config["models"]["second"] = {
            "mount": "storage",
            "directory": "cache_hub_{version}",
            "link": str(daemon.root / "second"),
            "desired": {
                "git": {
                    "url": "https://127.0.0.1:1/deploy.git",
                    "path": "version",
                    "token": {"file": str(self.file("git", self.secret("a token of a repository")))},
                    "webhook": {"secret": {"file": str(self.file("hook", self.secret("the secret of a webhook")))}},
                }
            },
        }
        pem = "\n".join(secrets.token_urlsafe(48) for _ in range(3))
        self.found |= {f"line {number} of a key": line for number, line in enumerate(pem.splitlines())}
        daemon.environment["FROM_ENV"] = self.secret("a variable of mountd")
        app = config["apps"]["webui"]
        app["environment"] |= {
            "API_TOKEN": self.secret("a variable of the app"),
            "FROM_ENV": {"env": "FROM_ENV"},
            "KEY_PEM": {"file": str(self.file("pem", pem))},
        }
        words = ["sh", "-c", SAYS, "sh", "--token", self.secret("a word of the app's command"), "--", *app["command"]]
        app["command"] = words

    def secret(self, place: str) -> str:
        """With signs that are written otherwise in addresses and JSON."""
        self.found[place] = f"{secrets.token_hex(6)}+/&{secrets.token_hex(6)}"
        return self.found[place]

    def file(self, name: str, content: str) -> Path:
        path = self.daemon.root / name
        path.touch(mode=0o600)
        path.write_text(content)
        return path

    def bundle(self, name: str, **environment: str) -> tuple[Result, dict[str, bytes]]:
        path = self.daemon.root / name
        config = str(self.daemon.config_file)
        made = self.daemon.cli("debug", "-c", config, "--file", str(path), "-o", "json", environment=environment)
        assert made.code == 0, made
        assert path.stat().st_mode & 0o777 == 0o600
        files = {entry.partition("/")[2].partition("/")[2]: data for entry, data in unpacked(path.read_bytes())}
        return made, files

    def leaks(self, files: dict[str, bytes]) -> list[tuple[str, str]]:
        found = []
        for place, secret in self.found.items():
            forms = {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()[:-4]}
            for name, data in files.items():
                found += [(place, name) for form in forms if form.encode() in data]
        found += [("an access key id", name) for name, data in files.items() if b"AKIAIOSFODNN7EXAMPLE" in data]
        whole = base64.b64encode(f"user:{self.found.get('a variable of mountd', '-' * 30)}".encode())
        return found + [("base64", name) for name, data in files.items() if whole[8:-4] in data]


@pytest.mark.timeout(240)
def test_no_secret_is_in_it_wherever_one_was_planted(make_daemon: Callable[..., Daemon]) -> None:
    planted = Planted(make_daemon())
    daemon = planted.daemon
    daemon.start_ready()
    reason = f"it printed {planted.found['a variable of the app']} and {planted.found['S3 key, a file']}"
    assert daemon.cli("pause", "--reason", reason).code == 0
    incident = daemon.root / "state" / "incidents" / "20260101T000000.000000Z-storage-hung"
    incident.mkdir(parents=True, mode=0o700)
    (incident / "log.txt").write_text(f"rclone said {planted.found['a plain secret of a remote']}\n")

    made, files = planted.bundle("one.tar.gz")
    assert planted.leaks(files) == []
    assert {
        *("config.yaml", "versions.json", "status.json", "explain.json", "diff.json", "history.json", "events.json"),
        *("metrics.txt", "mountinfo.txt", "doctor.json", "disks.json", "processes.json", "notes.txt"),
        *("logs/webui.txt", "logs/storage.txt", f"incidents/{incident.name}/log.txt"),
    } <= files.keys()
    assert b"mountd_ready 1" in files["metrics.txt"]
    assert b"starting with ********" in files["logs/webui.txt"]
    status: dict[str, Any] = json.loads(files["status.json"])
    assert status["models"]["cache_hub"]["suspended"].startswith("root")
    names = [each["Name"] for each in json.loads(files["processes.json"])["processes"]]
    assert any("rclone" in name for name in names), names
    assert made.json["files"] == sorted(
        name for name in files if name != "notes.txt" and not name.endswith(" (its name)")
    )
    assert sum(map(len, files.values())) < 20_000_000

    assert daemon.stop() == 0
    again, files = planted.bundle("two.tar.gz", FROM_ENV=planted.found["a variable of mountd"])
    assert planted.leaks(files) == []
    assert {"config.yaml", "explain.json", "journal/events.json", "doctor.json", "mountinfo.txt"} <= files.keys()
    assert json.loads(files["explain.json"])["root"]["code"] == "not-running"
    assert any(each["code"] == "suspended" for each in json.loads(files["journal/events.json"])["events"])
    assert again.json["notes"] == []

    # A file that is not valid; and a variable that is not known here any more, which is said.
    password = planted.secret("the password in the address of a repository").replace("/", "-")
    planted.found["the password in the address of a repository"] = password
    git = daemon.config["models"]["second"]["desired"]["git"]
    git["url"] = f"https://me:{password}@127.0.0.1:1/deploy.git"
    daemon.write_config()
    again, files = planted.bundle("three.tar.gz")
    assert any("FROM_ENV" in note for note in again.json["notes"])
    del planted.found["a variable of mountd"]
    assert planted.leaks(files) == []
    assert b"models.second.desired.git.url" in files["config.txt"]


@pytest.mark.thorough
@pytest.mark.timeout(240)
def test_a_daemon_that_does_not_answer_is_named_and_the_bundle_is_made(daemon: Daemon) -> None:
    status = daemon.start_ready()
    path = daemon.root / "b.tar.gz"
    words = [sys.executable, "-m", "mountd", "debug", "-c", str(daemon.config_file), "--file", str(path)]
    with Stopped(status["pid"]), Stopped(status["mounts"]["storage"]["pid"]):
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    files = {entry.partition("/")[2].partition("/")[2]: data for entry, data in unpacked(path.read_bytes())}
    assert json.loads(files["explain.json"])["root"]["code"] == "daemon-silent"
    assert "status.json" not in files
    assert b"suspended" not in files["notes.txt"]
    again = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert (again.returncode, "exists" in again.stderr) == (1, True)
    until(lambda: daemon.status()["ready"], 60, "it to be ready again")


def test_without_redaction_the_planted_secrets_are_found(make_daemon: Callable[..., Daemon]) -> None:
    """Without the redaction the secrets are found."""
    planted = Planted(make_daemon())
    text = " ".join(planted.found.values())
    assert planted.leaks({"x": text.encode()})
    assert planted.leaks({"x": redaction.Redactor(planted.found.values()).text(text).encode()}) == []
