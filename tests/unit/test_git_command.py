"""What git is given to see when it reads a wanted version, and what its failures mean."""

from __future__ import annotations

import base64
import shlex
from typing import Any

import pytest

from mountd.errors import Refused, Unavailable
from mountd.gitops.git_command import GitSecrets, environment, explain, place
from mountd.gitops.wanted import NO_VERSION, REFUSED, UNREACHABLE
from mountd.settings.sync import GitSettings

TOKEN = "ghp_5up3r53cr3t"
MACHINE = {
    "PATH": "/usr/bin",
    "HOME": "/root",
    "LANG": "de_DE.UTF-8",
    "https_proxy": "http://proxy:3128",
    "GIT_SSH_COMMAND": "evil",
    "GIT_TRACE_CURL": "1",
    "GIT_CONFIG_COUNT": "9",
    "AWS_SECRET_ACCESS_KEY": "x",
    "SSH_AUTH_SOCK": "/tmp/agent",
    "NOTIFY_SOCKET": "/run/notify",
    "SSL_CERT_FILE": "/etc/ca.pem",
}


def git(**keys: Any) -> GitSettings:
    return GitSettings.model_validate({"url": "https://git.example.com/team/deploy.git", "path": "tts/version", **keys})


def given(settings: GitSettings, secrets: GitSecrets | None = None) -> dict[str, str]:
    return environment(settings, secrets or GitSecrets(), MACHINE, "/state/git/hub", {"MOUNTD_INSTANCE": "abc"})


def config(found: dict[str, str]) -> dict[str, str]:
    count = int(found["GIT_CONFIG_COUNT"])
    return {found[f"GIT_CONFIG_KEY_{each}"]: found[f"GIT_CONFIG_VALUE_{each}"] for each in range(count)}


def test_nothing_of_the_machine_counts_but_its_network() -> None:
    found = given(git())
    assert found.keys() & MACHINE.keys() == {
        *("PATH", "HOME", "LANG", "https_proxy", "SSL_CERT_FILE", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT")
    }
    assert (found["HOME"], found["GIT_CONFIG_GLOBAL"], found["GIT_TERMINAL_PROMPT"]) == (
        "/state/git/hub",
        "/dev/null",
        "0",
    )
    assert (found["GIT_ALLOW_PROTOCOL"], found["GIT_SSL_CAINFO"]) == ("https", "/etc/ca.pem")
    assert found["MOUNTD_INSTANCE"] == "abc"
    settings = config(found)
    assert (settings["remote.wanted.url"], settings["credential.helper"]) == (git().url, "")
    assert settings["core.hooksPath"] == "/dev/null"
    assert "http.extraHeader" not in settings


def test_a_token_is_a_header_and_stands_nowhere_else() -> None:
    found = given(git(user="deploy"), GitSecrets(token=TOKEN))
    login = base64.b64encode(f"deploy:{TOKEN}".encode()).decode()
    assert config(found)["http.extraHeader"] == f"Authorization: Basic {login}"
    assert not [value for value in found.values() if TOKEN in value]
    assert config(found)["http.followRedirects"] == "false", "it would go along"


@pytest.mark.parametrize(
    ("keys", "known"),
    [
        ({"url": "git@git.example.com:team/deploy.git"}, "/dev/null"),
        (
            {"url": "ssh://git@git.example.com:2222/deploy.git", "known_hosts": "/etc/mountd/known hosts"},
            "/etc/mountd/known hosts",
        ),
    ],
)
def test_ssh_knows_its_server_and_asks_nobody(keys: dict[str, str], known: str) -> None:
    found = given(git(**keys), GitSecrets(key_file="/run/mountd/private/git-hub.key"))
    words = shlex.split(found["GIT_SSH_COMMAND"])
    assert words[-2:] == ["-i", "/run/mountd/private/git-hub.key"]
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", f"UserKnownHostsFile={known}"} <= set(words)
    assert found["GIT_ALLOW_PROTOCOL"] == "ssh"


@pytest.mark.parametrize(
    ("step", "said", "code"),
    [
        ("ls-remote", "fatal: unable to access 'https://x/': Could not resolve host: git.example.com", UNREACHABLE),
        (
            "ls-remote",
            "fatal: unable to access 'https://x/': Failed to connect to x port 443: Connection refused",
            UNREACHABLE,
        ),
        ("ls-remote", "fatal: could not read Username for 'https://x': terminal prompts disabled", REFUSED),
        ("ls-remote", "fatal: unable to access 'https://x/': The requested URL returned error: 403", REFUSED),
        ("ls-remote", "remote: Repository not found.\nfatal: repository 'https://x/' not found", REFUSED),
        ("ls-remote", "git@x: Permission denied (publickey).\nfatal: Could not read from remote repository.", REFUSED),
        ("ls-remote", "Host key verification failed.\nfatal: Could not read from remote repository.", REFUSED),
        (
            "ls-remote",
            "fatal: unable to access 'https://x/': SSL certificate problem: self-signed certificate",
            UNREACHABLE,
        ),
        ("fetch", "fatal: dumb http transport does not support shallow capabilities", UNREACHABLE),
        ("fetch", "fatal: something new", UNREACHABLE),
        ("fetch", "", UNREACHABLE),
        ("size", "fatal: index-pack died of signal 25", UNREACHABLE),
        ("git", "", UNREACHABLE),
        ("worker", "Traceback", UNREACHABLE),
    ],
)
def test_what_a_failure_means(step: str, said: str, code: str) -> None:
    found = explain(step, said, git())
    assert isinstance(found, Unavailable)
    assert (found.code, bool(found.hint)) == (code, True)


def test_an_ssh_key_that_has_changed_is_not_merely_unknown() -> None:
    """Who is told to fetch the key trusts the one who stands between."""
    end = "Host key verification failed.\r\nfatal: Could not read from remote repository.\n"
    changed = f"Host key for git.example.com has changed and you have requested strict checking.\r\n{end}"
    unknown = f"No ED25519 host key is known for git.example.com and you have requested strict checking.\r\n{end}"
    found = [explain("ls-remote", said, git()) for said in (changed, unknown)]
    assert [each.code for each in found] == [REFUSED, REFUSED]
    assert ["ssh-keyscan" in each.hint for each in found] == [False, True]


@pytest.mark.parametrize("step", ["ref", "path", "kind"])
def test_what_names_no_version(step: str) -> None:
    found = explain(step, "a link", git())
    assert isinstance(found, Refused)
    assert found.code == NO_VERSION


def test_what_git_says_is_shown_without_secrets_and_short() -> None:
    said = f"fatal: unable to access 'https://me:{TOKEN}@git.example.com/': \x1b[31m{'x' * 10_000}"
    found = explain("fetch", said, git())
    assert TOKEN not in found.text
    assert len(found.text) < 1000


def test_where_it_is_read_from() -> None:
    assert place(git(url="ssh://git@git.example.com/deploy.git")) == "ssh://git@git.example.com/deploy.git"
