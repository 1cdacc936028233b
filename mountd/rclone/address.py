"""Where a child's remote control listens, and who may use it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RcAddress:
    """A Unix socket, or a loopback port for an rclone that has none; both ask for user and password."""

    user: str
    password: str = field(repr=False)
    socket: Path | None = None
    port: int = 0

    def __post_init__(self) -> None:
        if (self.socket is None) == (self.port == 0):
            raise ValueError("exactly one of socket and port")

    @property
    def flag(self) -> str:
        """As `--rc-addr` takes it."""
        return f"unix://{self.socket}" if self.socket is not None else f"127.0.0.1:{self.port}"

    @property
    def authorization(self) -> str:
        """The value of the HTTP header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
