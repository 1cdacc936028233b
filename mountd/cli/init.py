"""`mountd init`: asks for store, bucket, version, app and results, and writes a first mountd.yaml."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import click

from mountd.api.documents import SCHEMA
from mountd.api.documents.commands import InitDocument
from mountd.cli import draft as drafts
from mountd.cli import draft_file
from mountd.cli.choice import OneOf
from mountd.cli.draft import APPS, Draft
from mountd.cli.init_questions import ask_keys, draft_of, read_keys
from mountd.cli.options import Options, reads_file
from mountd.cli.terminal import say
from mountd.errors import MountdError, UsageError
from mountd.i18n import M_, _, shown
from mountd.install.carried import SHARE
from mountd.process import tool
from mountd.settings import presets
from mountd.settings.load import DEFAULT_CONFIG, config_path, parse, places
from mountd.settings.plain_file import read_plain

LOOK_UP_S = 5.0
MAX_EXAMPLE_BYTES = 1 << 20


@click.command()
@click.option("--store", type=OneOf(presets.NAMES), help="Preset of the store.")
@click.option("--bucket", metavar="NAME", help="Bucket, or BUCKET/DIRECTORY.")
@click.option("--region", metavar="NAME", help="Region of the bucket, as the store names it.")
@click.option("--endpoint", metavar="URL", help="Address of the store, where the preset has none.")
@click.option("--network", type=OneOf(presets.NETWORKS), help="Network of the store.  [default: public]")
@click.option("--directory", metavar="PATTERN", help="Directories of the versions, such as cache_hub_{version}.")
@click.option("--model-version", "version", metavar="NAME", help="Version wanted at the first start.  [default: v1]")
@click.option("--app", type=OneOf(tuple(APPS)), help="Program that needs the model.  [default: index-tts]")
@click.option("--app-directory", metavar="DIR", help="Directory of the app; the link to the model goes there.")
@click.option("--app-command", "command", metavar="COMMAND", help="Command of the app, in place of its usual one.")
@click.option("--user", metavar="NAME", help="User that the app runs as; empty: as mountd.")
@click.option("--results", metavar="DIR", help="Local directory whose files are uploaded as results; empty: none.")
@click.option("--results-to", metavar="NAME", help="Bucket for the results, or BUCKET/DIRECTORY.")
@click.option("--mount-point", metavar="DIR", help="Where the bucket is mounted.")
@click.option(
    "--secrets",
    type=OneOf(("file", "env", "credential")),
    default="file",
    show_default=True,
    help="How the file refers to the keys.",
)
@click.option("--keys", metavar="FILE", help="File with access key id and secret key, a line each; - for stdin.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing; use the options and the defaults.")
@click.option("--dry-run", is_flag=True, help="Print the file, and write nothing.")
@click.option("--force", is_flag=True, help="Replace a file that exists; it is kept under another name.")
@click.option("--undo", is_flag=True, help="Take back what init wrote.")
@reads_file
def init(
    options: Options, *, secrets: str, keys: str | None, yes: bool, dry_run: bool, force: bool, undo: bool, **given: str
) -> None:
    """Write a first configuration.

    Asks for what the options do not say, checks each answer, and writes a commented file to -c, by default
    /etc/mountd/mountd.yaml. Keys are never written into it: it refers to them, and init says where to put them, or
    writes them into files of their own (0600). The example that `mountd install` puts there is replaced, another file
    only with --force. --undo removes what was written, as long as it is unchanged.

    \b
    Examples:
      mountd init
      mountd init --dry-run --yes --store aws --bucket models
      mountd init --undo
    """
    path = Path(os.path.abspath(config_path(options.config, os.environ)))
    if undo:
        _undo(options, path, force=force)
        return
    answers = {name: value for name, value in given.items() if value is not None}
    asks = not yes
    if asks and not sys.stdin.isatty():
        hint = M_("give the answers as options, and --yes: mountd init --yes --store … --bucket … --region …")
        raise UsageError(M_("cannot ask: standard input is no terminal"), hint=hint)
    if secrets != "file" and keys is not None:
        why = M_("cannot write the keys: --keys is for --secrets file")
        raise UsageError(why, hint=M_("leave one of them out"))
    named = {} if secrets != "file" else dict.fromkeys(path.parent / name for name in drafts.KEY_FILES)
    over = {path, *named} if force else {path} if _is_example(path) else set()
    if not dry_run:
        written = [path, *(named if keys is not None else ())]
        draft_file.refuse_existing([each for each in written if each not in over], undo=_command("init --undo", path))
    draft = replace(
        draft_of(answers, asks=asks), secrets=cast(drafts.SecretKind, secrets), key_directory=str(path.parent)
    )
    pair = read_keys(keys) if keys is not None else ask_keys(named) if asks and named and not dry_run else ()
    text = drafts.render(draft)
    loaded = parse(text, str(path), places(os.geteuid(), os.environ))
    for warning in (*map(str, loaded.warnings), *drafts.doubts(draft)):
        say(_("warning: {text}").format(text=shown(warning)), err=True)
    files = dict(zip(named, pair, strict=False))
    before = {} if dry_run else draft_file.write(path, text, files, over=over)
    following = _following(draft, path, {*named} if dry_run else {*named} - {*files})
    _report(options, path, text, dry_run=dry_run, files=list(files), before=before, following=following)


def _is_example(path: Path) -> bool:
    """As `mountd install` leaves it where there is none: nothing in it is anybody's."""
    try:
        return read_plain(path, MAX_EXAMPLE_BYTES) == (SHARE / "config" / "mountd.yaml").read_bytes()
    except OSError:
        return False


