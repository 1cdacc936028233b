"""A parent of a daemon, as `mountd run` makes it, around a daemon that is a few lines of a test."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import IO

from tests.support import dies_with_us

PRELUDE = """
import os, signal, subprocess, sys, time
from mountd.process.init import fork_daemon

def say(*words):
    print(*words, flush=True)

def detach(*argv):
    '''A process that nobody waits for, in a session of its own; its pid.'''
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            os.execvp(argv[0], argv)
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reader, 20))

def daemon():
{body}

say('init', os.getpid())
sys.exit(fork_daemon(daemon))
"""


class Init:
    def __init__(self, body: str, *wrap: str) -> None:
        source = PRELUDE.format(body=textwrap.indent(textwrap.dedent(body).strip(), "    "))
        self.process = subprocess.Popen(
            dies_with_us([*wrap, sys.executable, "-c", source]),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = int(self.line().split()[1])

    def line(self) -> str:
        out: IO[str] | None = self.process.stdout
        assert out is not None
        return out.readline().strip()

    def end(self) -> tuple[int, str]:
        """Exit code and what it said on stderr."""
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors

    def close(self) -> None:
        self.process.terminate()
        try:
            self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
