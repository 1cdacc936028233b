"""A program that uses the mount: `reader.py PATH EXPECTED PAUSE_S`, reads PATH over and over and reports each time.

A process of its own, because it gets stuck when the mount does. A line a read: when it began and ended (seconds on the
monotonic clock, which all processes of a machine share), "ok" or the errno's name, and how many bytes were wrong.
Standard library only.
"""

import errno
import sys
import time


def wrong_bytes(found: bytes, expected: bytes) -> int:
    if found == expected:
        return 0
    differing = sum(a != b for a, b in zip(found, expected, strict=False))
    return differing + abs(len(found) - len(expected))


def main() -> None:
    path, pause_s = sys.argv[1], float(sys.argv[3])
    with open(sys.argv[2], "rb") as source:
        expected = source.read()
    while True:
        began = time.monotonic()
        outcome, wrong = "ok", 0
        try:
            with open(path, "rb", buffering=0) as file:
                found = b"".join(iter(lambda: file.read(1 << 17), b""))
            wrong = wrong_bytes(found, expected)
        except OSError as error:
            outcome = errno.errorcode.get(error.errno or 0, "error")
        print(f"{began:.4f} {time.monotonic():.4f} {outcome} {wrong}", flush=True)
        time.sleep(pause_s)


if __name__ == "__main__":
    main()
