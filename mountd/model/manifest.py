"""What a complete version holds: `MANIFEST.json`, its digest, and how it compares with what is there."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mountd.errors import Refused
from mountd.text import printable, storable

NAME = "MANIFEST.json"
SCHEMA = 1
MAX_BYTES = 16 * 1024 * 1024
"""A line of about 150 bytes a file: room for 100,000 files."""
MAX_FILES = 100_000
MAX_PATH_BYTES = 1024
"""The longest key of S3."""
MAX_FILE_BYTES = 2**53
"""9 PB: the largest whole number that every reader of JSON takes for what it is."""
MAX_VERSION_CHARACTERS = 64
SHOWN = 3
SHOWN_CHARACTERS = 200
MARKER = ".mountd-publishing-"
"""What an object at the root of a version is called, followed by an id, as long as the version is being published."""
_SHA256 = re.compile("[0-9a-fA-F]{64}")
_PART = r"(?!\.{1,2}(?:/|\Z))[^/\0\n\r\ud800-\udfff]+"
_PLAIN_PATH = re.compile(f"{_PART}(?:/{_PART})*")


@dataclass(frozen=True, slots=True)
class Manifest:
    """`files` maps each path below the version's directory to its size in bytes, `sha256` to its digest where given."""

    version: str
    files: Mapping[str, int]
    sha256: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def digests(self) -> dict[str, tuple[int, str]]:
        """Size and sha256 of each file that has one."""
        return {path: (self.files[path], sha256) for path, sha256 in self.sha256.items()}


def parse(data: bytes) -> Manifest:
    """Raises Refused with the reason for anything but a whole manifest of schema 1."""
    try:
        document = json.loads(data)
        if type(document["schema"]) is not int or document["schema"] != SCHEMA:  # `true` equals 1 in Python
            raise _refused(f"schema {_shown(document['schema'])} is not {SCHEMA}")
        entries = [(entry["path"], entry["size"], entry.get("sha256")) for entry in document["files"]]
        version = document["version"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(f"it is truncated or not a manifest ({type(error).__name__})") from None
    if not isinstance(version, str) or len(version) > MAX_VERSION_CHARACTERS or not _is_text(version):
        raise _refused(f"its version is {_shown(version)}, not a name of up to {MAX_VERSION_CHARACTERS} characters")
    if not entries:
        raise _refused("it names no files")
    if len(entries) > MAX_FILES:
        raise _refused(f"it names {len(entries)} files, of {MAX_FILES} at most")
    files, digests = {}, {}
    for path, size, sha256 in entries:
        if not (isinstance(path, str) and path and type(size) is int):
            raise _refused("it is not a manifest: each file needs a path and a size")
        if not 0 <= size <= MAX_FILE_BYTES:
            raise _refused(f"each file needs a path and a size that can be: {_shown(path)} has {_shown(size)} bytes")
        if problem := path_problem(path):
            raise _refused(f"{_shown(path)} {problem}")
        if path in files:
            raise _refused(f"{_shown(path)} is named twice")
        files[path] = size
        if sha256 is not None:
            if not (isinstance(sha256, str) and _SHA256.fullmatch(sha256)):
                raise _refused("a sha256 is 64 hexadecimal digits")
            digests[path] = sha256.lower()
    return Manifest(version, files, digests)


def path_problem(path: str) -> str:
    """Why this cannot be the path of a file below the version's directory; empty when it can."""
    if len(path) * 4 <= MAX_PATH_BYTES and _PLAIN_PATH.fullmatch(path):
        return ""  # nearly all of them, at once: there may be 100,000
    if not _is_text(path):
        return "is not text"
    if len(path.encode()) > MAX_PATH_BYTES:
        return f"is longer than {MAX_PATH_BYTES} bytes"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "is no path below the version: it has an empty part, a . or a .."
    if any(character in path for character in "\0\n\r"):  # a line of the digest, and of every list of files
        return "holds a line end or NUL"
    return ""


def _is_text(text: str) -> bool:
    """JSON can name half of a surrogate pair, which no file and no other text can hold."""
    return storable(text, len(text)) == text


def _shown(value: object) -> str:
    """As far as it helps; it may be megabytes, or a number of more digits than Python prints."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return "a number of more than 64 bits"
    return storable(repr(value[:SHOWN_CHARACTERS] if isinstance(value, str) else value), SHOWN_CHARACTERS)


def _refused(why: str) -> Refused:
    return Refused(f"cannot read {NAME}: {why}")


def render(version: str, files: Iterable[tuple[str, int, str]], *, created: str, tool: str) -> bytes:
    """The bytes of a manifest: each file's path, size in bytes and sha256 in hex, sorted by path.

    The same content gives the same bytes, but for `created` and `tool`.
    """
    entries = [{"path": path, "size": size, "sha256": sha256} for path, size, sha256 in sorted(files)]
    document = {"schema": SCHEMA, "version": version, "created": created, "tool": tool, "files": entries}
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def is_marker(path: str) -> bool:
    """Whether this object says that its version is being published, or that this was interrupted."""
    return path.startswith(MARKER) and "/" not in path


def digest(of: Manifest) -> str:
    """Digest of a version that has a manifest: sha256 of its sorted `path\\tsize\\tsha256\\n` lines, in hex.

    The same content has the same digest, no matter who publishes it, when, and under which name.
    """
    return _digest(f"{path}\t{size}\t{of.sha256.get(path, '')}\n" for path, size in sorted(of.files.items()))


def former_digest(data: bytes) -> str:
    """What mountd 0.1 took for the digest of such a version: sha256 of its manifest's bytes. Journals hold it."""
    return hashlib.sha256(data).hexdigest()


def listing_digest(files: Mapping[str, int]) -> str:
    """Digest of a version without a manifest: sha256 of its sorted `path\\tsize\\n` lines. Shown as unverified."""
    return _digest(f"{path}\t{size}\n" for path, size in sorted(files.items()))


def _digest(lines: Iterable[str]) -> str:
    text = "".join(lines)
    try:
        data = text.encode("utf-8", "surrogateescape")  # bytes of a file system that are no UTF-8, as they are
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogatepass")
    return hashlib.sha256(data).hexdigest()


def compare(wanted: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """What is wrong with `found` (path → bytes), as text; files beyond the manifest do not count."""
    problems = [f"{path} is missing" for path in wanted if path not in found]
    problems += [
        f"{path} has {found[path]} bytes instead of {size}"
        for path, size in wanted.items()
        if path in found and found[path] != size
    ]
    return problems


def summary(problems: Sequence[str], more: int = 0) -> str:
    """The first of them, each on one line and as far as it helps: they name files. `more` are not among `problems`."""
    left = len(problems) - SHOWN + more
    others = f" and {left} more" if left > 0 else ""
    return "; ".join(printable(storable(problem, 2 * SHOWN_CHARACTERS)) for problem in problems[:SHOWN]) + others
