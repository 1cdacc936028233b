"""`mountd publish`: uploads a directory as a version of a model, by itself, without a daemon."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mountd.api.documents import SCHEMA, document
from mountd.api.documents.commands import PublishDocument, SentDocument
from mountd.cli.completion import complete_directory
from mountd.cli.options import Options, model_option, reads_file
from mountd.cli.progress import bar
from mountd.cli.terminal import can_move, say, size, write_over
from mountd.errors import NotFound, UsageError
from mountd.i18n import N_, _
from mountd.text import did_you_mean

if TYPE_CHECKING:
    from mountd.publish import run
    from mountd.publish.record import Record
    from mountd.publish.upload import Store
    from mountd.settings.schema import Settings

JOBS = 4
LINE_S = 10.0
"""Between two lines of progress where there is no terminal."""
TERMINATED = 143  # 128 + SIGTERM
CONTINUE = N_("interrupted: run the same command again to continue")
COMPARED = {"size": N_("sizes"), "hash": N_("sizes and hashes"), "download": N_("every byte")}
PHASES = (N_("reading"), N_("sending"), N_("reading back"))


@click.command()
@click.argument("directory", type=click.Path(), shell_complete=complete_directory)
@click.argument("version")
@model_option("The model; required when there are several.")
@click.option(
    "--dry-run", is_flag=True, help="Read and compare everything, print what would be done, and write nothing."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    metavar="N",
    default=JOBS,
    show_default=True,
    help="How many files are read and sent at the same time.",
)
@click.option("--download-check", is_flag=True, help="Read everything back from the bucket and compare its sha256.")
@click.option("--take-over", is_flag=True, help="Continue an upload that somebody else began and will not finish.")
@reads_file
def publish(
    options: Options,
    *,
    directory: str,
    version: str,
    model: str | None,
    dry_run: bool,
    jobs: int,
    download_check: bool,
    take_over: bool,
) -> None:
    """Upload a directory as a version of a model.

    Hashes every file, sends what is missing in the bucket, verifies sizes and hashes, and writes MANIFEST.json last.
    Until then an object .mountd-publishing-ID marks the version as incomplete. Works without a daemon.

    After an interruption, run it again to continue: files that have arrived are neither hashed nor sent again; only a
    multipart upload starts over. A published version never changes: different content under its name is refused (7),
    the same content is fine (0). A file that changes during the upload is an error.

    Sends all files, hidden ones too, except a MANIFEST.json at the top and empty directories. A symbolic link is sent
    as its target, which must be inside DIRECTORY. In a Hugging Face cache (models--…) the files in snapshots are sent,
    and the blobs they link to are not sent a second time.

    Two runs that publish one version at the same time see each other's marker: the later one, or both, exit with 6.
    --take-over while the other still runs defeats this. Parts that a killed run sent stay in the bucket, invisible,
    until a lifecycle rule for incomplete multipart uploads removes them.

    \b
    Examples:
      mountd publish ./my-model v24 --dry-run
      mountd publish ./my-model v24 --model cache_hub --jobs 8
    """
    import asyncio

    from mountd.publish.run import Asked
    from mountd.settings.load import config_path, load
    from mountd.settings.names import check_version

    check_version(version)
    loaded = load(config_path(options.config, os.environ))
    name = _model(loaded.settings, model)
    began = time.monotonic()
    required = tuple(loaded.settings.models[name].required)
    wanted = Asked(version, required, jobs, dry_run, take_over, download_check)
    try:
        place, published = asyncio.run(_publish(loaded.settings, name, directory, wanted))
    except KeyboardInterrupt:
        say(_(CONTINUE), err=True)
        raise
    except asyncio.CancelledError:
        say(_(CONTINUE), err=True)
        raise click.exceptions.Exit(TERMINATED) from None
    took_s = time.monotonic() - began
    if not options.print_if_json(_document(name, version, place, published, took_s)):
        _show(version, place, published, took_s)


def _model(settings: Settings, asked: str | None) -> str:
    names = ", ".join(settings.models)
    if asked is not None and asked not in settings.models:
        hint = f"{did_you_mean(asked, settings.models)}the configuration has: {names or 'none'}"
        raise NotFound(f"cannot find model {asked}", hint=hint)
    if asked is None and len(settings.models) != 1:
        text = "there are several" if names else "the configuration has none"
        raise UsageError(f"cannot publish without a model: {text}", hint=f"add --model with one of: {names}")
    return asked or next(iter(settings.models))


async def _publish(settings: Settings, model: str, directory: str, asked: run.Asked) -> tuple[str, run.Published]:
    """The destination and the result."""
    import asyncio
    import signal

    from mountd.model.layout import Layout
    from mountd.publish import plan, run
    from mountd.publish.record import open_record

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    remote = settings.mounts[settings.models[model].mount].remote
    path = Layout(settings.models[model].directory).directory(asked.version)
    tree = await asyncio.to_thread(run.look_at, directory, asked, plan.key_prefix(remote, path))
    record = await open_record(_state(settings), plan.place(remote, path))
    bar = Bar()
    try:
        store = await _store(settings, settings.models[model].mount, path, record)
        return store.place, await run.Publishing(asked, tree, store, record, bar.show).run()
    finally:
        bar.end()
        record.close()


def _state(settings: Settings) -> Path:
    """Where the record of a run is kept: the daemon's state directory, or this user's where that cannot be written."""
    from mountd.cli.render import nearest
    from mountd.settings.load import places

    own = places(os.geteuid(), os.environ).state
    return settings.state if os.access(nearest(settings.state), os.W_OK | os.X_OK) else own


async def _store(settings: Settings, mount: str, path: str, record: Record) -> Store:
    """The version's directory, reached as the mount reaches its bucket, with an rclone.conf of its own."""
    import asyncio

    from mountd.cli.render import command_of, write_conf
    from mountd.publish.upload import Access, Store
    from mountd.rclone import binary as binaries

    needed = settings.beneath(settings.mounts[mount].remote_name)
    alone = settings.model_copy(update={"remotes": {name: settings.remotes[name] for name in needed}})
    binary = await asyncio.to_thread(binaries.find, settings.rclone.binary)
    conf = await write_conf(alone, binary, record.private)
    command = command_of(alone, mount, binary, conf.path)
    access = Access(binary.path, conf.path, command.argv, command.environment, conf.secrets)
    return Store(access, settings.mounts[mount].remote, path, scratch=record.private, lock=record.lock)


