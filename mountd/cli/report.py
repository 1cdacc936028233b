"""A failure → what is printed and the exit code; imported only when something failed."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from itertools import pairwise
from typing import TYPE_CHECKING, TextIO

import click

from mountd.cli.terminal import say, say_json
from mountd.errors import Bug, Busy, MountdError, cause_of
from mountd.i18n import M_, _, shown
from mountd.journald import for_stderr, leads_to_journal
from mountd.text import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130  # 128 + SIGINT, as a shell says it
_WRITERS = ("click.utils", "mountd.cli.terminal", "mountd.cli.view", "rich.console")
"""The modules that write to a stream."""
_LACKS = (errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT)
PIPE_CLOSED = 141  # 128 + SIGPIPE: what `set -o pipefail` sees of any other program


def report(error: BaseException, *, json_too: bool) -> int:
    """Print `error` on stderr, with `json_too` as the error document on stdout as well; returns the exit code."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        _lead_nowhere(sys.stdout, sys.stderr)
        return PIPE_CLOSED
    if isinstance(error, OSError) and _is_of_output(error):
        _lead_nowhere(sys.stdout)
        cause = cause_of(error)
        error, json_too = MountdError(f"cannot write the output: {cause}", hint="check where stdout leads"), False
    elif isinstance(error, OSError) and error.errno in _LACKS:
        cause = cause_of(error)
        error = MountdError(f"cannot continue: {cause}", hint="see the limits of this machine, its user and the unit")
    if isinstance(error, click.UsageError):
        error = _misspelt(error)
    if isinstance(error, click.ClickException):
        code, text, hint, holder = 2, error.format_message(), "", ""
        _show(error)
    elif isinstance(error, MountdError):
        code, text, hint = error.exit_code, error.text, error.hint
        holder = error.holder if isinstance(error, Busy) else ""
        _print(text, hint or (_("this is a bug in mountd, please report it") if isinstance(error, Bug) else ""))
    else:
        code, hint, holder = Bug.exit_code, M_("this is a bug in mountd, please report it with the lines above"), ""
        text = f"{type(error).__name__}: {error}"
        _say("".join(traceback.format_exception(error)).rstrip())
        _print(text, hint)
    if json_too:
        from mountd.api.documents import failures

        say_json(failures.failed(code, text, hint, holder))
    return code


def _misspelt(error: click.UsageError) -> click.UsageError:
    """An unknown option or command with the name that was probably meant; any other error as it is."""
    if isinstance(error, click.NoSuchOption):
        wrong, text = error.option_name, _("No such option {name!r}.")
    elif hasattr(error, "command_name"):  # click.NoSuchCommand, which older clicks lack
        wrong, text = str(error.command_name), _("No such command {name!r}.")
    else:
        return error
    text, names = text.format(name=wrong), getattr(error, "possibilities", None)
    if names:
        text = _("{said} Did you mean {name}?").format(said=text, name=nearest(wrong, names) or names[0])
    return click.UsageError(text, ctx=error.ctx)


def _is_of_output(error: OSError) -> bool:
    """Whether it was raised while something was printed. By its kind it could be of any file."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return error.filename is None and any(frame.f_globals.get("__name__") in _WRITERS for frame in frames)


def _can_write(stream: TextIO) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _lead_nowhere(*streams: TextIO) -> None:
    """Those that cannot be written: else the interpreter tries again while it ends, and complains."""
    for stream in streams:
        if not _can_write(stream):
            with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def wants_json(args: Sequence[str]) -> bool:
    """Whether `-o json` was written; from the words alone, because they may not have been understood."""
    words = [*args[: args.index("--")]] if "--" in args else [*args]
    if "-ojson" in words or "--output=json" in words:
        return True
    return any(a in {"-o", "--output"} and b == "json" for a, b in pairwise(words))


def _show(error: click.ClickException) -> None:
    if leads_to_journal(2, os.environ):
        _say(f"mountd: {error.format_message()}")
    else:
        said = io.StringIO()
        error.show(said)  # with the usage
        _say(said.getvalue().removesuffix("\n"))


def _print(text: str, hint: str) -> None:
    _say(f"mountd: {shown(text)}" + ("\n  " + _("hint: {hint}").format(hint=shown(hint)) if hint else ""))


def _say(text: str) -> None:
    try:
        say(for_stderr(text), err=True)
    except OSError:
        _lead_nowhere(sys.stderr)
