"""Shell completion: the scripts, and the names that a shell offers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from mountd.cli.choice import OneOf
from mountd.cli.terminal import say

ASK_TIMEOUT_S = 1.0
SIGNALS = ("HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "TERM", "KILL", "WINCH")
"""Those that the daemon sends."""


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
    made = kind(ctx.find_root().command, {}, "mountd", "_MOUNTD_COMPLETE")
    say(made.source_template % made.source_vars(), wrap=False)


def complete_version(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    found = _ask(ctx, "/api/v1/versions").get("versions") or []
    return [entry["version"] for entry in found if entry["version"].startswith(incomplete)]


def _names(*kinds: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        status = _ask(ctx, "/api/v1/status")
        return [name for kind in kinds for name in status.get(kind) or {} if name.startswith(incomplete)]

    return complete


complete_model = _names("models")
complete_mount = _names("mounts")
complete_thing = _names("mounts", "apps")
complete_app = _names("apps")


def complete_signal(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in SIGNALS if name.startswith(incomplete.upper().removeprefix("SIG"))]


def complete_committed(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the last operations that were committed, newest first."""
    found = _ask(ctx, "/api/v1/history?result=committed").get("history") or []
    return [str(each["id"]) for each in found if str(each["id"]).startswith(incomplete)]


def complete_cancellable(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of what runs and of what is scheduled."""
    status = _ask(ctx, "/api/v1/status")
    found = [*(status.get("operations") or []), *(status.get("scheduled") or [])]
    return [str(each["id"]) for each in found if str(each["id"]).startswith(incomplete)]


def _ask(ctx: click.Context, path: str) -> dict[str, Any]:
    from mountd.client.api import get
    from mountd.errors import MountdError

    try:
        return get(ctx.obj.find(), path, timeout_s=ASK_TIMEOUT_S)
    except MountdError:  # a Tab must stay silent
        return {}
