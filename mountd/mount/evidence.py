"""What is kept of an incident, before the repair destroys it: one directory each, bounded in number, size and time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import structlog

from mountd.clock import now_text
from mountd.errors import MountdError
from mountd.fuse.unmount import unanswered
from mountd.mount.engine import Engine

log = structlog.get_logger()

COLLECT_S = 1.0
"""The repair waits for this."""
WRITE_S = 1.0
ASK_S = 0.3
DUMP_S = 0.4
INCIDENTS = "incidents"
KEPT = 20
"""Incidents; the oldest go first."""
MAX_BYTES = 256 * 1024
"""A file."""
LOG_LINES = 200
MAX_THREADS = 512
STAMP = "%Y%m%dT%H%M%S.%fZ"
_NAME = re.compile(r"\d{8}T\d{6}\.\d{6}Z-")


def directory(state: Path, environ: Mapping[str, str]) -> Path:
    """Of all incidents: where the unit has LogsDirectory=, there, else in the state directory."""
    logs = environ.get("LOGS_DIRECTORY", "").partition(":")[0]
    return (Path(logs) if logs.startswith("/") else state) / INCIDENTS


async def keep(
    incidents: Path, engine: Engine, verdict: str, cause: str, *, minor: int | None = None, dump: bool
) -> Path | None:
    """Collects for a second at most, then writes; the directory, or None when it could not be written.

    `verdict` is hung, dead, misconfigured or exited; `minor` is that of the FUSE device, when it is known. `dump`:
    rclone's goroutines too, which ends it. A stopped process is asked nothing and not continued for it.
    """
    document = {"mount": engine.name, "verdict": verdict, "cause": cause}
    files: dict[str, str] = {}
    with contextlib.suppress(TimeoutError, OSError, MemoryError):
        async with asyncio.timeout(COLLECT_S):
            await _collect(files, document, engine, minor, dump=dump)
    try:
        # In a thread: the state directory may lie on a network volume.
        writing = asyncio.to_thread(_save, incidents, f"{engine.name}-{verdict}", files)
        directory = await asyncio.wait_for(writing, WRITE_S)
    except (OSError, TimeoutError, MemoryError) as error:
        log.warning("cannot keep evidence", mount=engine.name, path=str(incidents), cause=str(error) or "timeout")
        return None
    log.warning("evidence kept", mount=engine.name, path=str(directory))
    return directory


async def _collect(
    files: dict[str, str], document: Mapping[str, object], engine: Engine, minor: int | None, *, dump: bool
) -> None:
    """Into `files`, name → text, the most telling first: what is not there in time goes without."""
    pid = engine.child.pid if engine.child is not None and engine.child.exit is None else None
    states, threads = _threads(pid) if pid is not None else ("", "")
    stopped = "T" in states or "t" in states
    document = {**document, "time": now_text(), "pid": pid, "stopped": stopped, "fuse_waiting": None}
    files["incident.json"] = _json(document)
    files["log.txt"] = "\n".join(f"{line.time} {line.text}" for line in engine.ring.last(LOG_LINES))
    files["threads.txt"] = threads
    if pid is None:
        files["goroutines.txt"] = engine.dump()  # what it printed by itself when it crashed
        return
    files["incident.json"] = _json(document | {"fuse_waiting": await unanswered(minor, ASK_S)})
    if stopped:
        return
    files["stats.json"] = json.dumps(masked(await _stats(engine), engine.masked), indent=1)
    if dump:
        files["goroutines.txt"] = await _goroutines(engine)


def _save(incidents: Path, name: str, files: Mapping[str, str]) -> Path:
    directory = incidents / f"{datetime.now(UTC):{STAMP}}-{name}"
    os.makedirs(incidents, mode=0o700, exist_ok=True)
    os.mkdir(directory, 0o700)
    for each, text in files.items():
        if text:
            with open(os.open(directory / each, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(text.encode("utf-8", "replace")[-MAX_BYTES:])
    for old in surplus(os.listdir(incidents), directory.name):
        shutil.rmtree(incidents / old, ignore_errors=True)
    return directory


def surplus(names: Iterable[str], newest: str) -> list[str]:
    """Which incidents to delete now that `newest` is kept. One of the future is older: the clock was put back since."""
    return sorted((name for name in names if _NAME.match(name)), key=lambda name: (name <= newest, name))[:-KEPT]


def masked(value: object, mask: Callable[[str], str]) -> object:
    """Each text by itself, as in JSON the marks around it are escaped; an error quotes what the store has answered."""
    match value:
        case str():
            return mask(value)
        case list():
            return [masked(each, mask) for each in value]
        case dict():
            return {key: masked(each, mask) for key, each in value.items()}
    return value


def _json(document: Mapping[str, object]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _threads(pid: int) -> tuple[str, str]:
    """The state of each thread, a letter; and where each waits in the kernel, with the stack there if that is shown."""
    states, shown = "", []
    with contextlib.suppress(OSError):
        for tid in sorted(map(int, os.listdir(f"/proc/{pid}/task")))[:MAX_THREADS]:
            base = f"/proc/{pid}/task/{tid}"
            name, _, rest = _read(f"{base}/stat").rpartition(")")
            state = rest.split()[0] if rest else "?"
            stack = "".join(f"    {line}\n" for line in _read(f"{base}/stack").splitlines())
            states += state
            shown.append(f"{tid} {name.partition('(')[2]} {state} {_read(f'{base}/wchan')}\n{stack}")
    return states, "\n".join(shown)


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_BYTES).strip("\0\n")
    except OSError:
        return ""


async def _stats(engine: Engine) -> dict[str, object]:
    """What its remote control still answers; the errors are evidence as well."""

    async def ask(method: str) -> object:
        try:
            return await engine.rc.call(method, timeout_s=ASK_S)
        except MountdError as error:
            return error.text

    methods = ("vfs/stats", "core/stats", "core/memstats")
    return dict(zip(methods, await asyncio.gather(*map(ask, methods)), strict=True))


async def _goroutines(engine: Engine) -> str:
    """SIGQUIT makes the Go runtime print what every goroutine does, and exit."""
    child = engine.child
    if child is None:
        return ""
    engine.capture_dump()
    child.signal(signal.SIGQUIT)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DUMP_S):
            await child.wait()
    return engine.dump()
