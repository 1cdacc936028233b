"""`mountd init`: asks for store, bucket, version, app and results, and writes a first mountd.yaml."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
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
from mountd.cli.options import Options, reads_file
from mountd.cli.terminal import say
from mountd.errors import ConfigError, MountdError, UsageError
from mountd.install.carried import SHARE
from mountd.process import tool
from mountd.settings import presets
from mountd.settings.load import DEFAULT_CONFIG, config_path, parse, places
from mountd.settings.plain_file import read_plain
from mountd.settings.presets import PRESETS

LOOK_UP_S = 5.0
MAX_KEYS_BYTES = 4096
MAX_EXAMPLE_BYTES = 1 << 20
DEFAULT_USER = "tts"
Answers = Mapping[str, str]

_FLAGS = {"version": "--model-version", "command": "--app-command"}
"""Where an answer's option has another name."""
_PLACES = {
    "directory": ".directory",
    "version": ".version",
    "app_directory": ".link",
    "results": "outbox.results.directory",
    "results_to": "outbox.results.remote",
}
"""Answer → the end of the key in which a wrong one shows."""


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
        hint = "give the answers as options, and --yes: mountd init --yes --store … --bucket … --region …"
        raise UsageError("cannot ask: standard input is no terminal", hint=hint)
    if secrets != "file" and keys is not None:
        raise UsageError("cannot write the keys: --keys is for --secrets file", hint="leave one of them out")
    named = {} if secrets != "file" else dict.fromkeys(path.parent / name for name in drafts.KEY_FILES)
    over = {path, *named} if force else {path} if _is_example(path) else set()
    if not dry_run:
        written = [path, *(named if keys is not None else ())]
        draft_file.refuse_existing([each for each in written if each not in over], undo=_command("init --undo", path))
    draft = replace(
        _draft(answers, asks=asks), secrets=cast(drafts.SecretKind, secrets), key_directory=str(path.parent)
    )
    pair = _read_keys(keys) if keys is not None else _ask_keys(named) if asks and named and not dry_run else ()
    text = drafts.render(draft)
    loaded = parse(text, str(path), places(os.geteuid(), os.environ))
    for warning in (*map(str, loaded.warnings), *drafts.doubts(draft)):
        say(f"warning: {warning}", err=True)
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
        say(f"{each} removed")
    for each in restored:
        say(f"{each} is what it was before")


# -- the answers ------------------------------------------------------------------------------------------------------


def _draft(answers: Answers, *, asks: bool) -> Draft:
    """From the options, the user's answers and the defaults. Raises UsageError for what neither says."""

    def answer(name: str, question: str, default: str | None, wrong: Callable[[str], str]) -> str:
        if name in answers or not asks:
            value, flag = answers.get(name, default), _FLAGS.get(name, f"--{name.replace('_', '-')}")
            if value is None:
                raise UsageError(f"cannot write a configuration: {flag} is missing", hint=question)
            if why := wrong(value):
                raise UsageError(f"cannot use {flag} {value!r}: {why}", hint=question)
            return value
        return _ask(question, default, wrong)

    store = cast(
        presets.PresetName, answer("store", f"Store ({', '.join(presets.NAMES)})", None, _one_of(presets.NAMES))
    )
    preset = PRESETS[store]
    endpoint = answers.get("endpoint", "")
    if preset.needs_endpoint and not endpoint:
        endpoint = answer("endpoint", f"Address of the store, such as {preset.example}", None, _not_empty)
    region = answers.get("region", "")
    if preset.needs_region and not endpoint:
        examples = ", ".join(preset.regions)
        region = answer("region", f"Region of the bucket, such as {examples}", None, _region_of(preset))
    network = answers.get("network", "public")
    if preset.has_own_internal and not endpoint:
        question = (
            "Network (internal on a machine of this cloud in the same region, where traffic is free; else public)"
        )
        network = answer("network", question, "public", _one_of(presets.NETWORKS))
    bucket = answer("bucket", "Bucket, or BUCKET/DIRECTORY", None, drafts.wrong_bucket)
    app = cast(
        drafts.AppName,
        answer("app", f"Program that needs the model ({', '.join(APPS)})", "index-tts", _one_of(tuple(APPS))),
    )
    template, name = APPS[app], bucket.strip("/").rpartition("/")[2]
    above = "/mnt" if os.geteuid() == 0 else f"{os.environ.get('HOME', '/tmp')}/mnt"  # noqa: S108 - it is shown
    draft = Draft(
        store,
        bucket,
        app,
        template.pattern,
        "v1",
        template.directory,
        answers.get("mount_point", f"{above}/{name}"),
        region=region,
        network=cast(presets.Network, network),
        endpoint=endpoint,
        command=shlex.split(answers["command"]) if "command" in answers else template.command or ("true",),
    )
    if app == "other":
        command = answer("command", "Its command, which stays in the foreground", None, _not_empty)
        draft = replace(draft, command=shlex.split(command))
    questions = {
        "app_directory": ("Directory of the app" if app != "none" else "Directory for the link to the model"),
        "directory": "Directories of the versions in the bucket",
        "version": "Version wanted at the first start",
    }
    for field, question in questions.items():
        value = answer(field, question, str(getattr(draft, field)), _wrong_at(draft, field))
        draft = _answered(draft, field, value)
    if app != "none":
        user = DEFAULT_USER if os.geteuid() == 0 else ""
        draft = replace(draft, user=answer("user", "User that the app runs as", user, lambda _: ""))
    example = f"{draft.app_directory.rstrip('/')}/outputs"
    # The directory is asked for first, and is checked with the bucket of the models.
    wrong, is_needed = _wrong_at(replace(draft, results_to=bucket), "results"), "results_to" in answers
    results = answer(
        "results",
        f"Directory of results to upload, such as {example}",
        None if is_needed else "",
        lambda value: wrong(value) or (_not_empty(value) if is_needed else ""),
    )
    if results:
        draft = replace(draft, results=results)
        wrong_to = _wrong_at(draft, "results_to")
        question = "Bucket for the results, or BUCKET/DIRECTORY, which the keys may write to"
        results_to = answer("results_to", question, None, lambda value: drafts.wrong_bucket(value) or wrong_to(value))
        draft = replace(draft, results_to=results_to)
    return draft


