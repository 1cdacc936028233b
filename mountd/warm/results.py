"""What a caller hears of a warm: how far it is, and what came of it."""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace

from mountd.errors import Refused, Unavailable
from mountd.text import printable

SHOWN = 5


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

    def shifted(self, there: int) -> WarmProgress:
        """As a part of something of which `there` bytes more are here."""
        return replace(self, bytes_done=self.bytes_done + there, bytes_total=self.bytes_total + there)


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


WRONG_BYTES = frozenset({"digest-differs", "size-differs"})
"""Codes of files that were read and are not what the manifest says."""


def raise_faults(result: FetchResult) -> None:
    """Raises Refused for files that are not as the manifest says, Unavailable for those that could not be read."""
    if not result.faults:
        return
    shown = "; ".join(f"{printable(fault.path)}: {fault.text}" for fault in result.faults[:SHOWN])
    more = len(result.faults) - SHOWN
    text = f"cannot load the version: {shown}" + (f"; and {more} more" if more > 0 else "")
    code = result.faults[0].code
    if any(fault.code in WRONG_BYTES | {"file-missing"} for fault in result.faults):
        raise Refused(text, hint="upload it again, or publish it under a new name", code=code)
    raise Unavailable(text, hint="see `mountd status`: it says how the bucket is", code=code)
