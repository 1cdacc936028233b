"""A real rclone that first does what a test wants: exits, hangs, or mounts and then does not answer."""

from __future__ import annotations

from pathlib import Path


class ScriptedRclone:
    """An rclone that runs the words of `behave` before it mounts, and notes when it was started."""

    def __init__(self, directory: Path, rclone: Path) -> None:
        self.path, self.real = directory / "rclone", rclone
        self._behaviour, self._starts = directory / "behaviour", directory / "starts"
        self._starts.touch()
        self.behave("")
        self.path.write_text(
            f'#!/bin/sh\nif [ "$1" = mount ]; then\n'
            f"  date +%s.%N >>'{self._starts}'\n  . '{self._behaviour}'\nfi\nexec '{rclone}' \"$@\"\n"
        )
        self.path.chmod(0o755)

    def behave(self, script: str) -> None:
        """From the next start on."""
        new = self._behaviour.with_suffix(".new")
        new.write_text(f"{script}\n")
        new.rename(self._behaviour)

    @property
    def starts(self) -> list[float]:
        return [float(line) for line in self._starts.read_text().split()]
