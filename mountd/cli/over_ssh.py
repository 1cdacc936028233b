"""`-H HOST`: the same command on another machine over ssh; and how it arrives there.

Not one word of it goes through a shell as it is: all are sent as one word of hexadecimal digits, which means the same
to every shell. Exit code, output and `-o json` are those of the command there. Ctrl-C reaches it: on a terminal ssh
passes it on, elsewhere the command notices that its stdin has ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence

from mountd.cli.options import OVER_SSH
from mountd.errors import MountdError, Unreachable, UsageError, cause_of

FAILED = 255
"""What ssh itself ends with."""
NOT_RUN = (126, 127)
"""Of a shell that finds no mountd, or may not run it."""
HELLO = b"\n"
"""Sent first: stdin stays open for as long as somebody waits here."""


def check(host: str) -> str:
    """Raises UsageError for what ssh would not take for the name of a host."""
    if host.startswith("-") or not host.isprintable() or any(each.isspace() for each in host) or not host:
        raise UsageError(f"cannot use {host!r} as a host", hint="write HOST, USER@HOST or ssh://USER@HOST:PORT")
    if "://" in host and not host.startswith("ssh://"):
        raise UsageError(f"cannot use {host!r} as a host", hint="ssh://, http:// and https:// are known")
    return host


def run_there(host: str, words: Sequence[str]) -> int:
    """Its exit code. Raises UsageError, Unreachable, MountdError."""
    import subprocess

    interactive = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    argv = ["ssh", "-t" if interactive else "-T", "--", check(host), "mountd", OVER_SSH, encoded(words)]
    try:
        with subprocess.Popen(argv, stdin=None if interactive else subprocess.PIPE) as ssh:
            if ssh.stdin is not None:
                _greet(ssh.stdin.fileno())
            code = ssh.wait()
    except FileNotFoundError:
        hint = "install it (apt-get install openssh-client), or use http(s)://HOST:PORT"
        raise _unreachable(host, "there is no ssh on this machine", hint) from None
    except OSError as error:
        raise MountdError(f"cannot run ssh: {cause_of(error)}") from None
    if code == FAILED or code < 0:
        raise _unreachable(host, "ssh has failed", f"see what it says, and try: ssh {host} true")
    if code in NOT_RUN:
        raise _unreachable(host, "mountd cannot be run there", f"install it there, on the PATH of: ssh {host} env")
    return code


def encoded(words: Sequence[str]) -> str:
    return json.dumps(list(words)).encode().hex()


def received(words: Sequence[str]) -> list[str]:
    """What `encoded` made one word of. Raises UsageError."""
    try:
        (sent,) = words
        found = json.loads(bytes.fromhex(sent))
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise UsageError(f"cannot understand `mountd {OVER_SSH}`: mountd -H of another machine runs it")
    return found


def end_with_connection() -> None:
    """On the other machine: the same as Ctrl-C, once nobody waits any more."""
    if os.isatty(0):
        return  # there Ctrl-C arrives by itself

    def watch() -> None:
        if not os.read(0, 1):
            return  # stdin was closed from the start
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, name="connection", daemon=True).start()


def _greet(descriptor: int) -> None:
    try:
        os.write(descriptor, HELLO)
    except OSError:
        return  # ssh has ended already; its exit code says why


def _unreachable(host: str, cause: str, hint: str) -> Unreachable:
    return Unreachable(f"cannot reach mountd at {host} over ssh: {cause}", hint=hint)
