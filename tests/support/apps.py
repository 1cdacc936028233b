"""An app that is a script, and what that has detached: steady, deaf, with children in sessions of their own."""

from __future__ import annotations

from mountd.process import orphans
from tests.support.daemon import Daemon
from tests.support.wait import until

GRACE_S = 1.0
# Exits with 0 or 3 on a command; a wait is interrupted by a signal, a sleep is not.
STEADY = "trap 'exit 0' USR1; trap 'exit 3' USR2; echo up; while :; do sleep 60 & wait; done"
DEAF = "trap '' TERM INT HUP; echo up; while :; do sleep 0.1; done"
# Each writes its pid to $1: one in a session of its own, deaf; one whose parent is gone, and its session's leader too;
# one that has closed all that it inherited, as a daemon does; one that has dropped its environment, too, in which the
# marks are by which mountd knows it.
DETACHED = """
    setsid sh -c 'trap "" TERM INT HUP; echo $$ >>"$0"; while :; do sleep 0.1; done' "$1" &
    (setsid sh -c 'sleep 300 & echo $! >>"$0"' "$1" &)
    (setsid sh -c 'exec </dev/null >/dev/null 2>&1; setsid sleep 300 & echo $! >>"$0"' "$1" &)
    (env -i /usr/bin/setsid /bin/sh -c '/bin/sleep 300 & echo $! >>"$0"' "$1" &)
"""
DETACHED_COUNT = 4


class Apps:
    """A daemon whose only app is a script, and what that has detached."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._pids = daemon.root / "detached"
        self._pids.touch()

    def use(self, script: str, **stop: str) -> None:
        self.daemon.config["apps"] = {
            "webui": {
                "command": ["/bin/sh", "-c", script, "sh", str(self._pids)],
                "stop": {"signal": "SIGTERM", "grace": f"{GRACE_S}s", **stop},
                "restart": {"backoff": {"initial": "100ms"}, "limit": "50 in 10m"},
            }
        }

    @property
    def pid(self) -> int | None:
        found: int | None = self.daemon.status()["apps"]["webui"]["pid"]
        return found

    def detached(self, lives: int = 1) -> list[int]:
        """The pids of what so many lives of the app have detached, once all are there."""

        def all_there() -> list[int] | None:
            found = [int(word) for word in self._pids.read_text().split()]
            return found if len(found) == lives * DETACHED_COUNT else None

        found = until(all_there, 60, "all of it to be detached")
        assert found is not None
        return found


def living(pids: list[int]) -> list[int]:
    return [pid for pid in pids if orphans.alive(pid)]
