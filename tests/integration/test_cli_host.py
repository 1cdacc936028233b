"""`-H`: the same commands for a daemon elsewhere: over TCP with a token, over ssh with one that runs them here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from mountd.api.server import Admission
from mountd.cli import over_ssh
from mountd.errors import UsageError
from mountd.settings import tokens
from mountd.tls import server_context
from tests.support.admitted import EVERYWHERE, LINES, OPERATOR, READER, Admitting, admitting
from tests.support.daemon import Result
from tests.support.shelf import until
from tests.support.tls import make_certificate
from tests.support.wait import until as wait_until

LIMIT_S = 60.0
# As sshd does it: the words joined by blanks, and given to the shell of the user.
SSH = """#!{python}
import json, os, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
words = sys.argv[1:]
while words[0] != "--":
    words.pop(0)
host = words[1]
if host.startswith("broken"):
    print("ssh: connect to host broken port 22: Connection refused", file=sys.stderr)
    sys.exit(255)
os.environ["PATH"] = {path!r} if host != "without" else "/nowhere"
for name in list(os.environ):
    if name.startswith("MOUNTD_"):
        del os.environ[name]
os.environ["MOUNTD_SOCKET"] = {socket!r}
os.environ["AT_HOST"] = host
os.execv({shell!r}, [{shell!r}, "-c", " ".join(words[2:])])
"""


class FarMachine:
    """An `ssh` on PATH whose other end is this machine, with a daemon at `socket`."""

    def __init__(self, root: Path, socket: Path, shell: str = "/bin/sh") -> None:
        here, there = root / "here", root / "there"
        for directory in (here, there):
            directory.mkdir()
        self._log = root / "ssh.log"
        (there / "mountd").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mountd "$@"\n')
        (there / "mountd").chmod(0o755)
        path = f"{there}:{os.environ['PATH']}"
        text = SSH.format(python=sys.executable, log=str(self._log), path=path, socket=str(socket), shell=shell)
        (here / "ssh").write_text(text)
        (here / "ssh").chmod(0o755)
        self.environment = {"PATH": f"{here}:{os.environ['PATH']}"}

    @property
    def asked(self) -> list[list[str]]:
        """The words of each ssh."""
        return [json.loads(line) for line in self._log.read_text().splitlines()] if self._log.exists() else []


def clean(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MOUNTD_")}
    return {**kept, **environment}


async def mountd(*words: str, environment: Mapping[str, str] | None = None) -> Result:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mountd", *words,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=clean(environment or {}),
    )  # fmt: skip
    out, err = await asyncio.wait_for(child.communicate(), LIMIT_S)
    assert child.returncode is not None
    return Result(child.returncode, out.decode(), err.decode())


@pytest.fixture
async def api() -> AsyncIterator[Admitting]:
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))  # tmp_path would not fit into a Unix socket's address
    try:
        async with admitting(root) as found:
            await until(lambda: found.hub.status.linked, "v22 to be linked")
            yield found
    finally:
        shutil.rmtree(root)


@pytest.fixture
async def far(api: Admitting) -> FarMachine:
    from mountd.settings.schema import ControlSettings

    socket = api.hub.directory / "s"
    await api.server.listen_unix(ControlSettings(socket=socket))
    return FarMachine(api.hub.directory, socket)


# -- over TCP ---------------------------------------------------------------------------------------------------------


async def test_over_tcp_with_a_token(api: Admitting, tmp_path: Path) -> None:
    await api.listen(listen=EVERYWHERE)
    place = f"http://127.0.0.1:{api.port}"
    refused = await mountd("-H", place, "status", "-o", "json")
    assert (refused.code, refused.json["error"]["exit"]) == (2, 2)
    seen = await mountd("-H", place, "status", "-o", "json", environment={"MOUNTD_TOKEN": READER})
    assert seen.json["models"]["hub"]["current"] == "v22"
    assert seen.code == (0 if seen.json["ready"] else 1)
    (tmp_path / "token").write_text(f"{OPERATOR}\n")
    by_file = {"MOUNTD_TOKEN_FILE": str(tmp_path / "token")}
    assert (await mountd("switch", "v23", "--host", place, environment={"MOUNTD_TOKEN": READER})).code == 2
    assert api.hub.model.committed.current == "v22"
    switched = await mountd("switch", "v23", "-H", place, "--reason", "a b", environment=by_file)
    assert (switched.code, api.hub.model.committed.current) == (0, "v23")
    newest = (await api.hub.journal.history(limit=1))[0]
    assert (newest.operator, newest.source, newest.reason) == ("token ci", "api", "a b")
    assert (await mountd("history", "4711", "-H", place, environment=by_file)).code == 3


async def test_over_tls_whom_the_machine_trusts(api: Admitting, tmp_path: Path) -> None:
    certificate, key = await asyncio.to_thread(make_certificate, tmp_path, "one")
    context = server_context(certificate.read_text(), key.read_text())
    await api.listen(Admission(tokens.parse(LINES), context), listen=EVERYWHERE)
    words = ("status", "-o", "json", "-H", f"https://127.0.0.1:{api.port}")
    token = {"MOUNTD_TOKEN": READER}
    strange = await mountd(*words, environment=token)
    assert (strange.code, strange.json["error"]["exit"]) == (8, 8)
    assert "SSL_CERT_FILE" in strange.json["error"]["hint"]
    trusted = await mountd(*words, environment={**token, "SSL_CERT_FILE": str(certificate)})
    assert trusted.json["models"]["hub"]["current"] == "v22"


async def test_what_works_on_this_machine_takes_no_host() -> None:
    for words in (("-H", "hub", "config", "show"), ("-H", "http://hub", "doctor"), ("-H", "hub", "run")):
        assert (await mountd(*words)).code == 2
    for host in ("ftp://hub", "-oProxyCommand=id", "a b", ""):
        assert (await mountd("status", f"--host={host}")).code == 2


# -- over ssh ---------------------------------------------------------------------------------------------------------


async def test_over_ssh_the_same_command_runs_there(api: Admitting, far: FarMachine) -> None:
    told = {**far.environment, "MOUNTD_SOCKET": "/nowhere", "MOUNTD_TOKEN": OPERATOR}
    seen = await mountd("-o", "json", "-H", "tina@hub", "status", environment=told)
    assert seen.json["models"]["hub"]["current"] == "v22"
    assert seen.code == (0 if seen.json["ready"] else 1)
    switched = await mountd("switch", "v23", "-H", "ssh://tina@hub:2222", environment=far.environment)
    assert (switched.code, api.hub.model.committed.current) == (0, "v23")
    assert (await mountd("switch", "latest", "-Hhub", environment=far.environment)).code == 2
    gone = await mountd("history", "4711", "-o", "json", "-H", "hub", environment=far.environment)
    assert (gone.code, gone.json["error"]["exit"]) == (3, 3)
    assert [words[:3] for words in far.asked] == [["-T", "--", each] for each in (
        "tina@hub", "ssh://tina@hub:2222", "hub", "hub",
    )]  # fmt: skip
    for words in far.asked:
        assert words[3:5] == ["mountd", "over-ssh"]
        assert OPERATOR not in str(words)


NASTY = [
    "a b", "", "'", '"', "\\", "\\'", "a\\", "$(touch {})", "`touch {}`", "; touch {} #", "| touch {}", "\n touch {}",
    "!touch", "~", "*", "-x", "--", "声 \x7f", "caf\udce9", "%s", "{a,b}",
]  # fmt: skip


async def test_no_word_is_understood_by_a_shell(api: Admitting, far: FarMachine, tmp_path: Path) -> None:
    made = tmp_path / "made"
    reasons = [each.replace("{}", str(made)) for each in NASTY]
    for reason in reasons:
        (sent,) = [over_ssh.encoded(["pause", "--reason", reason])]
        assert over_ssh.received([sent]) == ["pause", "--reason", reason]
        assert sent.isalnum()
    reason = " ".join(each for each in reasons if each.isprintable())
    assert (await mountd("pause", f"--reason={reason}", "-H", "hub", environment=far.environment)).code == 0
    suspended = api.hub.model.committed.suspended
    assert suspended is not None
    assert suspended.partition(": ")[2] == " ".join(reason.split())
    assert not made.exists()


@pytest.mark.parametrize("words", [[], ["xyz"], ["5b5d", "5b5d"], ["7b7d"], ["5b315d"], ["5b"]])
def test_what_no_mountd_has_sent_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        over_ssh.received(words)


async def test_an_ssh_that_fails_is_unreachable(far: FarMachine, tmp_path: Path) -> None:
    failed = await mountd("status", "-o", "json", "-H", "broken", environment=far.environment)
    assert (failed.code, failed.json["error"]["exit"]) == (8, 8)
    assert "Connection refused" in failed.err
    without = await mountd("status", "-o", "json", "-H", "without", environment=far.environment)
    assert (without.code, without.json["error"]["exit"]) == (8, 8)
    nowhere = await mountd("status", "-o", "json", "-H", "hub", environment={"PATH": str(tmp_path)})
    assert (nowhere.code, nowhere.json["error"]["exit"]) == (8, 8)
    assert "openssh-client" in nowhere.json["error"]["hint"]


def marked(host: str) -> list[int]:
    """Commands of mountd that run at the other end of `host`."""
    mark, found = f"AT_HOST={host}".encode(), []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found


@contextlib.contextmanager
def following(far: FarMachine, host: str, terminal: int | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`terminal`: its standard streams; without one they lead nowhere."""
    argv = ["env", "--default-signal=INT", sys.executable, "-m", "mountd", "logs", "--follow", "-H", host]
    lead = subprocess.DEVNULL if terminal is None else terminal
    process = subprocess.Popen(
        argv, env=clean(far.environment), start_new_session=True, stdin=lead, stdout=lead, stderr=lead
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pid in marked(host):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_ctrl_c_ends_the_command_there_too(far: FarMachine) -> None:
    host = f"hub{os.getpid()}"
    with following(far, host) as process:
        await asyncio.to_thread(wait_until, lambda: marked(host), LIMIT_S, "the command there")
        os.killpg(process.pid, signal.SIGINT)
        assert await asyncio.to_thread(process.wait, LIMIT_S) == 130
        await asyncio.to_thread(wait_until, lambda: not marked(host), LIMIT_S, "its end there")


async def test_who_is_killed_here_leaves_nothing_there(far: FarMachine) -> None:
    host = f"gone{os.getpid()}"
    with following(far, host) as process:
        await asyncio.to_thread(wait_until, lambda: marked(host), LIMIT_S, "the command there")
        process.kill()
        await asyncio.to_thread(wait_until, lambda: not marked(host), LIMIT_S, "its end there")


async def test_on_a_terminal_ssh_gets_one_too(far: FarMachine) -> None:
    ours, theirs = pty.openpty()
    host = f"tty{os.getpid()}"
    try:
        with following(far, host, theirs):
            await asyncio.to_thread(wait_until, lambda: far.asked, LIMIT_S, "ssh")
            assert far.asked[0][:2] == ["-t", "--"]
    finally:
        os.close(ours)
        os.close(theirs)
