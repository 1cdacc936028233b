"""Text that a bucket, an app or a file system may hold, and that nobody may meet raw."""

from __future__ import annotations

import json
import random
import unicodedata
from typing import Any

CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
REORDERING = "\u061c\u200e\u200f\u202a\u202e\u2066\u2069\u2028\u2029"
HOSTILE = f"声音\n\tb\x1b[2J\x1b]0;title\x07\x9b31m\r\ud800x\udcff{REORDERING}{CONTROLS}"
BAD_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}


def raw_controls(text: str) -> list[str]:
    """What a terminal would obey in it, as escapes; line ends and tabs are fine."""
    return [
        f"U+{ord(each):04x}"
        for each in text
        if each not in "\n\t" and (unicodedata.category(each) in BAD_CATEGORIES or each in REORDERING)
    ]


# -- made up ----------------------------------------------------------------------------------------------------------


def text(rng: random.Random, most: int = 40) -> str:
    """Words that were made to do harm, now and then megabytes of them."""
    pieces = [
        HOSTILE,
        "../",
        "/",
        "//",
        "\ud800",
        "\udcff",
        "\0",
        "\n",
        "\t",
        "é",
        "模型",
        "a",
        "%s%n",
        "{}",
        *REORDERING,
    ]
    made = "".join(rng.choice([*pieces, chr(rng.choice(range(0x20, 0xD7FF)))]) for _ in range(rng.randint(0, most)))
    return made * rng.choice([1, 1, 1, 1, 20_000 // (len(made) + 1)])


def value(rng: random.Random, depth: int = 0) -> Any:
    """Anything that JSON can say, and some that only Python says."""
    simple: list[Any] = [None, True, -1, 0, 2**53 + 1, 10**400, 1.5, float("inf"), float("nan"), text(rng), "", [], {}]
    if depth < 3 and rng.random() < 0.3:
        return [value(rng, depth + 1) for _ in range(rng.randint(1, 4))]
    return rng.choice(simple)


def manifest(rng: random.Random, version: str, files: dict[str, int]) -> bytes:
    """One that is nearly right for `files` (path → bytes), or not at all. Never a right one."""
    entries: list[Any] = [{"path": path, "size": size} for path, size in files.items()]
    document: Any = {"schema": 1, "version": version, "created": text(rng), "tool": text(rng), "files": entries}
    match rng.randrange(12):
        case 0:
            return rng.randbytes(rng.randint(0, 200))
        case 1:
            return b"[" * rng.choice([10, 100_000])
        case 2:
            document["version"] = text(rng) + "\ud800"
        case 3:
            document["version"] = "x" * 5_000_000
        case 4:
            document["schema"] = value(rng) or "1"
        case 5:
            document["files"] = []
        case 6:
            document["files"] = value(rng)
        case 7:
            entries.append(rng.choice(entries))
        case 8:
            entries[0] = {**entries[0], "size": rng.choice([-1, 2**63, 10**400, 1e300, "7", None, True])}
        case 9:
            entries.append({"path": text(rng) + rng.choice(["\ud800", "\0", "/", "//a", "/.."]), "size": 1})
        case 10:
            entries[0] = {**entries[0], "sha256": value(rng) or "x"}
        case _:  # right as a document; the file is not there
            entries.append({"path": rng.choice([HOSTILE[:3], "\x1b[31m\u202egpj.exe", "é" * 300]), "size": 1})
    return json.dumps(document).encode()
