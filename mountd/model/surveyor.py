"""Has the work on long lists done outside the event loop: small ones in a thread, others by a process that ends."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mountd.errors import CommandTimeout, Unavailable, cause_of
from mountd.model import survey_job
from mountd.process import tool

SMALL_BYTES = 1024 * 1024
"""Of lists: some 6,000 files, for which a process would cost more (65 ms of CPU) than the work. A thread would do for
10,000 as well, but the daemon keeps the memory that it took: 12 MB."""
LIMIT_S = 120.0
"""100,000 files take 2 s."""


class Scratch:
    """Files of one look at a version, in the runtime directory; they are removed at its end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def path(self) -> Path:
        """Of a file that is not there yet."""
        self._made.append(self._directory / f"list-{secrets.token_hex(8)}")
        return self._made[-1]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for path in self._made:
            path.unlink(missing_ok=True)


async def ask(scratch: Scratch, job: Mapping[str, Any], inputs: Sequence[Path]) -> dict[str, Any]:
    """What `survey_job.do` says to `job`, which reads the files `inputs`. Raises Unavailable."""
    try:
        if await asyncio.to_thread(_size, inputs) <= SMALL_BYTES:
            return await asyncio.to_thread(survey_job.do, job)
        order, answer = scratch.path(), scratch.path()
        await asyncio.to_thread(order.write_text, json.dumps({**job, "answer": str(answer)}), "ascii")
        argv = [sys.executable, "-I", "-S", "-X", "utf8", str(survey_job.__file__), str(order)]
        ended = await tool.run(argv, timeout_s=LIMIT_S)
        if ended.code != 0:
            last = ended.output.rpartition("\n")[2]
            raise Unavailable(f"cannot read the lists of a version: {last or ended}")
        result: dict[str, Any] = json.loads(await asyncio.to_thread(answer.read_bytes))
    except CommandTimeout:
        raise Unavailable(f"cannot read the lists of a version: no end after {LIMIT_S:g} s") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unavailable(f"cannot read the lists of a version: no valid list ({type(error).__name__})") from None
    except OSError as error:
        raise Unavailable(f"cannot read the lists of a version: {cause_of(error)}") from None
    return result


def _size(inputs: Sequence[Path]) -> int:
    return sum(os.stat(path).st_size for path in inputs)
