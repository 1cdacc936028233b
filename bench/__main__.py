"""`python -m bench all|load|recovery|refetch|render|soak|steady|switch [OPTIONS]`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

from bench import load, load_render, recovery, refetch, soak, steady, switch

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "load": load.main,
    "render": load_render.main,
    "recovery": recovery.main,
    "refetch": refetch.main,
    "soak": soak.main,
    "steady": steady.main,
    "switch": switch.main,
}

ALL = ("load", "steady", "refetch", "switch", "recovery", "soak")


def every(words: Sequence[str]) -> int:
    """All benchmarks, one after the other, with their defaults: some hours. 1 when a mark was missed in one of them."""
    if words:
        print(f"usage: ./dev bench all, which is {', '.join(ALL)} without options", file=sys.stderr)
        return 2
    return max(COMMANDS[name]([]) for name in ALL)


def main() -> int:
    """The exit code: 0, 1 when a mark was missed, 2 for wrong usage."""
    commands = {**COMMANDS, "all": every}
    command = commands.get(sys.argv[1]) if len(sys.argv) > 1 else None
    if command is None:
        print(f"usage: ./dev bench {'|'.join(commands)} [OPTIONS]", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what it has started ends with it
    return command(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
