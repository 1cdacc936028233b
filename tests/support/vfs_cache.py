"""Files in rclone's cache, as rclone leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mountd.cache import digests


def put(cache: Path, path: str, *, dirty: bool, data: bytes | None = b"12345", text: str = "") -> None:
    """`text` is its metadata; without it, that of a whole file. `data` None: it has vanished."""
    whole = {"Size": len(data or b""), "Rs": [{"Pos": 0, "Size": len(data or b"")}]}
    meta = cache / "vfsMeta" / path
    meta.parent.mkdir(parents=True, exist_ok=True)
    meta.write_text(text or json.dumps({"ModTime": "2026-01-01T00:00:00Z", **whole, "Dirty": dirty}))
    if data is not None:
        file = cache / "vfs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def keep_digests(cache: Path, directory: str, files: Mapping[str, tuple[int, str]]) -> None:
    """What a manifest says of the files below `directory` of the mount: bytes and sha256 by path."""
    document = cache / "document"
    document.write_text(json.dumps({"directory": directory, "files": files}))
    digests.keep(cache, directory, document)
    document.unlink()
