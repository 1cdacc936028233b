"""Reads each file below a directory (or one file) once through a mount: `copier.py SOURCE MOUNTED PATIENCE_S`.

Compares it with the source and prints one JSON object: files, wrong_bytes, errors (reads that were tried again) and
unread (names that could not be read within PATIENCE_S). Standard library only.
"""

import hashlib
import json
import os
import sys
import time

PAUSE_S = 0.2


def content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return b"".join(iter(lambda: file.read(1 << 17), b""))


def main() -> None:
    source, mounted, deadline = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
    below = sorted(os.path.join(path, name) for path, _, names in os.walk(source) for name in names)
    names = [os.path.relpath(path, source) for path in below] or [""]
    wrong, errors, unread = 0, 0, []
    for name in names:
        expected = content(os.path.join(source, name) if name else source)
        while True:
            try:
                found = content(os.path.join(mounted, name) if name else mounted)
            except OSError:
                errors += 1
                if time.monotonic() > deadline:
                    unread.append(name)
                    break
                time.sleep(PAUSE_S)
                continue
            if hashlib.sha256(found).digest() != hashlib.sha256(expected).digest():
                wrong += sum(a != b for a, b in zip(found, expected, strict=False)) + abs(len(found) - len(expected))
            break
    print(json.dumps({"files": len(names), "wrong_bytes": wrong, "errors": errors, "unread": unread[:5]}))


if __name__ == "__main__":
    main()
