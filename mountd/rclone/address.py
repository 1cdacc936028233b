"""Where rclone's remote control listens, and the credentials that it asks for."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RcAddress:
    """A Unix socket, which every user of this machine may connect to: so it asks for user and password."""

    user: str
    password: str = field(repr=False)
    socket: Path

    @property
    def flag(self) -> str:
        """As `--rc-addr` takes it."""
        return f"unix://{self.socket}"

    @property
    def authorization(self) -> str:
        """The value of the HTTP header."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
