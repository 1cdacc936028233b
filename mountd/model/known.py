"""What a version held when it was live against what it holds now: a version must never change."""

from __future__ import annotations

from collections.abc import Mapping

from mountd.journal.records import KnownContent
from mountd.model import manifest
from mountd.model.content import Content
from mountd.status.snapshot import Reason

CHANGED = "content-changed"


def changed_since(known: KnownContent | None, now: Content) -> str | None:
    """Why `now` is not what was live under this name before; None: it is, or was never live."""
    if known is None or now.former == known.digest or is_same(known, now.digest, now.files):
        return None
    return f"it has changed since it was live on {_day(known)}; publish under another name, or use --force"


def is_same(known: KnownContent, digest: str, files: Mapping[str, int]) -> bool:
    """By the digest; a version without a manifest stays what it was when only that has come since."""
    if digest == known.digest:
        return True
    had_manifest = known.digest != known.listing
    bare = {path: size for path, size in files.items() if path != manifest.NAME}
    return not had_manifest and manifest.listing_digest(bare) == known.listing


def differences(known: KnownContent, before: Content, digest: str, files: Mapping[str, int]) -> list[str]:
    """What has changed in a version since it was recorded as `known`, as text, the worst first.

    `before` is how it was when it was made live; `digest` and `files` are those of now. Files added to a
    version with a manifest do not count.
    """
    has_manifest = manifest.NAME in before.files
    problems = [f"{path} has vanished" for path in before.files if path not in files]
    problems += [
        f"{path} has {files[path]} bytes instead of {size}"
        for path, size in before.files.items()
        if path in files and files[path] != size and path != manifest.NAME
    ]
    if not has_manifest:
        problems += [f"{path} was added" for path in files if path not in before.files and path != manifest.NAME]
    if not problems and not is_same(known, digest, files):
        what = f"{manifest.NAME} says something else" if has_manifest else "its list of files is another one"
        problems.append(what)
    return problems


def alarm(model: str, version: str, known: KnownContent, problems: list[str]) -> Reason:
    """`content-changed`, for a live version."""
    summary = manifest.summary(problems)
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
