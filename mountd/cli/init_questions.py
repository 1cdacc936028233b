"""What `mountd init` asks: store, bucket, version, app, results and keys; each answer is checked before the next."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import cast

import click

from mountd.cli import draft as drafts
from mountd.cli.draft import APPS, Draft
from mountd.cli.terminal import say
from mountd.errors import ConfigError, UsageError
from mountd.i18n import M_, _, shown
from mountd.settings import presets
from mountd.settings.load import parse, places
from mountd.settings.plain_file import read_plain
from mountd.settings.presets import PRESETS

MAX_KEYS_BYTES = 4096
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


def draft_of(answers: Answers, *, asks: bool) -> Draft:
    """From the options, the user's answers and the defaults. Raises UsageError for what neither says."""

    def answer(name: str, question: str, default: str | None, wrong: Callable[[str], str]) -> str:
        if name in answers or not asks:
            value, flag = answers.get(name, default), _FLAGS.get(name, f"--{name.replace('_', '-')}")
            if value is None:
                raise UsageError(M_("cannot write a configuration: {flag} is missing", flag=flag), hint=question)
            if why := wrong(value):
                text = M_("cannot use {flag} {value!r}: {why}", flag=flag, value=value, why=why)
                raise UsageError(text, hint=question)
            return value
        return _ask(question, default, wrong)

    store = cast(
        presets.PresetName,
        answer("store", M_("Store ({names})", names=", ".join(presets.NAMES)), None, _one_of(presets.NAMES)),
    )
    preset = PRESETS[store]
    endpoint = answers.get("endpoint", "")
    if preset.needs_endpoint and not endpoint:
        endpoint = answer(
            "endpoint", M_("Address of the store, such as {example}", example=preset.example), None, _not_empty
        )
    region = answers.get("region", "")
    if preset.needs_region and not endpoint:
        question = M_("Region of the bucket, such as {examples}", examples=", ".join(preset.regions))
        region = answer("region", question, None, _region_of(preset))
    network = answers.get("network", "public")
    if preset.has_own_internal and not endpoint:
        question = M_(
            "Network (internal on a machine of this cloud in the same region, where traffic is free; else public)"
        )
        network = answer("network", question, "public", _one_of(presets.NETWORKS))
    bucket = answer("bucket", M_("Bucket, or BUCKET/DIRECTORY"), None, drafts.wrong_bucket)
    question = M_("Program that needs the model ({names})", names=", ".join(APPS))
    app = cast(drafts.AppName, answer("app", question, "index-tts", _one_of(tuple(APPS))))
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
        command = answer("command", M_("Its command, which stays in the foreground"), None, _not_empty)
        draft = replace(draft, command=shlex.split(command))
    questions = {
        "app_directory": M_("Directory of the app") if app != "none" else M_("Directory for the link to the model"),
        "directory": M_("Directories of the versions in the bucket"),
        "version": M_("Version wanted at the first start"),
    }
    for field, question in questions.items():
        value = answer(field, question, str(getattr(draft, field)), _wrong_at(draft, field))
        draft = _answered(draft, field, value)
    if app != "none":
        user = DEFAULT_USER if os.geteuid() == 0 else ""
        draft = replace(draft, user=answer("user", M_("User that the app runs as"), user, lambda _: ""))
    example = f"{draft.app_directory.rstrip('/')}/outputs"
    # The directory is asked for first, and is checked with the bucket of the models.
    wrong, is_needed = _wrong_at(replace(draft, results_to=bucket), "results"), "results_to" in answers
    results = answer(
        "results",
        M_("Directory of results to upload, such as {example}", example=example),
        None if is_needed else "",
        lambda value: wrong(value) or (_not_empty(value) if is_needed else ""),
    )
    if results:
        draft = replace(draft, results=results)
        wrong_to = _wrong_at(draft, "results_to")
        question = M_("Bucket for the results, or BUCKET/DIRECTORY, which the keys may write to")
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
    text = shown(question)
    text = _("{question} (Enter: none)").format(question=text) if default == "" else text
    while True:
        value = str(click.prompt(text, default=default, show_default=default != "", err=True)).strip()
        if not (why := wrong(value)):
            return value
        say(f"  {shown(why)}", err=True)


def _one_of(names: tuple[str, ...]) -> Callable[[str], str]:
    return lambda value: "" if value in names else M_("must be one of {names}", names=", ".join(names))


def _region_of(preset: presets.Preset) -> Callable[[str], str]:
    return lambda value: presets.wrong_region(preset, value)


def _not_empty(value: str) -> str:
    return "" if value.strip() else M_("must not be empty")


def _wrong_at(draft: Draft, field: str) -> Callable[[str], str]:
    """What the configuration would say of an answer."""

    def wrong(value: str) -> str:
        try:
            parse(drafts.render(_answered(draft, field, value)), "", places(os.geteuid(), os.environ))
        except ConfigError as error:
            return "; ".join(each.text for each in error.problems if each.path.endswith(_PLACES[field]))
        return ""

    return wrong


def read_keys(source: str) -> tuple[str, ...]:
    """Raises UsageError; what is in the file is never repeated."""
    try:
        read = sys.stdin.buffer.read
        data = read(MAX_KEYS_BYTES + 1) if source == "-" else read_plain(Path(source), MAX_KEYS_BYTES)
        lines = data.decode().split()
    except (OSError, UnicodeDecodeError):
        text = M_("cannot read the keys from {source}", source=source)
        raise UsageError(text, hint=M_("a file that you may read, of text")) from None
    if len(lines) != len(drafts.KEY_FILES) or len(data) > MAX_KEYS_BYTES:
        text = M_("cannot use the keys from {source}: it holds something else", source=source)
        raise UsageError(text, hint=M_("two lines: the access key id, then the secret key"))
    return tuple(lines)


def ask_keys(named: Mapping[Path, object]) -> tuple[str, ...]:
    """Both, or none: where their files are there already, or the user has none at hand."""
    if any(os.path.lexists(each) for each in named):
        return ()
    first = click.prompt(_("Access key id (Enter: later)"), default="", show_default=False, err=True).strip()
    if not first:
        return ()
    second = click.prompt(_("Secret key (not shown)"), hide_input=True, err=True).strip()
    return (first, second)
