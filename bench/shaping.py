"""A store that is far away: a proxy before it, so long a request, so fast a connection, so fast all of them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support import dies_with_us, hold_port

TOP = Path(__file__).parents[1]
END_S = 10.0


@dataclass(frozen=True, slots=True)
class Shape:
    """Bytes are decimal: 20 MB/s a connection and 150 MB/s in all, 30 ms before each answer."""

    latency_s: float = 0.03
    connection_bytes_per_s: float = 20e6
    total_bytes_per_s: float = 150e6

    def __str__(self) -> str:
        connection, total = self.connection_bytes_per_s / 1e6, self.total_bytes_per_s / 1e6
        return f"{self.latency_s * 1000:g} ms a request, {connection:g} MB/s a connection, {total:g} MB/s in all"


@dataclass(slots=True)
class Counts:
    """What passed: requests by kind, bytes of objects by key, `BUCKET/` and what follows."""

    kinds: Counter[str] = field(default_factory=Counter)
    bytes_by_object: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0
    """of the proxy, user and system"""
    wall_s: float = 0.0

    @property
    def object_bytes(self) -> int:
        return sum(self.bytes_by_object.values())

    @property
    def cpu_share(self) -> float:
        """Of one core."""
        return self.cpu_s / self.wall_s if self.wall_s else 0.0

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("kinds", "bytes_by_object", "cpu_s", "wall_s")}


class Shaped:
    """The proxy before the store at `upstream`, from now until `close` or the end of a `with`."""

    def __init__(self, upstream: str, shape: Shape | None = None) -> None:
        url = urlsplit(upstream)
        self.shape = shape or Shape()
        self._held = hold_port()
        host, port = self._held.getsockname()
        self.endpoint = f"http://{host}:{port}"
        argv = [sys.executable, "-m", "bench.shaping_proxy", host, str(port), str(url.hostname), str(url.port)]
        self._process = subprocess.Popen(
            dies_with_us([*argv, json.dumps(asdict(self.shape))]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TOP,
        )
        try:
            self.up()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def up(self) -> None:
        """Accept connections, again on the same port."""
        self._ask("up")

    def down(self) -> None:
        """An outage: every connection is cut, new ones are refused."""
        self._ask("down")

    def counts(self) -> Counts:
        return self._counts("counts")

    def reset(self) -> Counts:
        """Counts from zero; what was counted so far."""
        return self._counts("reset")

    def _counts(self, word: str) -> Counts:
        found = self._ask(word)
        return Counts(Counter(found.pop("kinds")), Counter(found.pop("bytes_by_object")), **found)

    def _ask(self, word: str) -> dict[str, Any]:
        """Raises RuntimeError when the proxy has ended."""
        asked, said = self._process.stdin, self._process.stdout
        assert asked is not None
        assert said is not None
        with contextlib.suppress(BrokenPipeError):
            asked.write(word + "\n")
            asked.flush()
        if not (line := said.readline()):
            raise RuntimeError(f"the shaping proxy ended with {self._process.wait(END_S)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
