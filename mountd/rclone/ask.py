"""Short commands of rclone about its configuration: obscure a password, read a file as rclone reads it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path

from mountd.errors import CannotStart, cause_of
from mountd.rclone.binary import Binary, clean_environment

DEADLINE_S = 10.0


async def obscure(binary: Binary, value: str) -> str:
    """rclone's own form of a password, from stdin so that `ps` never shows it. Raises CannotStart."""
    what = "obscure a password for rclone.conf"
    output = await _ask(binary, what, "--config", os.devnull, "obscure", "-", given=value)
    if not output.strip():
        raise _cannot(what, "rclone printed nothing")
    return output.strip()


async def dump(binary: Binary, path: Path) -> dict[str, dict[str, str]]:
    """The sections of a configuration file, as rclone reads them. Raises CannotStart."""
    what = f"read {path}"
    try:
        found = json.loads(await _ask(binary, what, "--config", str(path), "config", "dump"))
        return {name: {option: str(value) for option, value in each.items()} for name, each in found.items()}
    except (ValueError, AttributeError):
        raise _cannot(what, "rclone shows it in a form mountd does not know") from None


async def _ask(binary: Binary, what: str, *words: str, given: str = "") -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            str(binary.path),
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env=clean_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise _cannot(what, cause_of(error)) from None
    try:
        async with asyncio.timeout(DEADLINE_S):
            output, _ = await process.communicate(given.encode())
    except TimeoutError:
        raise _cannot(what, f"rclone did not answer within {DEADLINE_S:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise _cannot(what, f"rclone exited with {process.returncode}")
    return output.decode()


def _cannot(what: str, cause: str) -> CannotStart:
    return CannotStart(f"cannot {what}: {cause}", hint="run `mountd doctor`", code="rclone-unusable")
