"""Keeps rclone.conf in line with the settings: resolves secrets, obscures passwords, replaces the file as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets as random
import tempfile
from pathlib import Path

from mountd.errors import CannotStart
from mountd.rclone import conf
from mountd.rclone.binary import Binary, clean_environment
from mountd.settings.schema import Settings
from mountd.settings.secret import SecretRef, is_secret

OBSCURE_DEADLINE_S = 10.0

_KEY = random.token_bytes(32)  # of this process: digests of secrets mean nothing outside of it

Resolved = dict[str, dict[str, str]]


class ConfFile:
    """`<runtime>/private/rclone.conf`, mode 0600 in a 0700 directory."""

    def __init__(self, path: Path, binary: Binary) -> None:
        self.path = path
        self.secrets: tuple[str, ...] = ()
        """what a log must not show: every secret of the last `write`, plain and obscured"""
        self._binary = binary
        self._obscured: dict[tuple[str, str], tuple[str, str]] = {}
        self._written = ""

    async def write(self, settings: Settings) -> bool:
        """Write what the settings and the secrets say now; whether anything changed.

        What rclone itself wrote into the file since (OAuth tokens) stays until the settings or a secret change.
        Raises CannotStart (a secret or the disk) and UsageError (a value the format cannot hold).
        """
        resolved = await asyncio.to_thread(_resolve, settings)
        hidden = [
            value
            for name, options in resolved.items()
            for option, value in options.items()
            if isinstance(settings.remotes[name].options.get(option), SecretRef) or is_secret(option, value)
        ]
        for name, options in resolved.items():
            for option in sorted(self._binary.password_options.get(options["type"], frozenset()) & options.keys()):
                if options[option]:
                    hidden.append(options[option])
                    options[option] = await self._obscure(name, option, options[option])
                    hidden.append(options[option])
        self.secrets = tuple(dict.fromkeys(each for each in hidden if each))
        text = conf.render(resolved)
        changed = await asyncio.to_thread(_replace, self.path, text, self._written)
        self._written = text
        return changed

    async def _obscure(self, name: str, option: str, value: str) -> str:
        """The same result for the same value: rclone's differs each time, which would look like a change."""
        digest = _digest([value])
        known = self._obscured.get((name, option))
        if known is None or known[0] != digest:
            known = (digest, await obscure(self._binary, value))
            self._obscured[name, option] = known
        return known[1]


async def fingerprint(settings: Settings) -> str:
    """Changes when a secret behind a remote has changed; only comparable within this process. Raises CannotStart."""
    resolved = await asyncio.to_thread(_resolve, settings)
    return _digest(
        [part for name in sorted(resolved) for item in sorted(resolved[name].items()) for part in (name, *item)]
    )


async def obscure(binary: Binary, value: str) -> str:
    """rclone's own form of a password, from stdin so that `ps` never shows it. Raises CannotStart."""
    try:
        process = await asyncio.create_subprocess_exec(
            str(binary.path),
            "--config",
            os.devnull,
            "obscure",
            "-",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env=clean_environment(),
            start_new_session=True,
        )
    except OSError as error:
        raise _cannot_obscure((error.strerror or str(error)).lower()) from None
    try:
        async with asyncio.timeout(OBSCURE_DEADLINE_S):
            output, _ = await process.communicate(value.encode())
    except TimeoutError:
        raise _cannot_obscure(f"rclone did not answer within {OBSCURE_DEADLINE_S:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0 or not output.strip():
        raise _cannot_obscure(f"rclone exited with {process.returncode}")
    return output.decode().strip()


def _resolve(settings: Settings) -> Resolved:
    return {
        name: {"type": remote.type}
        | {option: value.read() if isinstance(value, SecretRef) else value for option, value in remote.options.items()}
        for name, remote in settings.remotes.items()
    }


def _replace(path: Path, text: str, written: str) -> bool:
    """Replace the file as a whole, unless it holds the text or its own changes to it; whether it was replaced."""
    try:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            current = path.read_text("utf-8")
            if text in (current, written) and path.stat().st_mode & 0o777 == 0o600:
                return False
        os.makedirs(path.parent, mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # 0600 from the start
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise CannotStart(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}",
            hint=f"make {path.parent} writable for mountd's user, or free space there",
            code="conf-unwritable",
        ) from None
    return True


def _digest(parts: list[str]) -> str:
    digest = hashlib.blake2b(key=_KEY, digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def _cannot_obscure(cause: str) -> CannotStart:
    return CannotStart(
        f"cannot obscure a password for rclone.conf: {cause}", hint="run `mountd doctor`", code="rclone-unusable"
    )
