"""A look at one version: past the cache as the bucket holds it, or by loading its names into the mount.

Either costs one listing. What the mount was made to load serves the check as well: no second listing is needed where a
manifest says what must be there. A version without one is listed past the cache first: the mount shows an object in the
place of the directory with the same name, and nobody would miss the files in that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mountd.errors import MountdError, NotFound, Refused, RemoteError
from mountd.model import manifest
from mountd.model.content import Content, Touch, check_readable
from mountd.model.disk import Disk
from mountd.model.layout import Layout
from mountd.model.survey import NO_FILES, FileList, Findings, ManifestSummary
from mountd.model.survey_job import of_json
from mountd.model.surveyor import Scratch, ask
from mountd.rclone.failures import OF_THE_OBJECT

PROGRESS_INTERVAL_S = 0.5

Progress = Callable[[int], None]
"""Is called with percents."""


async def inspect(disk: Disk, layout: Layout, version: str, required: Sequence[str]) -> Content:
    """What the bucket holds of `version`, past any cache, compared with its manifest, else with `required`.

    Raises NotFound, Refused for a manifest that the store does not give, Unavailable.
    """
    with Scratch(disk.scratch) as scratch:
        look = Look(disk, scratch, version, layout.directory(version), required)
        await look.read_manifest()
        return await look.listed()


async def load(
    disk: Disk,
    layout: Layout,
    version: str,
    required: Sequence[str],
    progress: Progress,
    *,
    touch: Touch = Touch.NONE,
) -> Content:
    """As `inspect`, and every name and size of a complete version is in the mount's directory cache.

    The digests of its manifest are kept for the cache. `touch`: of the required files and those of the manifest, one of
    each directory first, 100 at most. Raises as `inspect` does, and Refused for those that the store does not give.
    """
    with Scratch(disk.scratch) as scratch:
        look = Look(disk, scratch, version, layout.directory(version), required)
        await look.read_manifest()
        if look.summary is not None and look.summary.version == version:
            async with look.touching(touch) as touched:
                # Only a store that gives valid answers has a manifest of this name, so the mount may list it again.
                await load_names(disk, layout, look.directory, look.summary.count, progress)
                content = await look.seen()
                if content.verified:
                    await look.keep_digests()
                    await touched
                    return content
        # Whether something is missing, or hidden by an object with the name of its directory, the mount cannot say.
        content = await look.listed()
        if not content.complete:
            return content
        await load_names(disk, layout, look.directory, len(content.files), progress)
        if look.summary is not None:
            seen = await look.seen()
            lacking = manifest.summary(seen.problems, seen.more_problems) or f"{manifest.NAME} is missing"
            content = replace(content, unseen="" if seen.verified else lacking)
            await look.keep_digests()
        look.sample = content.sample
        async with look.touching(touch) as touched:
            await touched
        return content


async def load_names(disk: Disk, layout: Layout, directory: str, total: int, progress: Progress) -> None:
    """Every name and size below `directory`, which has `total` files. Raises RemoteError, Unavailable."""
    before = await disk.listed()

    async def watch() -> None:
        while True:
            await asyncio.sleep(PROGRESS_INTERVAL_S)
            with contextlib.suppress(MountdError):
                listed = await disk.listed() - before
                progress(max(0, min(99, 100 * listed // max(1, total))))

    progress(0)
    watching = asyncio.create_task(watch())
    try:
        await _refresh(disk, layout, directory)
    finally:
        watching.cancel()
    progress(100)


async def _refresh(disk: Disk, layout: Layout, directory: str) -> None:
    try:
        await disk.refresh(directory, recursive=True)
    except RemoteError:
        # It came after the mount last looked, or something else stood in its place then.
        await disk.refresh(layout.parent)
        await disk.refresh(directory, recursive=True)


async def list_files(disk: Disk, directory: str) -> FileList:
    """The files below `directory`, past any cache; none: there is no such directory. Raises Unavailable."""
    with Scratch(disk.scratch) as scratch:
        found = await Look(disk, scratch, "", directory, ()).survey_listing()
        return found.files if found else NO_FILES


async def manifest_digest(disk: Disk, directory: str) -> str:
    """Of the manifest in `directory` as the bucket holds it now; empty: it is not one. Raises Unavailable."""
    with Scratch(disk.scratch) as scratch:
        look = Look(disk, scratch, "", directory, ())
        with contextlib.suppress(Refused):
            await look.read_manifest()
        return look.summary.digest if look.summary else ""


async def differences_of(disk: Disk, before: FileList, now: FileList) -> tuple[list[str], int]:
    """See survey.changes: the first of them, and how many more there are. Raises Unavailable."""
    if before.digest == now.digest:
        return [], 0
    with Scratch(disk.scratch) as scratch:
        paths = scratch.path(), scratch.path()
        for path, files in zip(paths, (before, now), strict=True):
            await asyncio.to_thread(path.write_bytes, files.packed)
        job = {"job": "compare", "before": str(paths[0]), "now": str(paths[1])}
        answer = await ask(scratch, job, paths)
        return answer["problems"], answer["more"]


@dataclass(slots=True)
class Look:
    """At `version` in `directory` of the disk; `parsed` and `digests` are files of `survey_job.read_manifest`."""

    disk: Disk
    scratch: Scratch
    version: str
    directory: str
    required: Sequence[str]
    summary: ManifestSummary | None = None
    """None also of what cannot be read as a manifest: `broken` says why"""
    broken: str = ""
    former: str = ""
    sample: Sequence[str] = ()
    """see survey.Findings"""
    parsed: Path = field(default_factory=Path)
    digests: Path = field(default_factory=Path)

    async def read_manifest(self, *, must: bool = False) -> None:
        """As the bucket holds it. One that is not there, or is not given, is none; `must`: it is listed.

        Raises Refused, Unavailable.
        """
        path = f"{self.directory}/{manifest.NAME}"
        data = self.scratch.path()
        try:
            size = await self.disk.size(path)
            if size is not None and size > manifest.MAX_BYTES:
                raise Refused(f"cannot read {path}: {size} bytes are too many for a manifest")
            if size is not None:
                await self.disk.save(path, data)
        except RemoteError as error:
            if error.code not in OF_THE_OBJECT:
                raise
            if must:
                raise Refused(f"cannot read {path}: {error.text}", hint=error.hint, code=error.code) from None
            return
        if size is None:
            if must:
                raise Refused(f"cannot read {path}: the store lists it and does not give it", code="object-missing")
            return
        self.parsed, self.digests = self.scratch.path(), self.scratch.path()
        job = {
            "job": "manifest",
            "data": str(data),
            "directory": self.directory,
            "parsed": str(self.parsed),
            "digests": str(self.digests),
            "required": [*self.required],
        }
        answer = await ask(self.scratch, job, [data])
        if "summary" in answer:
            self.summary = ManifestSummary(**answer["summary"])
            self.former, self.sample = self.summary.former, answer["sample"]
        else:
            self.broken, self.former = answer["broken"], answer["former"]

    async def listed(self) -> Content:
        """Raises NotFound, Refused, Unavailable."""
        found = await self.survey_listing()
        if found is not None and found.files.has_manifest and not found.is_marked and not self.former:
            await self.read_manifest(must=True)
            found = await self.survey_listing()
        if found is None:
            raise NotFound(
                f"cannot find version {self.version}: nothing in {self.directory}",
                hint="`mountd versions` lists the versions",
            )
        return self._content(found)

    async def seen(self) -> Content:
        """As the mount shows it. Raises DiskError."""
        walk = self.scratch.path()
        await self.disk.walk(self.directory, walk)
        answer = await self._survey({"walk": str(walk)}, walk)
        return self._content(of_json(answer["findings"]))

    @contextlib.asynccontextmanager
    async def touching(self, touch: Touch) -> AsyncIterator[asyncio.Task[None]]:
        """Meanwhile the store is asked whether it gives the files of `sample`: to be awaited where that matters, and it
        raises as `check_readable`."""
        sample = () if touch is Touch.NONE else self.sample
        reads = touch.reads(sample, self.required)
        task = asyncio.create_task(check_readable(self.disk, self.version, self.directory, sample, reads))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def keep_digests(self) -> None:
        if self.summary is not None:
            await self.disk.know(self.directory, self.digests, self.summary.digest)

    async def survey_listing(self) -> Findings | None:
        """None: nothing is there. Raises Unavailable."""
        listing = self.scratch.path()
        try:
            origin = await self.disk.save_listing(self.directory, listing)
        except RemoteError as error:
            if error.code != "directory-missing":
                raise
            return None
        answer = await self._survey({"listing": str(listing)}, listing)
        await self.disk.leave_out(origin, self.directory, answer["unusable"])
        found = of_json(answer["findings"])
        return found if found.files else None

    async def _survey(self, source: dict[str, str], file: Path) -> dict[str, Any]:
        usable = self.summary is not None
        job = {
            "job": "look",
            "version": self.version,
            "directory": self.directory,
            "required": [*self.required],
            "parsed": str(self.parsed) if usable else "",
            "broken": self.broken,
            **source,
        }
        return await ask(self.scratch, job, [file, self.parsed] if usable else [file])

    def _content(self, found: Findings) -> Content:
        has_manifest = found.files.has_manifest and not found.is_marked
        named = self.summary if has_manifest else None
        return Content(
            version=self.version,
            directory=self.directory,
            files=found.files,
            # What cannot be read as a manifest says nothing of what the version holds.
            digest=named.digest if named else found.files.digest,
            verified=named is not None and not found.problems,
            problems=found.problems,
            manifest=named,
            former=self.former if has_manifest else "",
            more_problems=found.more,
            misnamed=found.misnamed,
            sample=found.sample,
            required=found.required,
        )