def _answered(draft: Draft, field: str, value: str) -> Draft:
    match field:
        case "app_directory":
            return replace(draft, app_directory=value)
        case "directory":
            return replace(draft, directory=value)
        case "version":
            return replace(draft, version=value)
        case "results":
            return replace(draft, results=value)
        case "results_to":
            return replace(draft, results_to=value)
    raise ValueError(field)


def _ask(question: str, default: str | None, wrong: Callable[[str], str]) -> str:
    shown = f"{question} (Enter: none)" if default == "" else question
    while True:
        value = str(click.prompt(shown, default=default, show_default=default != "", err=True)).strip()
        if not (why := wrong(value)):
            return value
        say(f"  {why}", err=True)


def _one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    return lambda value: "" if value in names else f"must be one of {', '.join(names)}"


def _region_of(preset: presets.Preset) -> Callable[[str], str]:
    return lambda value: presets.wrong_region(preset, value)


def _not_empty(value: str) -> str:
    return "" if value.strip() else "must not be empty"


def _wrong_at(draft: Draft, field: str) -> Callable[[str], str]:
    """What the configuration would say of an answer."""

    def wrong(value: str) -> str:
        try:
            parse(drafts.render(_answered(draft, field, value)), "", places(os.geteuid(), os.environ))
        except ConfigError as error:
            return "; ".join(each.text for each in error.problems if each.path.endswith(_PLACES[field]))
        return ""

    return wrong


def _read_keys(source: str) -> tuple[str, ...]:
    """Raises UsageError; what is in the file is never repeated."""
    try:
        read = sys.stdin.buffer.read
        data = read(MAX_KEYS_BYTES + 1) if source == "-" else read_plain(Path(source), MAX_KEYS_BYTES)
        lines = data.decode().split()
    except (OSError, UnicodeDecodeError):
        raise UsageError(f"cannot read the keys from {source}", hint="a file that you may read, of text") from None
    if len(lines) != len(drafts.KEY_FILES) or len(data) > MAX_KEYS_BYTES:
        hint = "two lines: the access key id, then the secret key"
        raise UsageError(f"cannot use the keys from {source}: it holds something else", hint=hint)
    return tuple(lines)


def _ask_keys(named: Mapping[Path, object]) -> tuple[str, ...]:
    """Both, or none: where their files are there already, or the user has none at hand."""
    if any(os.path.lexists(each) for each in named):
        return ()
    first = click.prompt("Access key id (Enter: later)", default="", show_default=False, err=True).strip()
    if not first:
        return ()
    second = click.prompt("Secret key (not shown)", hide_input=True, err=True).strip()
    return (first, second)


# -- the result -------------------------------------------------------------------------------------------------------


def _command(words: str, path: Path) -> str:
    place = "" if path == DEFAULT_CONFIG else f" -c {shlex.quote(str(path))}"
    return f"mountd {words}{place}"


def _following(draft: Draft, path: Path, missing: set[Path]) -> list[str]:
    """What is left to do, as commands where there are some."""
    steps = []
    if draft.secrets == "env":
        steps.append(f"set {' and '.join(drafts.VARIABLES)} in mountd's environment")
    elif draft.secrets == "credential":
        load = (f"LoadCredential={name}:{path.parent / name}" for name in drafts.KEY_FILES)
        steps.append(f"add to the unit: {', '.join(load)}")
    for name, what in zip(drafts.KEY_FILES, ("the access key id", "the secret key"), strict=True):
        file = path.parent / name
        if file in missing and not os.path.lexists(file):
            steps.append(f"install -D -m 600 /dev/stdin {shlex.quote(str(file))}   # paste {what}, Enter, Ctrl-D")
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
        say(f"{each} written")
    for aside in before.values():
        say(f"{aside} is the file that was there before")
    say("Next:")
    for step in following:
        say(f"  {step}", wrap=False)
    say(f"To take it back: {_command('init --undo', path)}", wrap=False)
