"""`mountd doctor`: one line for each check, and how to fix what is wrong. Works with and without a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mountd.api.documents import SCHEMA, document
from mountd.api.documents.commands import CheckDocument, DoctorDocument
from mountd.cli.options import config_option, output_option
from mountd.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mountd.cli.examine import Check
    from mountd.cli.options import Options


@click.command()
@config_option
@output_option
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check the machine, configuration, bucket and permissions.

    Prints one line for each check, with a hint where it fails. Run it as the user that runs mountd. Without -c and
    without /etc/mountd/mountd.yaml, checks the file of the running daemon or demo. Exits 1 when a check fails.
    """
    import asyncio

    from mountd.cli.examine_config import source_of

    options: Options = ctx.obj
    source = source_of(options.config, options.socket)

    async def examine() -> list[Check]:
        checks = []
        async for check in all_checks(source):
            if not options.json:
                _show(check)
            checks.append(check)
        return checks

    checks = asyncio.run(examine())
    if options.json:
        options.print_json(DoctorDocument(schema=SCHEMA, checks=[document(CheckDocument, each) for each in checks]))
    if any(check.result == "fail" for check in checks):
        ctx.exit(1)


async def all_checks(path: Path) -> AsyncIterator[Check]:
    """Every check in the order in which to fix things: machine, file, secrets, directories, bucket."""
    from mountd.cli import examine, examine_access, examine_bucket, examine_config, examine_mount, examine_unit
    from mountd.cli.examine import Check
    from mountd.errors import ConfigError
    from mountd.settings.load import check_secrets, load, secrets_elsewhere

    try:
        loaded = load(path)
    except ConfigError as error:
        for check in [*examine.machine(None), *examine_config.broken(path, error)]:
            yield check
        return
    settings = loaded.settings
    machine = list(examine.machine(settings))
    for check in machine:
        yield check
    binary, found = await examine_bucket.rclone(settings)
    for check in [found, *await examine_mount.checks(binary, machine, settings)]:
        yield check
    for check in examine_config.valid(loaded, binary):
        yield check
    elsewhere = dict(secrets_elsewhere(settings))
    problems = check_secrets(settings, loaded.lines, doubtful=tuple(elsewhere))
    unit = await examine_unit.find(path)
    well = Check("secrets", "ok", f"every {'other ' if elsewhere else ''}secret can be read")
    credentials = examine_unit.credentials(unit, [str(each.credential) for each in elsewhere.values()])
    for check in [*([Check("secrets", "fail", str(each)) for each in problems] or [well]), *credentials]:
        yield check
    lines, running = await examine.control(settings, how_to_start=examine_unit.how_to_start(unit, path))
    for check in (*lines, *examine.directories(settings), *examine.links(settings), *await examine.apps(settings)):
        yield check
    for check in () if running else examine.ports(settings):
        yield check
    for check in [*await examine.mount_points(settings), *await examine_access.access(settings, running=running)]:
        yield check
    if elsewhere and not problems:
        hint = "while mountd runs, `mountd status` shows its health"
        yield Check("bucket", "warn", "not checked: systemd passes a secret of this file to the unit only", hint)
    elif binary is not None and not problems:
        async for check in examine_bucket.buckets(settings, binary):
            yield check


def _show(check: Check) -> None:
    colour = {"ok": "green", "warn": "yellow", "fail": "red"}[check.result]
    say(f"  {check.name}: {check.text}", mark=f"{check.result:<4}", colour=colour)
    if check.hint and check.result != "ok":
        say(f"        → {check.hint}")
