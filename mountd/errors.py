"""The whole error tree on one page: what can go wrong, its exit code, and whether trying again can help.

MountdError                     1   something failed
 ├── UsageError                 2   wrong words, wrong configuration
 │    ├── ConfigError           2   every problem of a file, each with its place
 │    └── BadVersionName        2   a name that can never be a version
 ├── NotFound                   3   no such model, version, mount or app
 ├── StillRunning               4   timed out; the operation continues
 ├── RolledBack                 5   something had changed and was undone
 ├── Busy                       6   another operation or process holds it
 ├── Refused                    7   checked and refused; nothing was changed
 ├── Unreachable                8   no daemon answers
 ├── Unavailable                1   a part that is needed is not there now; trying again can help
 │    ├── CannotStart           1   a child could not be brought up
 │    ├── CommandTimeout        1   a command did not finish in time
 │    ├── Exhausted             1   this machine is short of something, or refuses something
 │    ├── RemoteError           1   the bucket did not give what was asked
 │    └── DiskError             1   a touch of a mounted path failed
 │         ├── DiskTimeout      1   … or was not answered in time
 │         └── ProbeNotSent     1   … or could not be sent: that says nothing about the disk
 ├── JournalError               1   the journal cannot be read or written now; trying again can help
 │    └── JournalHeld           1   another program holds it
 ├── GateFailed                 1   a new version did not pass what the configuration asks of it
 ├── NotUploaded                1   mountd stopped before all uploads were done; they are kept
 └── Bug                       20   mountd itself is wrong
"""

from __future__ import annotations

from dataclasses import dataclass

from mountd.text import storable

LONGEST_TEXT = 4000
"""Characters of a failure's text, and of its hint: what it quotes from outside may be of any length."""
LONGEST_LIST = 64 * 1024
"""Of one that names every problem of a file."""


class MountdError(Exception):
    """An expected failure: `text` reads "cannot X: cause", `hint` says what to do.

    Either may be made by `M_()`: then the command line shows it in the language of the reader.
    `exit_code` is what the command line exits with, `code` names the reason in status ("": it has no name of its own),
    `retryable` says whether the same call may succeed later without anybody changing anything.
    """

    exit_code = 1
    code: str = ""
    retryable: bool = False
    longest = LONGEST_TEXT

    def __init__(self, text: str, *, hint: str = "", code: str | None = None) -> None:
        self.text = storable(text, self.longest)
        self.hint = storable(hint, self.longest)
        if code is not None:
            self.code = code
        super().__init__(self.text)


def cause_of(error: OSError) -> str:
    """An OSError in words, for "cannot X: cause". A TimeoutError is one as well, and has none of its own."""
    return (error.strerror or str(error) or "no answer in time").lower()


class UsageError(MountdError):
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a configuration file: where (`a.b.c`; line from 1, 0: unknown) and what would be right."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.path}: {self.text}" if self.path else f"{place}{self.text}"


class ConfigError(UsageError):
    """A file that cannot be used, with all of its problems."""

    longest = LONGEST_LIST

    def __init__(self, source: str, problems: list[Problem], *, hint: str = "") -> None:
        self.source = source
        self.problems = problems
        count = f"{len(problems)} problem" + ("s" if len(problems) != 1 else "")
        lines = "".join(f"\n  {problem}" for problem in problems)
        hint = hint or f"see it checked again: mountd config check -c {source}"
        super().__init__(f"cannot use {source}: {count}{lines}", hint=hint)


class BadVersionName(UsageError):
    pass


class NotFound(MountdError):
    exit_code = 3


class StillRunning(MountdError):
    exit_code = 4


class RolledBack(MountdError):
    exit_code = 5


class Busy(MountdError):
    """`holder` says who: operator, target and age, or the process that holds a lock."""

    exit_code = 6
    retryable = True

    def __init__(self, text: str, *, hint: str = "", holder: str = "") -> None:
        super().__init__(text, hint=hint)
        self.holder = holder


class Refused(MountdError):
    exit_code = 7


class Unreachable(MountdError):
    exit_code = 8
    retryable = True


class Unavailable(MountdError):
    retryable = True


class CannotStart(Unavailable):
    """A child could not be brought up; `retry_s`: seconds until the next attempt, instead of the growing backoff."""

    code = "cannot-start"

    def __init__(self, text: str, *, hint: str = "", code: str | None = None, retry_s: float | None = None) -> None:
        super().__init__(text, hint=hint, code=code)
        self.retry_s = retry_s


FIX_RETRY_S = 10.0
"""A person has to fix these; checking every 10 s costs nothing and saves a restart."""


def needs_fix(code: str, text: str, hint: str) -> CannotStart:
    """A fault of this machine that a person has to fix; checked again every FIX_RETRY_S seconds."""
    return CannotStart(text, hint=hint, code=code, retry_s=FIX_RETRY_S)


class CommandTimeout(Unavailable):
    """A command did not finish in its time; `output` is what it had printed by then."""

    def __init__(self, text: str, *, output: str) -> None:
        super().__init__(text)
        self.output = output


class Exhausted(Unavailable):
    """This machine is short of something that mountd needs; `code` names the resource."""


class RemoteError(Unavailable):
    """The bucket, asked outside the mount, did not answer as expected; `code` names the kind."""

    code = "bucket-error"


class DiskError(Unavailable):
    """A touch of a mounted path failed; `errno` is the kernel's answer, 0 when there was none."""

    def __init__(self, text: str, *, hint: str = "", errno: int = 0) -> None:
        super().__init__(text, hint=hint)
        self.errno = errno


class DiskTimeout(DiskError):
    pass


class ProbeNotSent(DiskError):
    pass


class JournalError(MountdError):
    code = "journal-unusable"
    retryable = True


class JournalHeld(JournalError):
    pass


class GateFailed(MountdError):
    """A gate did not let a version pass. `code`: `gate-failed`, the version's own doing as far as anybody can tell, or
    `gate-unanswered`: whether it is good could not be found out, which is `retryable` when that may pass by itself.
    """

    code = "gate-failed"

    def __init__(self, text: str, *, hint: str = "", code: str | None = None, retryable: bool = False) -> None:
        super().__init__(text, hint=hint, code=code)
        self.retryable = retryable


class NotUploaded(MountdError):
    pass


class Bug(MountdError):
    exit_code = 20
