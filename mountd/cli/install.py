"""`mountd install`: puts units, user, completion and man page on a machine, and removes them again."""

from __future__ import annotations

import os
import sys

import click

from mountd.api.documents import SCHEMA
from mountd.api.documents.commands import InstallDocument, InstallStepDocument
from mountd.cli.options import Options, output_option
from mountd.cli.terminal import say
from mountd.cli.wrap import padded
from mountd.errors import MountdError, UsageError
from mountd.i18n import M_, _

ACTION_COLUMNS = 8
NEXT = "mountd config check, mountd doctor, systemctl enable --now mountd"


@click.command()
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option("--uninstall", is_flag=True, help="Stop mountd, and remove what install made.")
@click.option(
    "--purge",
    is_flag=True,
    help="With --uninstall: also the configuration, secrets, state and cache, uploads that are waiting among them.",
)
@click.option(
    "--user/--no-user",
    default=None,
    help="Run mountd as the user mountd, or as root.  [default: as it is installed, else as root]",
)
@click.option(
    "--root",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    default="/",
    help="Install into the image of a machine at DIR.  [default: this machine]",
)
@output_option
@click.pass_obj
def install(options: Options, *, dry_run: bool, uninstall: bool, purge: bool, user: bool | None, root: str) -> None:
    """Install the units, user, completion and man page of mountd.

    For a machine with systemd. Makes the user and group mountd (by sysusers), /etc/mountd and its directory for secrets
    (by tmpfiles), and /etc/mountd/mountd.yaml if there is none; writes the units, completion for bash, zsh and fish,
    the man page, and the link /usr/local/bin/mountd. Starts nothing: `systemctl enable --now mountd`.

    Run it again after an upgrade. Keeps a file that somebody has changed since, and says so. --uninstall removes what
    install made, by its record in /etc/mountd/installed.json, and nothing else; --dry-run prints what either would do.

    \b
    Examples:
      mountd install --dry-run
      mountd install --user
      mountd install --uninstall
    """
    from mountd.install.installation import Installation
    from mountd.install.plan import InstallStep

    if purge and not uninstall:
        raise UsageError(M_("--purge belongs to --uninstall"))
    if os.geteuid() != 0 and root == "/" and not dry_run:
        hint = M_("sudo mountd install, or --dry-run to see what it does")
        raise MountdError(M_("cannot install: only root may"), hint=hint)
    steps: list[InstallStepDocument] = []

    def tell(step: InstallStep) -> None:
        steps.append(InstallStepDocument(action=step.action.value, path=_shown(step), text=step.text))
        if not options.json:
            line = _shown(step)
            if step.text:
                line = _("{name}: {text}").format(name=line, text=_(step.text))
            say(f"{padded(_(step.action.value), ACTION_COLUMNS)} {line}")

    installation = Installation(root, sys.executable)
    if uninstall:
        installation.uninstall(tell, purge=purge, dry_run=dry_run)
    else:
        installation.install(tell, user=user, dry_run=dry_run)
    if options.print_if_json(InstallDocument(schema=SCHEMA, dry_run=dry_run, steps=steps)):
        return
    if uninstall and not steps:
        say(_("mountd install has made nothing here"), err=True)
    elif not uninstall and not dry_run and root == "/":
        say(_("next: {commands}").format(commands=NEXT), err=True)


def _shown(step: object) -> str:
    from mountd.install.plan import InstallAction, InstallStep

    assert isinstance(step, InstallStep)
    return step.path if step.action is InstallAction.RUN else f"/{step.path}"
