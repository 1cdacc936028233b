"""Room for a version in the local cache: bytes → why there can never be enough, or nothing. Decisions only.

Nothing is fetched ahead of a switch: the app reads what it needs, and rclone lets go of what was not used for longest.
So limits of the cache are no reason to refuse: a version that is larger works, by fetching parts again. Only one that
the disk could not hold if all else in the cache were gone is refused: the app would fetch it in circles, and nothing of
the previous version would be left.
"""

from __future__ import annotations

from mountd.status.snapshot import size


def room(version: str, needed: int, could_hold: int) -> str | None:
    """Why there can never be room for a version of `needed` bytes; None: there can."""
    if needed <= could_hold:
        return None
    return (
        f"no room in the cache: version {version} has {size(needed)}, and its disk could hold {size(could_hold)}"
        " if all else in the cache were gone"
    )
