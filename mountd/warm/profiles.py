"""The access profiles on disk: one file for each model below the state directory, replaced as a whole."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from mountd.cache import stamps
from mountd.errors import Unavailable, cause_of
from mountd.process.slow_disk import SlowDisk
from mountd.warm import access
from mountd.warm.access import AccessProfile, AppStart

DIRECTORY = "profiles"
MOST_BYTES = 32 * 1024 * 1024
"""A file is some 100 bytes, and a start has 20,000 of them at most; a larger profile counts as none."""
LIMIT_S = 10.0

T = TypeVar("T")


class Profiles:
    """By the name of the model. Every method raises Unavailable when the disk does not answer, or cannot be written."""

    def __init__(self, state: Path) -> None:
        self._directory = state / DIRECTORY
        self._disk = SlowDisk()

    async def read(self, model: str) -> AccessProfile | None:
        """None: nothing is recorded, or what is there makes no sense."""
        return await self._run("read", model, lambda: _read(self._path(model)))

    async def keep(self, model: str, app: str, start: AppStart, apps: Collection[str]) -> None:
        """Of this start what the app opened; of others of `apps` what is known."""

        def keep() -> None:
            self._directory.mkdir(mode=0o755, exist_ok=True)
            known = _read(self._path(model)) or AccessProfile()
            content = access.dump(known.with_start(app, start, apps))
            stamps.replace(self._path(model), content, durable=True)

        await self._run("keep", model, keep)

    async def forget(self, model: str, version: str | None = None) -> list[str]:
        """Removes it, or only what was recorded with `version`: the apps whose start that was."""

        def forget() -> list[str]:
            known = _read(self._path(model)) or AccessProfile()
            gone = known.starts if version is None else known.of_version(version).starts
            left = {app: start for app, start in known.starts.items() if app not in gone}
            if left and gone:
                stamps.replace(self._path(model), access.dump(AccessProfile(left)), durable=True)
            elif not left:
                self._path(model).unlink(missing_ok=True)
            return list(gone)

        return await self._run("remove", model, forget)

    def _path(self, model: str) -> Path:
        return self._directory / f"{model}.json"

    async def _run(self, what: str, model: str, work: Callable[[], T]) -> T:
        failure = f"cannot {what} the access profile of {model}"
        hint = f"see the disk of {self._directory}"
        try:
            return await self._disk.run(work, LIMIT_S)
        except TimeoutError:
            raise Unavailable(f"{failure}: no answer in {LIMIT_S:g} s", hint=hint) from None
        except OSError as error:
            raise Unavailable(f"{failure}: {cause_of(error)}", hint=hint) from None


def _read(path: Path) -> AccessProfile | None:
    """Blocks."""
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError:
        return None
    return access.parse(content) if len(content) <= MOST_BYTES else None
