"""What `doctor` checks of wanted versions from outside: can each file and repository be read, and what it wants."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from mountd.cli.examine import Check
from mountd.errors import MountdError, cause_of
from mountd.gitops.git import GitPlaces, GitSource
from mountd.gitops.wanted import MAX_BYTES, WantedVersion, parse
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
    where = f"wanted version of {model}"
    try:
        found = await _read(model, desired, directory)
    except MountdError as error:
        return Check(where, "fail", error.text, error.hint)
    except TimeoutError:
        return Check(
            where, "fail", f"no answer in {READ_S:g} s from the disk of {desired.file}", "put it on a local disk"
        )
    except OSError as error:
        hint = "mountd waits for it; create it, or correct models.*.desired.file"
        return Check(where, "fail", f"cannot read {desired.file}: {cause_of(error)}", hint)
    commit = f" (commit {found.revision[:10]} by {found.author})" if found.revision else ""
    return Check(where, "ok", f"{found.version}{commit}")


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
