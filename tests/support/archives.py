"""Every byte of an archive, also of archives within it."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator


def unpacked(data: bytes, name: str = "") -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, however deep; the data themselves where they are no archive."""
    if data[:2] == b"\x1f\x8b":
        yield from unpacked(gzip.decompress(data), f"{name}!")
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for each in archive.namelist():
                yield from unpacked(archive.read(each), f"{name}/{each}")
    elif data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar.getmembers():
                file = tar.extractfile(member)
                yield f"{name}/{member.name} (its name)", member.name.encode()
                if file is not None:
                    yield from unpacked(file.read(), f"{name}/{member.name}")
    else:
        yield name, data
