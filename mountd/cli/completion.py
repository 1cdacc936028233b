"""Shell completion: the scripts, and the names that a shell offers. A Tab is silent, and waits a second at most."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

import click

from mountd.cli.choice import OneOf
from mountd.cli.terminal import say

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

ASK_TIMEOUT_S = 1.0
"""Seconds for everything that one Tab asks."""
LISTED_S = 0.6
"""Of that, for the versions in the bucket; then those that the daemon knows without it are offered."""
SIGNALS = ("HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "TERM", "KILL", "WINCH")
"""Those that the daemon sends."""
KINDS = ("switch", "rollback", "warm", "schedule", "drill")
RESULTS = ("committed", "rolled-back", "refused", "failed", "cancelled", "interrupted", "passed", "done", "missed")
CONDITIONS = ("ready", "version=", "operation=")
LAST = 50
"""Operations and events that names are taken from."""
VARIABLE = "_MOUNTD_COMPLETE"
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


@click.command()
@click.argument("shell", type=OneOf(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for a shell.

    \b
    Examples:
      mountd completion bash > ~/.local/share/bash-completion/completions/mountd
      mountd completion zsh > "${fpath[1]}/_mountd"
      mountd completion fish > ~/.config/fish/completions/mountd.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    made = kind(ctx.find_root().command, {}, "mountd", VARIABLE)
    say(made.source_template % made.source_vars(), wrap=False)


def whole_words(words: list[str], at: int) -> tuple[list[str], int, str]:
    """The words of a command line as bash gives them, which parts them at each `=`; which one the cursor is in.

    → the words whole, the number of that one, and the part of it that bash has finished with: `version=`.
    """
    whole: list[str] = []
    cursor, done = 0, ""
    joins = False
    for number, word in enumerate(words):
        if whole and (joins or word == "=") and len(whole) > 1:
            if number == at:
                done = f"{whole[-1]}=" if word == "=" else whole[-1]
            whole[-1] += word
        else:
            whole.append(word)
        if number == at:
            cursor = len(whole) - 1
        joins = word == "="
    return whole, cursor, done


def rejoin(environ: MutableMapping[str, str]) -> str:
    """Makes whole words of those that bash gives in $COMP_WORDS; the part that its answers must not repeat."""
    words, at = environ.get("COMP_WORDS", "").split("\n"), environ.get("COMP_CWORD", "")
    if "=" not in words or not at.isdecimal() or int(at) >= len(words):
        return ""
    whole, cursor, done = whole_words(words, int(at))
    environ.update({"COMP_WORDS": "\n".join(whole), "COMP_CWORD": str(cursor)})
    return done


def answer(command: click.Command, args: list[str], options: object) -> None:
    """What the shell that has set the variable asks for, and the end of this process."""
    from click.shell_completion import add_completion_class, get_completion_class

    shell = os.environ[VARIABLE].partition("_")[0]
    kind = get_completion_class(shell)
    done = rejoin(os.environ) if shell == "bash" else ""
    if kind is not None:

        class WholeWords(kind):  # type: ignore[misc, valid-type]
            """Answers `--model=ca` with `--model=cache_hub`: shells replace the whole word."""

            def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
                option, sign, _value = incomplete.partition("=")
                found: list[CompletionItem] = super().get_completions(args, incomplete)
                if sign and option.startswith("--"):
                    for item in found:
                        item.value = f"{option}={item.value}"
                for item in found:
                    item.value = str(item.value).removeprefix(done)
                return found

        add_completion_class(WholeWords, shell)
    try:
        command.main(args, prog_name="mountd", obj=options)
    except Exception:  # of a Tab nothing is reported
        raise SystemExit(1) from None


# -- names -------------------------------------------------------------------------------------------------------------


def _one_of(names: Iterable[str]) -> Complete:
    return lambda _ctx, _param, incomplete: [name for name in names if name.startswith(incomplete)]


def complete_directory(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The shell does it."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


complete_kind = _one_of(KINDS)
complete_result = _one_of(RESULTS)


def complete_version(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Those in the bucket; when it does not say them in time, those that are or were live or wanted here."""
    asked = _Asked(ctx)
    model = ctx.params.get("model")
    found = asked.get("/api/v1/versions", limit_s=LISTED_S, model=model).get("versions")
    names = [str(entry["version"]) for entry in found or ()]
    if found is None:
        for name, known in (asked.get("/api/v1/status").get("models") or {}).items():
            if model in (None, name):
                names += [str(known[key]) for key in ("current", "previous", "desired") if known.get(key)]
        past = asked.get("/api/v1/history", model=model, limit=LAST).get("history") or ()
        names += [str(each["to"]) for each in past if each.get("kind") in ("switch", "rollback", "warm")]
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _names(*kinds: str) -> Complete:
    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        status = _Asked(ctx).get("/api/v1/status")
        return [name for kind in kinds for name in status.get(kind) or {} if name.startswith(incomplete)]

    return complete


complete_model = _names("models")
complete_mount = _names("mounts")
complete_thing = _names("mounts", "apps")
complete_app = _names("apps")
complete_target = _names("notify")


def complete_object(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What events are about."""
    found = _names("remotes", "mounts", "models", "apps")(ctx, param, incomplete)
    return [*dict.fromkeys(found), *(name for name in ("mountd",) if name.startswith(incomplete))]


def complete_code(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Of the last events."""
    found = _Asked(ctx).get("/api/v1/events", limit=10 * LAST).get("events") or ()
    return [code for code in sorted({str(each["code"]) for each in found}) if code.startswith(incomplete)]


def complete_signal(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in SIGNALS if name.startswith(incomplete.upper().removeprefix("SIG"))]


def complete_operation(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the last operations, newest first."""
    return _ids(_Asked(ctx).get("/api/v1/history", limit=LAST).get("history"), incomplete)


def complete_committed(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the last operations that were committed, newest first."""
    return _ids(_Asked(ctx).get("/api/v1/history", result="committed").get("history"), incomplete)


def complete_cancellable(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of what runs and of what is scheduled."""
    status = _Asked(ctx).get("/api/v1/status")
    return _ids([*(status.get("operations") or []), *(status.get("scheduled") or [])], incomplete)


def complete_condition(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """`ready`, `version=v23`, `operation=7`: of what runs, else of the last ones."""
    kind, sign, begun = incomplete.partition("=")
    if not sign:
        return [each for each in CONDITIONS if each.startswith(incomplete)]
    if kind == "version":
        return [f"version={each}" for each in complete_version(ctx, param, begun)]
    if kind == "operation":
        found = complete_cancellable(ctx, param, begun) or complete_operation(ctx, param, begun)
        return [f"operation={each}" for each in found]
    return []


def _ids(operations: Iterable[dict[str, Any]] | None, incomplete: str) -> list[str]:
    return [str(each["id"]) for each in operations or () if str(each["id"]).startswith(incomplete)]


class _Asked:
    """The daemon, for as long as a Tab may take; {} for what it does not answer."""

    def __init__(self, ctx: click.Context) -> None:
        self._ctx = ctx
        self._deadline = time.monotonic() + ASK_TIMEOUT_S

    def get(self, path: str, *, limit_s: float = ASK_TIMEOUT_S, **parameters: object) -> dict[str, Any]:
        from mountd.client.api import get
        from mountd.errors import MountdError

        left_s = min(limit_s, self._deadline - time.monotonic())
        if left_s <= 0:
            return {}
        try:
            return get(self._ctx.obj.find(), path, timeout_s=left_s, **parameters)
        except MountdError:
            return {}
