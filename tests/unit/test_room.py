"""Room for a version: refused only when the disk could never hold it."""

from __future__ import annotations

import pytest

from mountd.cache.retention import room

G = 1024**3


@pytest.mark.parametrize(
    ("needed", "could_hold", "refused"),
    [(12 * G, 50 * G, False), (12 * G, 12 * G, False), (12 * G, 12 * G - 1, True), (1, 0, True), (0, 0, False)],
)
def test_room(needed: int, could_hold: int, refused: bool) -> None:
    assert (room("v1", needed, could_hold) is not None) is refused


def test_both_sizes_are_named() -> None:
    text = room("v1", 12 * G, 8 * G) or ""
    assert [word in text for word in ("v1", "12.0 GiB", "8.0 GiB")] == [True] * 3