def _undo(options: Options, path: Path, *, force: bool) -> None:
    undone = draft_file.undo(path, force=force)
    removed, restored = [str(each) for each in undone.removed], [str(each) for each in undone.restored]
    before = str(path) if path in undone.restored else ""
    if options.print_if_json(_document(path, removed=removed, before=before)):
        return
    for each in removed:
        say(_("{file} removed").format(file=each))
    for each in restored:
        say(_("{file} is what it was before").format(file=each))


# -- the result -------------------------------------------------------------------------------------------------------


def _command(words: str, path: Path) -> str:
    place = "" if path == DEFAULT_CONFIG else f" -c {shlex.quote(str(path))}"
    return f"mountd {words}{place}"


def _following(draft: Draft, path: Path, missing: set[Path]) -> list[str]:
    """What is left to do, as commands where there are some; in English, texts of ours by `M_()`."""
    steps: list[str] = []
    if draft.secrets == "env":
        first, second = drafts.VARIABLES
        steps.append(M_("set {first} and {second} in mountd's environment", first=first, second=second))
    elif draft.secrets == "credential":
        load = (f"LoadCredential={name}:{path.parent / name}" for name in drafts.KEY_FILES)
        steps.append(M_("add to the unit: {lines}", lines=", ".join(load)))
    notes = (M_("paste the access key id, Enter, Ctrl-D"), M_("paste the secret key, Enter, Ctrl-D"))
    for name, note in zip(drafts.KEY_FILES, notes, strict=True):
        file = path.parent / name
        if file in missing and not os.path.lexists(file):
            command = f"install -D -m 600 /dev/stdin {shlex.quote(str(file))}"
            steps.append(M_("{command}   # {note}", command=command, note=note))
    if draft.user and not _is_user(draft.user):
        steps.append(f"useradd --system --create-home {shlex.quote(draft.user)}")
    return [*steps, *(_command(words, path) for words in ("config check", "doctor", "run"))]


def _is_user(name: str) -> bool:
    """Also where that cannot be found out: then nothing is advised."""
    try:
        return asyncio.run(tool.find_user(name, timeout_s=LOOK_UP_S)) is not None
    except MountdError:
        return True


def _document(
    path: Path,
    *,
    written: bool = False,
    text: str = "",
    files: Sequence[str] = (),
    removed: Sequence[str] = (),
    before: str = "",
    following: Sequence[str] = (),
) -> InitDocument:
    return InitDocument(
        schema=SCHEMA,
        path=str(path),
        written=written,
        text=text,
        files=[*files],
        removed=[*removed],
        before=before,
        next=[*following],
    )


def _report(
    options: Options,
    path: Path,
    text: str,
    *,
    dry_run: bool,
    files: list[Path],
    before: Mapping[Path, Path],
    following: list[str],
) -> None:
    document = _document(
        path,
        written=not dry_run,
        text=text,
        files=[] if dry_run else [str(each) for each in files],
        before=str(before.get(path, "")),
        following=following,
    )
    if options.print_if_json(document):
        return
    if dry_run:
        say(text, nl=False, wrap=False)
        return
    for each in (path, *files):
        say(_("{file} written").format(file=each))
    for aside in before.values():
        say(_("{file} is the file that was there before").format(file=aside))
    say(_("Next:"))
    for step in following:
        say(f"  {shown(step)}", wrap=False)
    say(_("To take it back: {command}").format(command=_command("init --undo", path)), wrap=False)
