"""What `doctor` checks of wanted versions from outside: can each file and repository be read, and what it wants."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from mountd.cli.examine import Check
from mountd.errors import MountdError, cause_of
from mountd.gitops.git import GitPlaces, GitSource
from mountd.gitops.wanted import MAX_BYTES, WantedVersion, parse
from mountd.i18n import M_
from mountd.rclone.conf_file import read_in_threads
from mountd.settings.plain_file import read_plain
from mountd.settings.schema import Settings
from mountd.settings.sync import DesiredSettings

READ_S = 5.0


async def wanted_versions(settings: Settings) -> list[Check]:
    """One line for each model whose version comes from outside; all at the same time."""
    with tempfile.TemporaryDirectory(prefix="mountd-doctor-") as directory:  # 0700, for a key
        asked = {name: model.desired for name, model in settings.models.items() if model.desired is not None}
        return await asyncio.gather(*(_check(name, each, Path(directory)) for name, each in asked.items()))


async def _check(model: str, desired: DesiredSettings, directory: Path) -> Check:
    where = M_("wanted version of {name}", name=model)
    try:
        found = await _read(model, desired, directory)
    except MountdError as error:
        return Check(where, "fail", error.text, error.hint)
    except TimeoutError:
        text = M_("no answer in {limit:g} s from the disk of {place}", limit=READ_S, place=desired.file)
        return Check(where, "fail", text, M_("put it on a local disk"))
    except OSError as error:
        text = M_("cannot read {file}: {cause}", file=desired.file, cause=cause_of(error))
        return Check(where, "fail", text, M_("mountd waits for it; create it, or correct models.*.desired.file"))
    if not found.revision:
        return Check(where, "ok", found.version)
    facts = {"version": found.version, "commit": found.revision[:10], "author": found.author}
    return Check(where, "ok", M_("{version} (commit {commit} by {author})", **facts))


async def _read(model: str, desired: DesiredSettings, directory: Path) -> WantedVersion:
    """Raises MountdError, OSError, TimeoutError."""
    if desired.git is not None:
        places = GitPlaces(directory / "git", directory)
        return await GitSource(model, desired.git, read_secrets=read_in_threads, places=places, marks={}).read()
    path = desired.file
    assert path is not None
    async with asyncio.timeout(READ_S):
        data = await asyncio.to_thread(read_plain, path, MAX_BYTES)
    return WantedVersion(parse(data, desired.key, str(path)), "file")
