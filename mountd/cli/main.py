"""The `mountd` command: finds each command by its name; every failure becomes a sentence and an exit code.

Imports are the whole cost of a command that asks the daemon, so nothing is imported before it is needed: a command's
module when the command runs, what reports failures when something fails, what draws tables when one is drawn.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from mountd import __version__
from mountd.cli import utf8
from mountd.cli.options import OVER_SSH, Options, output_option, place_options
from mountd.cli.terminal import flush, say
from mountd.i18n import ENGLISH, N_, _, language_of
from mountd.text import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from click.shell_completion import CompletionItem

COMMANDS = {
    "run": ("local", "run", "Run the daemon; also the entrypoint of a container."),
    "demo": ("local", "demo", "Try mountd on this machine; needs no configuration."),
    "status": ("remote", "status", "Show the health of each layer from the bucket to the app, with reasons."),
    "versions": ("remote", "versions", "List the versions in the bucket, and those pinned on this machine."),
    "switch": ("remote_switch", "switch", "Switch a model to another version; undo everything on failure."),
    "rollback": ("remote_switch", "rollback", "Switch a model back to its previous version, or an earlier one."),
    "warm": ("remote_switch", "warm", "Load a version ahead of a switch to it."),
    "cancel": ("remote_switch", "cancel", "Undo the running operation, or drop a scheduled switch."),
    "pause": ("remote_switch", "pause", "Stop automatic changes until `mountd resume`."),
    "resume": ("remote_switch", "resume", "Resume automatic changes after `mountd pause`."),
    "explain": ("explain", "explain", "Explain in plain words what is wrong, why, and what to do next."),
    "diff": ("diff", "diff", "Show where what is live differs from what is wanted."),
    "profile": ("profile", "profile", "Show which files the app opened at its start, and in which order."),
    "history": ("history", "history", "Show past operations: who, when, why and the result."),
    "events": ("history", "events", "Show events; with --follow, new ones too."),
    "wait": ("remote", "wait", "Wait until mountd is ready, a version is live or an operation has finished."),
    "logs": ("remote", "logs", "Show recent output of rclone and of the app."),
    "restart": ("remote", "restart", "Restart a mount or an app, and wait until it is running."),
    "start": ("remote_apps", "start", "Start an app that was stopped or has failed, and wait until it is running."),
    "stop": ("remote_apps", "stop", "Stop an app until `mountd start`, or until mountd itself restarts."),
    "signal": ("remote_apps", "signal", "Send a signal to the main process of an app."),
    "reload": ("remote", "reload", "Load the configuration file again."),
    "notify": ("notify", "notify", "Send a test message to a target of notifications."),
    "publish": ("publish", "publish", "Upload a directory as a version of a model."),
    "drill": ("drill", "drill", "Inject a fault, and measure detection and recovery."),
    "init": ("init", "init", "Write a first configuration."),
    "config": ("config", "config", "Check and show the configuration, and what rclone gets."),
    "doctor": ("doctor", "doctor", "Check the machine, configuration, bucket and permissions."),
    "debug": (
        "debug",
        "debug",
        "Collect a support bundle: configuration, states, logs, events, incidents, metrics; without secrets.",
    ),
    "install": ("install", "install", "Install the units, user, completion and man page of mountd."),
    "completion": ("completion", "completion", "Print the completion script for a shell."),
    "manual": ("manual", "manual", "Print the man page."),
}
"""name → module in this package, attribute, and the first line of its help; in the order of `mountd --help`"""

EXIT_CODES = {
    0: N_("ok"),
    1: N_("failed, or unhealthy"),
    2: N_("wrong usage, configuration or version name"),
    3: N_("not found"),
    4: N_("timed out (--timeout); the operation continues"),
    5: N_("rolled back: changes were undone"),
    6: N_("busy: another operation is running"),
    7: N_("refused: nothing was changed"),
    8: N_("no daemon answers"),
    20: N_("a bug in mountd"),
}
EPILOG = "\b\nExit codes:\n" + "".join(f"  {code:<2}  {text}\n" for code, text in EXIT_CODES.items())


class LazyGroup(click.Group):
    """Imports a command only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _text = COMMANDS[cmd_name]
        command = getattr(_import(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if not ctx.resilient_parsing and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = nearest(args[0], COMMANDS)
            said = _("No such command {name!r}.").format(name=args[0])
            ctx.fail(_("{said} Did you mean {name}?").format(said=said, name=near) if near else said)
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            command = _in_the_language_of_the_reader(command)
        host = ctx.obj.host if isinstance(ctx.obj, Options) else None
        if host is not None and command is not None and not any(each.name == "host" for each in command.params):
            ctx.fail(_("{name} works on this machine, and takes no -H.").format(name=name))
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section(_("Commands")):
            formatter.write_dl([(name, _(text)) for name, (*_where, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """From the table: the modules of all commands are not imported for a Tab."""
        from click.shell_completion import CompletionItem

        names = [(name, text) for name, (*_where, text) in COMMANDS.items() if name.startswith(incomplete)]
        return [
            *(CompletionItem(name, help=_(text)) for name, text in names),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]


def _in_the_language_of_the_reader(command: click.Command) -> click.Command:
    if language_of(os.environ) == ENGLISH:
        return command
    from mountd.cli.help import localized

    return localized(command)


def _import(module: str) -> ModuleType:
    """By a plain import, which import-linter sees."""
    return _of_the_daemon(module) or _on_its_own(module)


def _of_the_daemon(module: str) -> ModuleType | None:
    """Commands that ask it."""
    match module:
        case "remote":
            from mountd.cli import remote

            return remote
        case "remote_switch":
            from mountd.cli import remote_switch

            return remote_switch
        case "remote_apps":
            from mountd.cli import remote_apps

            return remote_apps
        case "diff":
            from mountd.cli import diff

            return diff
        case "explain":
            from mountd.cli import explain

            return explain
        case "profile":
            from mountd.cli import profile

            return profile
        case "history":
            from mountd.cli import history

            return history
        case "drill":
            from mountd.cli import drill

            return drill
        case "notify":
            from mountd.cli import notify

            return notify
        case _:
            return None


def _on_its_own(module: str) -> ModuleType:
    match module:
        case "local":
            from mountd.cli import local

            return local
        case "publish":
            from mountd.cli import publish

            return publish
        case "init":
            from mountd.cli import init

            return init
        case "config":
            from mountd.cli import config

            return config
        case "doctor":
            from mountd.cli import doctor

            return doctor
        case "debug":
            from mountd.cli import debug

            return debug
        case "install":
            from mountd.cli import install

            return install
        case "completion":
            from mountd.cli import completion

            return completion
        case "manual":
            from mountd.cli import manual

            return manual
        case _:
            raise ValueError(module)


def _print_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        say(f"mountd {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@place_options
@output_option
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def cli() -> None:
    """Makes an object-storage bucket a dependable disk for a TTS service."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, by default that of this process → its exit code."""
    _open_closed_streams()
    if arguments is None:
        utf8.insist()
    args = list(sys.argv[1:] if arguments is None else arguments)
    options = Options()
    options.words = [*args]  # click takes them out of its list
    if "_MOUNTD_COMPLETE" in os.environ:
        from mountd.cli.completion import answer

        answer(cli, args, options)
    for stream in (sys.stdout, sys.stderr):  # an old locale must not turn a Chinese file name into a traceback
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    try:
        if args[:1] == [OVER_SSH]:
            args = _received(args[1:], options)
        code = _invoke(args, options)
        flush()
    except Exception as error:
        return _report(error, args, options)
    except KeyboardInterrupt as error:
        return _report(error, args, options)
    return code


def _received(words: list[str], options: Options) -> list[str]:
    """The command line of a `-H` on another machine."""
    from mountd.cli import over_ssh

    options.came_over_ssh = True
    over_ssh.end_with_connection()
    return over_ssh.received(words)


def _open_closed_streams() -> None:
    """A standard stream that is closed leads nowhere, and its number goes to no journal and no socket."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def _invoke(args: list[str], options: Options) -> int:
    command = _in_the_language_of_the_reader(cli)
    if command is not cli:
        from mountd.cli.help import translate_click

        translate_click()
    try:
        with command.make_context("mountd", args, obj=options) as context:
            command.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    return 0


def _report(error: BaseException, args: list[str], options: Options) -> int:
    from mountd.cli.report import report, wants_json

    return report(error, json_too=wants_json(args) and not options.answered)
