"""`mountd doctor`: one line for each check, and how to fix what is wrong. Works with and without a daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mountd.api.documents import SCHEMA, document
from mountd.api.documents.commands import CheckDocument, DoctorDocument
from mountd.cli.labels import word
from mountd.cli.options import Options, reads_file
from mountd.cli.terminal import say
from mountd.cli.wrap import padded
from mountd.errors import ConfigError
from mountd.i18n import M_, _, shown

if TYPE_CHECKING:
    from mountd.cli.examine import Check


MARK_COLUMNS = 4


@click.command()
@click.option(
    "--try-write",
    is_flag=True,
    help="Try to write a tiny object: with the keys of each mount that only reads, where it is expected to be refused,"
    " and with those of each outbox, where it must not be.",
)
@reads_file
def doctor(options: Options, *, try_write: bool) -> None:
    """Check the machine, configuration, bucket and permissions.

    Prints one line for each check, with a hint where it fails. Run it as the user that runs mountd. Without -c and
    without /etc/mountd/mountd.yaml, checks the file of the running daemon or demo. Exits 1 when a check fails.

    \b
    Examples:
      mountd doctor
      mountd doctor -c ./mountd.yaml
    """
    import asyncio

    from mountd.cli.examine_config import source_of

    source = source_of(options.config, options.socket)

    async def run() -> list[Check]:
        checks = []
        async for found in all_checks(source, try_write=try_write):
            for check in found:
                if not options.json:
                    _show(check)
                checks.append(check)
        return checks

    checks = asyncio.run(run())
    options.print_if_json(DoctorDocument(schema=SCHEMA, checks=[document(CheckDocument, each) for each in checks]))
    if any(check.result == "fail" for check in checks):
        raise click.exceptions.Exit(1)


async def all_checks(path: Path, *, try_write: bool = False) -> AsyncIterator[Iterable[Check]]:
    """Every check in the order in which to fix things: machine, file, secrets, directories, bucket; some at a time."""
    from mountd.cli import (
        examine,
        examine_bucket,
        examine_config,
        examine_gpu,
        examine_machine,
        examine_mount,
        examine_notify,
        examine_outbox,
        examine_sources,
        examine_store,
        examine_unit,
        examine_write,
    )
    from mountd.cli.examine import Check
    from mountd.settings.load import check_secrets, load

    try:
        loaded = load(path)
    except ConfigError as error:
        yield examine.machine(None)
        yield examine_config.broken(path, error)
        return
    settings = loaded.settings
    machine = list(examine.machine(settings))
    yield machine
    binary, found = await examine_bucket.rclone(settings)
    yield [found, *await examine_mount.checks(binary, machine, settings)]
    yield examine_config.valid(loaded, binary)
    elsewhere = settings.secrets_elsewhere()
    problems = check_secrets(settings, loaded.lines, doubtful=tuple(elsewhere))
    unit = await examine_unit.find(path)
    well = M_("every other secret can be read") if elsewhere else M_("every secret can be read")
    yield [Check(M_("secrets"), "fail", str(each)) for each in problems] or [Check(M_("secrets"), "ok", well)]
    yield await examine_notify.people(settings)
    yield examine_unit.hardening(unit)
    yield examine_unit.credentials(unit, [str(each.credential) for each in elsewhere.values()])
    lines, running = await examine.control(settings, how_to_start=examine_unit.how_to_start(unit, path))
    yield [*lines, *examine.directories(settings), *examine.links(settings), *await examine.apps(settings)]
    yield await examine_outbox.directories(settings)
    yield await examine_machine.checks(settings)
    if not running:
        yield [*examine.ports(settings), *await examine_gpu.checks(settings)]
    yield [*await examine.mount_points(settings), *await examine.access(settings, running=running)]
    yield await examine_store.stores(settings)
    if elsewhere and not problems:
        text = M_("not checked: systemd passes a secret of this file to the unit only")
        hint = M_("while mountd runs, `mountd status` shows its health")
        yield [Check(M_("bucket"), "warn", text, hint)]
    elif not problems:
        yield await examine_sources.wanted_versions(settings)
        if binary is not None:
            yield await examine_bucket.buckets(settings, binary)
            if try_write:
                yield await examine_write.rights(settings, binary)


def _show(check: Check) -> None:
    colour = {"ok": "green", "warn": "yellow", "fail": "red"}[check.result]
    line = _("{name}: {text}").format(name=shown(check.name), text=shown(check.text))
    say(f"  {line}", mark=padded(word(check.result), MARK_COLUMNS), colour=colour)
    if check.hint and check.result != "ok":
        say(f"        → {shown(check.hint)}")
