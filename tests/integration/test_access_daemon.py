"""A real daemon with tokens and a certificate: asked from elsewhere, and both exchanged while it runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.admitted import LINES, OPERATOR, READER
from tests.support.daemon import Daemon, Result
from tests.support.tls import make_certificate
from tests.support.wait import until

pytestmark = pytest.mark.fuse

NEW = "operator-new-0123456789"
LIMIT_S = 60.0


def write(file: Path, text: str, mode: int = 0o600) -> None:
    new = file.with_name("new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(file)


def ask(daemon: Daemon, certificate: Path, token: str, *words: str) -> Result:
    """A command for its TCP port, as from another machine."""
    place = f"https://127.0.0.1:{daemon.http_port}"
    environment = {"MOUNTD_TOKEN": token, "SSL_CERT_FILE": str(certificate)}
    return daemon.cli("-H", place, *words, environment=environment)


def test_tokens_and_certificate_from_the_first_request_to_their_exchange(daemon: Daemon) -> None:
    tokens, (certificate, key) = daemon.root / "tokens", make_certificate(daemon.root, "one")
    write(tokens, LINES)
    key.chmod(0o600)
    tls = {"certificate": {"file": str(certificate)}, "key": {"file": str(key)}}
    daemon.config["http"] = {
        "listen": f"0.0.0.0:{daemon.http_port}",
        "tokens": {"file": str(tokens)},
        "tls": tls,
    }
    daemon.start_ready()
    assert ask(daemon, certificate, READER, "status").code == 0
    assert ask(daemon, certificate, "", "status").code == 2
    assert ask(daemon, certificate, READER, "switch", "v22").code == 2
    assert daemon.page()["version"] == "v23"
    assert ask(daemon, certificate, OPERATOR, "switch", "v22", "--reason", "as asked").code == 0
    assert daemon.page()["version"] == "v22"
    (newest,) = daemon.cli("history", "-n", "1", "-o", "json").json["history"]
    assert (newest["operator"], newest["source"], newest["reason"]) == ("token ci", "api", "as asked")
    assert ask(daemon, certificate, OPERATOR, "restart", "webui").code == 0
    (asked,) = daemon.cli("events", "--code", "restart-requested", "-o", "json").json["events"]
    assert "token ci" in asked["text"]

    # Noticed by itself, and nothing restarts.
    before = daemon.status()["mounts"]["storage"]["pid"]
    write(tokens, f"operator ci {NEW}\n")
    until(lambda: ask(daemon, certificate, NEW, "status").code == 0, LIMIT_S, "the new token")
    assert ask(daemon, certificate, OPERATOR, "status").code == 2
    write(tokens, f"operator ci {OPERATOR}\n", 0o644)
    assert "http.tokens" in daemon.until_reason("config-broken")["text"]
    assert ask(daemon, certificate, NEW, "status").code in (0, 1)
    write(tokens, f"operator ci {NEW}\n")
    until(lambda: "config-broken" not in daemon.reasons(), LIMIT_S, "the file to be used again")

    other, other_key = make_certificate(daemon.root, "two")
    write(key, other_key.read_text())
    os.replace(other, certificate)
    until(lambda: ask(daemon, certificate, NEW, "status").code == 0, LIMIT_S, "the new certificate")
    assert daemon.status()["mounts"]["storage"]["pid"] == before
    said = daemon.log_text()
    assert not any(token in said for token in (READER, OPERATOR, NEW))
    assert "PRIVATE KEY" not in said
    assert daemon.stop() == 0
