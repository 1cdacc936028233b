"""What a caller hears of a warm: how far it is, and what came of it."""

from __future__ import annotations

import errno
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WarmProgress:
    """`bytes_done` of `bytes_total` are there; `bytes_per_s` over the last seconds, `eta_s` None while nothing comes.

    `waits_for`: why nothing comes, "" while something does.
    """

    bytes_done: int
    bytes_total: int
    bytes_per_s: float
    eta_s: float | None
    files_done: int
    files_total: int
    readers: int
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class FileFault:
    """Why a file is not as wanted. `code`: `digest-differs`, `size-differs`, `file-missing`, `file-unreadable`, or that
    of a RemoteError; `errno`: the kernel's, 0 when there was none."""

    path: str
    code: str
    text: str
    errno: int = 0


def code_of(number: int) -> str:
    """Of a fault with this errno; 0: what is there could be read, and is not what is wanted."""
    if not number:
        return "size-differs"
    return "file-missing" if number in (errno.ENOENT, errno.ENOTDIR) else "file-unreadable"


@dataclass(frozen=True, slots=True)
class FetchResult:
    """Each file without a fault is there and, if its digest is known, has it. `bytes_read`: by this call."""

    bytes_read: int
    faults: tuple[FileFault, ...] = ()
