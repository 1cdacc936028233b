"""What a machine answers that is short of something → which resource it is, in words: a failure, not a bug."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

import structlog

from mountd.errors import Exhausted, cause_of

log = structlog.get_logger()

_OWN = "see who holds them: ls -l /proc/PID/fd; raise LimitNOFILE= of the unit, or `ulimit -n`"
_ALL = "see who holds them: lsof; raise fs.file-max"
_PROCESSES = "see how many there are: TasksMax= of the unit, pids.max of the container, ulimit -u of the user"
_MEMORY = "see MemoryMax= of the unit, the limits of the container and `ulimit -v`"
_DISK = "free some room there, or raise the quota"

_LOG = "see mountd's own log (`journalctl -u mountd`, or the container's): it says where in mountd this happened"
SYSTEM_ERROR = "system-error"

_LACKS: dict[int, tuple[str, str, str]] = {
    errno.EMFILE: ("no-descriptors", "mountd has no file descriptor left", _OWN),
    errno.ENFILE: ("no-descriptors", "this machine has no file descriptor left", _ALL),
    errno.EAGAIN: ("no-processes", "no process or thread can be started", _PROCESSES),
    errno.ENOMEM: ("no-memory", "there is no memory left", _MEMORY),
    errno.ENOSPC: ("disk-full", "there is no room left on a disk", _DISK),
    errno.EDQUOT: ("disk-full", "the quota of a disk is used up", _DISK),
}
_OUR_OWN_DOING = (errno.EBADF, errno.EFAULT, errno.ENOTSOCK)


def lack(error: BaseException) -> Exhausted | None:
    """A resource that is used up, and comes back without anybody mending mountd; None for everything else."""
    if isinstance(error, Exhausted):
        return error
    if isinstance(error, MemoryError):
        return _exhausted(errno.ENOMEM)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return _exhausted(errno.EAGAIN)
    if isinstance(error, OSError) and error.errno in _LACKS:
        return _exhausted(error.errno, error.filename)
    return None


def of_the_machine(error: BaseException) -> Exhausted | None:
    """As `lack`, and whatever else the system has refused; None for what only a mistake of mountd can bring about.

    The latter has the code `system-error`, and the error as its cause: it may follow from a mistake of mountd all the
    same, so the caller that catches it logs where it was raised.
    Of a group all have to be of that kind.
    """
    if isinstance(error, BaseExceptionGroup):
        found = [of_the_machine(each) for each in error.exceptions]
        return found[0] if all(found) else None
    if (found_lack := lack(error)) is not None:
        return found_lack
    if not isinstance(error, OSError) or error.errno in _OUR_OWN_DOING:
        return None
    if error.errno is None and not isinstance(error, ConnectionError):
        return None  # a TimeoutError of asyncio, for one, is an OSError as well
    place = f": {_shown(error.filename)}" if error.filename is not None else ""
    cause = cause_of(error)
    refused = Exhausted(f"the system refuses something: {cause}{place}", code=SYSTEM_ERROR, hint=_LOG)
    refused.__cause__ = error
    return refused


def _exhausted(number: int, place: object = None) -> Exhausted:
    code, text, hint = _LACKS[number]
    where = f": {_shown(place)}" if place is not None and code == "disk-full" else ""
    return Exhausted(f"{text}{where}", code=code, hint=hint)


def _shown(place: object) -> str:
    return os.fsencode(place).decode(errors="backslashreplace") if isinstance(place, str | bytes) else str(place)


@contextlib.contextmanager
def as_exhausted() -> Iterator[None]:
    """Inside, what the machine lacks or refuses becomes Exhausted, which those around expect."""
    try:
        yield
    except Exception as error:
        found = of_the_machine(error)
        if found is None or found is error:
            raise
        if found.code == SYSTEM_ERROR:
            log.warning("the system refuses something", cause=found.text, exc_info=error)
        raise found from error
