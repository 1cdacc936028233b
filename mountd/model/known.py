"""What a version held when it was live against what it holds now: a version must never change."""

from __future__ import annotations

from collections.abc import Sequence

from mountd.journal.records import KnownContent
from mountd.model import manifest
from mountd.model.content import Content
from mountd.model.survey import FileList
from mountd.status.snapshot import Reason

CHANGED = "content-changed"


def changed_since(known: KnownContent | None, now: Content) -> str | None:
    """Why `now` is not what was live under this name before; None: it is, or was never live."""
    if known is None or now.former == known.digest or is_same(known, now.digest, now.files):
        return None
    return f"it has changed since it was live on {_day(known)}; publish under another name, or use --force"


def is_same(known: KnownContent, digest: str, files: FileList) -> bool:
    """By the digest; a version without a manifest stays what it was when only that has come since."""
    if digest == known.digest:
        return True
    had_manifest = known.digest != known.listing
    return not had_manifest and files.bare == known.listing


def differences(
    known: KnownContent, before: FileList, digest: str, now: FileList, named: Sequence[str] = ()
) -> list[str]:
    """What has changed in a version since it was recorded as `known`, as text, the worst first.

    `before` is how it was when it was made live, `digest` and `now` are those of now, and `named` what
    `survey.changes` says of the two.
    """
    problems = [*named]
    if not problems and not is_same(known, digest, now):
        what = f"{manifest.NAME} says something else" if before.has_manifest else "its list of files is another one"
        problems.append(what)
    return problems


def alarm(model: str, version: str, known: KnownContent, problems: Sequence[str], more: int = 0) -> Reason:
    """`content-changed`, for a live version; `more` problems are not among those."""
    summary = manifest.summary(problems, more)
    return Reason(
        CHANGED,
        f"the content of {version}, which is live, has changed in the bucket since {_day(known)}: {summary}",
        "link",
        model,
        "put the former files back, or publish what is wanted under another name and switch to it;"
        " once it is not live any more, only --force leads back to it as it is now",
    )


def _day(known: KnownContent) -> str:
    """To the minute, UTC: `2026-01-01 09:30`."""
    return f"{known.recorded[:10]} {known.recorded[11:16]} UTC"
