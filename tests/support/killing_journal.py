"""Runs mountd with a journal that kills it at one point of an operation: `killing_journal.py run -c FILE`.

The point is what the file $KILL_AT holds: the step, the moment and whom to kill. It is taken away with the kill, and
without it this is `mountd run` and nothing else, so that one daemon after the other can be killed, each somewhere else.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from enum import StrEnum
from pathlib import Path

from mountd.journal.journal import Journal

KILL_AT = "KILL_AT"


class Moment(StrEnum):
    BEGINNING = "beginning"
    """before it is journaled that the step begins"""
    BEGUN = "begun"
    """after that, and before anything of it is done"""
    DONE = "done"
    """all of it is done, and not journaled"""
    ENDED = "ended"
    """its end is journaled"""


class Whom(StrEnum):
    DAEMON = "daemon"
    """its parent lives on for a moment, and ends what the daemon leaves"""
    BOTH = "both"
    """the parent too, at once: rclone and the app live on"""


class KillingJournal(Journal):
    async def begin_step(self, operation: int, step: str) -> None:
        kill_at(step, Moment.BEGINNING)
        await super().begin_step(operation, step)
        kill_at(step, Moment.BEGUN)

    async def end_step(self, operation: int, step: str, outcome: str, *, cause: str = "") -> None:
        kill_at(step, Moment.DONE)
        await super().end_step(operation, step, outcome, cause=cause)
        kill_at(step, Moment.ENDED)


def kill_at(step: str, moment: Moment) -> None:
    point = Path(os.environ[KILL_AT])
    try:
        wanted, when, whom = point.read_text().split()
    except FileNotFoundError:
        return
    if (wanted, when) == (step, moment):
        point.unlink()
        if whom == Whom.BOTH:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["run"])
    parser.add_argument("-c", dest="config")
    config = parser.parse_args().config

    from mountd.daemon import run
    from mountd.process.init import fork_daemon

    return fork_daemon(lambda: run.main(config, journal=KillingJournal))


if __name__ == "__main__":
    sys.exit(main())
