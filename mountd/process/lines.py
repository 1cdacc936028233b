"""What a process writes → lines, and what stands in the one that is not ended yet. Bounded, whatever it writes."""

from __future__ import annotations

LINE_BYTES = 8192
"""What is kept of one line; a longer one is cut."""


class Lines:
    """Of a line that is written over, as progress bars do with `\\r`, the last state counts."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False
        """the beginning of this line was given away already"""

    @property
    def state(self) -> bytes:
        """What stands in the line that is not ended yet."""
        return _last_state(self._rest)[0]

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` ends; of one that is too long its beginning, once it is."""
        *lines, rest = (self._rest + data).split(b"\n")
        whole = [state for line in lines if (state := self._end(line)) is not None]
        kept, written_over = _last_state(rest)
        if written_over:
            self._skipping = False
            rest = kept + (b"\r" if rest.endswith(b"\r") else b"")
        if len(rest) > LINE_BYTES:
            if not self._skipping:
                whole.append(rest[:LINE_BYTES])
            rest, self._skipping = b"", True
        self._rest = rest
        return whole

    def end(self) -> list[bytes]:
        """What is left when nothing more comes."""
        rest, self._rest = self._rest, b""
        state = self._end(rest)
        return [] if state is None else [state]

    def _end(self, line: bytes) -> bytes | None:
        state, written_over = _last_state(line)
        shown, self._skipping = self._skipping and not written_over, False
        return None if shown else state[:LINE_BYTES]


def _last_state(line: bytes) -> tuple[bytes, bool]:
    """What is seen of it in the end, and whether that was written over something."""
    before, _, state = line.rstrip(b"\r").rpartition(b"\r")
    return state, bool(before)