class Bar:
    """Progress on stderr: one line that is written over on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._live = can_move(sys.stderr)
        self._next = time.monotonic() + LINE_S
        self._shows = False
        self._shown: tuple[str, int] | None = None

    def show(self, progress: run.Progress) -> None:
        now = time.monotonic()
        part = min(100, 100 * progress.done // progress.total) if progress.total else 100
        if (progress.what, part) == self._shown or (not self._live and now < self._next):
            return
        self._next = now + LINE_S
        self._shown = (progress.what, part)
        text, full = f"{_(progress.what)} {size(progress.total)}: ", ""
        if self._live:
            full, rest = bar(part)
            text += f"{full}{rest} "
        text += f"{part} %"
        if progress.speed:
            text += f", {size(progress.speed)}/s"
        if progress.eta_s is not None and part < 100:
            minutes, seconds = divmod(round(progress.eta_s), 60)
            text += ", " + _("{time} left").format(time=f"{minutes}m{seconds:02}s")
        if self._live:
            write_over(text, mark=full, colour="green")
            self._shows = True
        else:
            say(text, err=True)

    def end(self) -> None:
        if self._shows:
            say(err=True)
        self._shows = False


def _document(model: str, version: str, place: str, published: run.Published, took_s: float) -> PublishDocument:
    return document(
        PublishDocument,
        published,
        schema=SCHEMA,
        model=model,
        version=version,
        destination=place,
        sent=SentDocument(files=published.sent, bytes=published.sent_bytes),
        duration_s=round(took_s, 3),
    )


def _show(version: str, place: str, published: run.Published, took_s: float) -> None:
    would = published.result == "would-publish"
    facts = {"version": version, "place": place, "count": published.files, "size": size(published.bytes)}
    facts |= {"sent": published.sent, "sent_size": size(published.sent_bytes)}
    if published.left_out:
        names = _(", ").join(published.left_out[:3]) + (" …" if published.left_out[3:] else "")
        say(_("left out: {names}").format(names=names), err=True)
    if published.deleted:
        done, planned = (
            _("deleted (left by an interrupted run): {count} files"),
            _("would be deleted (left by an interrupted run): {count} files"),
        )
        say((planned if would else done).format(count=len(published.deleted)), err=True)
    match published.result:
        case "would-publish":
            text = _(
                "{version} would be published to {place}: {count} files, {size}; "
                "{sent} of them ({sent_size}) would be sent"
            )
            say(text.format(**facts))
        case "already-published":
            text = _("{version} is already published with the same content: {count} files, {size}; nothing was changed")
            say(text.format(**facts))
        case "published":
            text = _(
                "{version} is published to {place}: {count} files, {size}; "
                "{sent} of them ({sent_size}) sent in {seconds:.1f} s, {what} compared\n"
                "digest {digest}"
            )
            what = _(COMPARED[published.checked]) if published.checked in COMPARED else ""
            say(text.format(**facts, seconds=took_s, what=what, digest=published.digest))
