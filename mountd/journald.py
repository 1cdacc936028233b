"""systemd's journal: whether stderr leads there, and how a line says its priority there. Standard library only."""

from __future__ import annotations

import os
from collections.abc import Mapping

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""of syslog; without one the journal takes a line for information"""


def leads_to_journal(descriptor: int, environ: Mapping[str, str]) -> bool:
    """Whether `descriptor` is what systemd says it connected to the journal: a redirected stderr is not."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def native_socket(descriptor: int) -> str:
    """Where the journal behind `descriptor` takes entries with fields; "" where it is none. A unit with LogNamespace=
    has a journal of its own, and its socket beside the stream's."""
    import socket

    try:
        with socket.socket(fileno=os.dup(descriptor)) as stream:
            peer = stream.getpeername()
    except OSError:
        return ""
    directory, _, name = peer.rpartition("/") if isinstance(peer, str) else ("", "", "")
    return f"{directory}/socket" if name == "stdout" else ""


def prefixed(text: str, level: str) -> str:
    """Each line of `text` with the priority of `level`: the journal makes an entry of each."""
    prefix = f"<{PRIORITIES.get(level, PRIORITIES['error'])}>"
    ending = "\n" if text.endswith("\n") else ""
    return "\n".join(prefix + line for line in text.removesuffix("\n").split("\n")) + ending


def for_stderr(text: str, level: str = "error") -> str:
    """`text` as it is written to stderr: with its priority when that leads to the journal."""
    return prefixed(text, level) if leads_to_journal(2, os.environ) else text
