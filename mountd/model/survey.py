"""What a version holds and lacks: the paths and sizes of its files against its manifest. Decisions only."""

from __future__ import annotations

import json
import re
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from mountd.model import manifest
from mountd.model.manifest import Manifest
from mountd.model.required import misnamed
from mountd.model.required import problems as problems_of

MOST_PROBLEMS = 100
"""So many are named, the others counted: a manifest may name 100,000 files that are not there."""
MOST_SAMPLES = 100
"""Each is a small request, or two; what makes a store refuse objects concerns whole directories, or old ones."""


@dataclass(frozen=True, slots=True)
class FileList:
    """The files of a version with their sizes, packed: 100,000 of them take 1 MB, and 25 MB as a mapping.

    `digest` is that of all paths and sizes, `bare` that of all but the manifest.
    """

    packed: bytes = field(repr=False)
    count: int
    bytes: int
    digest: str
    bare: str
    has_manifest: bool

    @classmethod
    def of(cls, files: Mapping[str, int]) -> FileList:
        """`files`: path → bytes. 100,000 take a second."""
        has_manifest = manifest.NAME in files
        digest = bare = manifest.listing_digest(files)
        if has_manifest:
            bare = manifest.listing_digest({path: size for path, size in files.items() if path != manifest.NAME})
        packed = zlib.compress(json.dumps(sorted(files.items())).encode())
        return cls(packed, len(files), sum(files.values()), digest, bare, has_manifest)

    def unpack(self) -> dict[str, int]:
        """Path → bytes."""
        return dict(json.loads(zlib.decompress(self.packed)))

    def sizes(self) -> Sizes:
        """The same, for a process that goes on: 100,000 take 0.15 s and 6 MB."""
        return Sizes(zlib.decompress(self.packed).decode("ascii"))

    def __len__(self) -> int:
        return self.count


class Sizes:
    """Paths in order, each with its bytes, read from the `text` of a FileList as they are asked for."""

    def __init__(self, text: str = "[]") -> None:
        self._text = text
        self._starts = array("L", (found.start() for found in _ENTRY.finditer(text)))

    def get(self, path: str) -> int | None:
        """None: it is none of them."""
        at = bisect_left(self._starts, path, key=lambda start: self._at(start)[0])
        found, size = self._at(self._starts[at]) if at < len(self._starts) else ("", 0)
        return size if found == path else None

    def items(self) -> Iterator[tuple[str, int]]:
        yield from map(self._at, self._starts)

    def _at(self, start: int) -> tuple[str, int]:
        (path, size), _ = _DECODER.raw_decode(self._text, start)
        return path, size


_DECODER = json.JSONDecoder()
_ENTRY = re.compile(r'\["(?:[^"\\]|\\.)*", -?\d+\]')
"""`["path", bytes]`, as a whole: a path may hold any part of it."""
NO_FILES = FileList.of({})


@dataclass(frozen=True, slots=True)
class ManifestSummary:
    """What is kept of a manifest: `count` files with `bytes` in all, by `digest`; `former` is its digest by mountd 0.1.

    `undigested` names files without a sha256; empty: each has one.
    """

    version: str
    digest: str
    former: str
    count: int
    bytes: int
    undigested: str


@dataclass(frozen=True, slots=True)
class Findings:
    """`problems`: why the version is not complete, and `more` beyond those; `is_marked`: it is being published.

    `misnamed`: how many of them are of required files that neither are there nor belong to it. `sample`: files that
    are not empty, the required ones first, then one of each directory. `required`: bytes of those that are there.
    """

    files: FileList
    problems: tuple[str, ...]
    more: int
    misnamed: int
    sample: tuple[str, ...]
    required: dict[str, int]
    is_marked: bool


def summarize(of: Manifest, data: bytes) -> ManifestSummary:
    """`data` are the bytes of the manifest."""
    lacking = [path for path in of.files if path not in of.sha256]
    return ManifestSummary(
        version=of.version,
        digest=manifest.digest(of),
        former=manifest.former_digest(data),
        count=len(of.files),
        bytes=sum(of.files.values()),
        undigested=manifest.summary(lacking),
    )


def survey(
    version: str, files: Mapping[str, int], required: Sequence[str], of: Manifest | None, broken: str = ""
) -> Findings:
    """`files`: path → bytes of what is there; `of`: its manifest; `broken`: why that cannot be used."""
    if marker := next(filter(manifest.is_marker, files), None):
        # Nothing in the version is final until its publisher removes the marker.
        problems, wrong, of = [f"it is being published, or that was interrupted ({marker} is there)"], 0, None
    else:
        if manifest.NAME not in files:
            of, broken = None, ""
        named = of.files if of else {}
        problems = problems_of(required, files, named)
        wrong = len(misnamed(required, files, named))
        if broken:
            problems.append(broken)
        elif of is not None:
            if of.version != version:
                problems.append(f"{manifest.NAME} is of version {of.version}")
            problems += manifest.compare(of.files, files)
        # Required files are usually named by the manifest too: say it once.
        problems = list(dict.fromkeys(problems))
    return Findings(
        files=FileList.of(files),
        problems=tuple(problems[:MOST_PROBLEMS]),
        more=max(0, len(problems) - MOST_PROBLEMS),
        misnamed=wrong,
        sample=sample(required, of.files if of else (), files),
        required={path: files[path] for path in required if path in files},
        is_marked=marker is not None,
    )


def sample(required: Iterable[str], named: Iterable[str], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """See Findings; `named`: by the manifest, `sizes`: path → bytes."""
    paths = (path for path in dict.fromkeys((*required, *_spread(named))) if sizes.get(path))
    return tuple(islice(paths, MOST_SAMPLES))


def _spread(paths: Iterable[str]) -> list[str]:
    """One of each directory first."""
    first: dict[str, str] = {}
    for path in paths:
        first.setdefault(path.rpartition("/")[0], path)
    return [*first.values(), *paths]


def changes(before: Mapping[str, int], now: Mapping[str, int]) -> list[str]:
    """What has become of the files of a version, as text, the worst first; all but its manifest's size.

    Files added to a version with a manifest do not count.
    """
    problems = [f"{path} has vanished" for path in before if path not in now]
    problems += [
        f"{path} has {now[path]} bytes instead of {size}"
        for path, size in before.items()
        if path in now and now[path] != size and path != manifest.NAME
    ]
    if manifest.NAME not in before:
        problems += [f"{path} was added" for path in now if path not in before and path != manifest.NAME]
    return problems
