"""`python -m bench recovery|refetch|soak|steady|switch [OPTIONS]`."""

from __future__ import annotations

import signal
import sys

from bench import recovery, refetch, soak, steady, switch

COMMANDS = {
    "recovery": recovery.main,
    "refetch": refetch.main,
    "soak": soak.main,
    "steady": steady.main,
    "switch": switch.main,
}


def main() -> int:
    """The exit code: 0, 1 when a mark was missed, 2 for wrong usage."""
    command = COMMANDS.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if command is None:
        print(f"usage: ./dev bench {'|'.join(COMMANDS)} [OPTIONS]", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it has started ends with it
    return command(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
