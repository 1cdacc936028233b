"""What the child that reads a Git repository is given, and what its failures mean."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from mountd.errors import MountdError, Unavailable
from mountd.gitops.wanted import REFUSED, UNREACHABLE, invalid
from mountd.settings import masking
from mountd.settings.environment import of_git
from mountd.settings.sync import GitSettings
from mountd.text import storable

REMOTE = "wanted"
CAUSE_CHARACTERS = 300
_AGAIN = "the live version stays; mountd tries again by itself"
_CREDENTIALS = "give it a token (https) or an ssh_key that may read the repository, and nothing else"

# What git says → code, what it means, what to do. The first that matches counts.
_MEANINGS: tuple[tuple[str, str, str, str], ...] = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|has changed and you have requested strict checking",
        REFUSED,
        "the ssh server has another key than before",
        "somebody may stand between: compare the key with what the server's page says, and only then replace it in"
        " known_hosts",
    ),
    (
        r"Host key verification failed|No \w+ host key is known",
        REFUSED,
        "the key of the ssh server is not known",
        "put it into known_hosts: ssh-keyscan HOST, and compare it with what the server's page says",
    ),
    (
        r"could not read (Username|Password)|Authentication failed|Invalid username or (password|token)|error: 40[13]\b"
        r"|Permission denied|HTTP Basic: Access denied",
        REFUSED,
        "the repository refuses access",
        _CREDENTIALS,
    ),
    (
        r"epository '?.*'? not found|does not (exist|appear to be a git repository)|error: 404\b",
        REFUSED,
        "there is no such repository, or access to it is refused",
        f"compare url with what the server shows; {_CREDENTIALS}",
    ),
    (
        r"does not support shallow|dumb http",
        UNREACHABLE,
        "the server speaks only the dumb protocol",
        "serve the repository with git http-backend, or by a Git server",
    ),
    (r"Could not resolve (host|proxy|hostname)", UNREACHABLE, "the name of the server cannot be resolved", _AGAIN),
    (r"Connection refused|Failed to connect|Couldn't connect", UNREACHABLE, "the server cannot be reached", _AGAIN),
    (r"certificate|SSL|TLS", UNREACHABLE, "TLS fails", "set SSL_CERT_FILE in mountd's environment to its authority"),
    (
        r"redirect|error: 30\d\b",
        UNREACHABLE,
        "the server redirects to another address, and mountd follows no redirect",
        "write the new address as url",
    ),
)


@dataclass(frozen=True, slots=True)
class GitSecrets:
    """`token`: the password for https; `key_file`: where the private key for ssh lies."""

    token: str | None = None
    key_file: str | None = None


def environment(
    git: GitSettings, secrets: GitSecrets, given: Mapping[str, str], home: str, marks: Mapping[str, str]
) -> dict[str, str]:
    """All that git sees. `given`: mountd's own environment; `home`: an empty directory; `marks`: identify the child.

    No configuration of the machine or of a user counts, no hook, filter or helper runs, nothing asks a person, and the
    token stands neither in a command line nor in a file.
    """
    config = {
        f"remote.{REMOTE}.url": git.url,
        "credential.helper": "",
        "core.hooksPath": "/dev/null",
        "core.fsmonitor": "false",
        "core.bigFileThreshold": "1m",  # larger ones are not held in memory
        "gc.auto": "0",
        "maintenance.auto": "false",
        "fetch.unpackLimit": "1",  # one file, whose size is limited
        "fetch.recurseSubmodules": "false",
        "submodule.recurse": "false",
        "pack.threads": "1",
        "http.followRedirects": "false",
        "i18n.logOutputEncoding": "UTF-8",
        "log.showSignature": "false",
        "protocol.version": "2",
    }
    if secrets.token is not None:
        login = base64.b64encode(f"{git.user}:{secrets.token}".encode()).decode()
        config["http.extraHeader"] = f"Authorization: Basic {login}"
    found = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        **of_git(given),
        **marks,
        "HOME": home,
        "GIT_CEILING_DIRECTORIES": home.rpartition("/")[0] or "/",
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": "ssh" if git.is_ssh else git.url.partition(":")[0],
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_SSH_COMMAND": _ssh(git, secrets),
        "GIT_SSH_VARIANT": "ssh",
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    for number, (key, value) in enumerate(config.items()):
        found |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    if authority := given.get("SSL_CERT_FILE"):
        found["GIT_SSL_CAINFO"] = authority
    return found


def _ssh(git: GitSettings, secrets: GitSecrets) -> str:
    options = [
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "IdentitiesOnly=yes",
        "ForwardAgent=no",
        "ClearAllForwardings=yes",
    ]
    options += [f"UserKnownHostsFile={git.known_hosts or '/dev/null'}", "UpdateHostKeys=no", "PermitLocalCommand=no"]
    words = ["ssh", "-F", "/dev/null", *(word for each in options for word in ("-o", each))]
    return shlex.join([*words, *(["-i", secrets.key_file] if secrets.key_file else [])])


def explain(step: str, said: str, git: GitSettings) -> MountdError:
    """The failure of a step of the child. `said`: what git wrote to its standard error."""
    where = place(git)
    match step:
        case "ref":
            return invalid(f"{where} has no branch or tag {git.ref}", "correct ref; nothing changes until it is there")
        case "path":
            return invalid(f"{git.path} is not in {where}", "add it there, or correct path: mountd reads it again")
        case "kind":
            return invalid(f"{git.path} in {where} is no file: {said}", "name a plain file; links are not followed")
        case "git":
            return Unavailable(
                "cannot read a wanted version: git is not installed", hint="install git", code=UNREACHABLE
            )
        case "size":
            return Unavailable(
                f"cannot read {where}: more than 64 MiB come for one commit",
                hint="keep the version in a small repository, or let the server filter (uploadpack.allowFilter)",
                code=UNREACHABLE,
            )
    cause = _last(said)
    if "couldn't find remote ref" in said:
        return explain("ref", said, git)
    for pattern, code, meaning, hint in _MEANINGS:
        if re.search(pattern, said):
            return Unavailable(f"cannot read {where}: {meaning}: {cause}", hint=hint, code=code)
    return Unavailable(f"cannot read {where}: {cause or f'git {step} fails'}", hint=_AGAIN, code=UNREACHABLE)


def place(git: GitSettings) -> str:
    """The repository, for people."""
    return masking.text(git.url)


def _last(said: str) -> str:
    """The last line that names the failure."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"(fatal|error|remote|ssh|ERROR)\b", line)]
    return storable(masking.text((named or lines or [""])[-1]), CAUSE_CHARACTERS)
