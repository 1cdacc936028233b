"""Which part of the bytes that an rclone has moved are uploads: it counts them together with what it fetches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mountd.rclone.stats import TRANSFERS_KEPT, Transferred


@dataclass(slots=True)
class UploadCount:
    """Of one rclone after the other, look by look."""

    _seen: frozenset[tuple[str, str]] = frozenset()
    """the transfers that had ended at the last look"""
    _counted: dict[str, int] = field(default_factory=dict)
    """bytes of each upload under way that were counted"""

    def look(self, moved: int, uploading: Mapping[str, int], ended: Sequence[Transferred]) -> int:
        """How many of the `moved` bytes since the last look are uploads.

        rclone lists the last TRANSFERS_KEPT that ended. When more have ended since the last look, those that are listed
        stand for all.
        """
        new = [each for each in ended if (each.name, each.begun) not in self._seen]
        uploaded = fetched = 0
        for each in new:
            if each.is_upload:
                uploaded += max(0, each.moved_bytes - self._counted.pop(each.name, 0))
            else:
                fetched += each.moved_bytes
        uploaded += sum(max(0, done - self._counted.get(name, 0)) for name, done in uploading.items())
        self._counted = dict(uploading)
        self._seen = frozenset((each.name, each.begun) for each in ended)
        if len(new) >= TRANSFERS_KEPT and uploaded:
            return moved * uploaded // (uploaded + fetched)
        return min(moved, uploaded)
