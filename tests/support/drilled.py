"""A system to drill without processes: a board on which rclone, model and app follow what is done to them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

from mountd.errors import MountdError
from mountd.journal.journal import Journal
from mountd.mount.mount import RcloneMount
from mountd.operation.drill_runner import DrillDeps
from mountd.operation.switch import Operations
from mountd.process.instance import Instance
from mountd.process.lifecycle import Event, RestartAsked
from mountd.process.supervisor import Supervisor
from mountd.process.throttle import Throttle
from mountd.rclone.binary import Binary
from mountd.settings.schema import Settings
from mountd.status.board import Board
from mountd.status.snapshot import (
    AppStatus,
    Health,
    ModelStage,
    ModelStatus,
    MountStage,
    MountStatus,
    RemoteStatus,
    Snapshot,
    State,
)

WELL, AWAY = RemoteStatus(Health.HEALTHY), RemoteStatus(Health.DEGRADED)


class Drilled:
    """One mount `disk` with the model `hub` and the app `webui`. `done` holds what was done to them."""

    def __init__(self, directory: Path, **keys: Any) -> None:
        self.path = directory / "disk"
        self.path.mkdir()
        (self.path / "a").write_bytes(b"1")
        self.config: dict[str, Any] = {
            "remotes": {"store": {"type": "s3", "endpoint": "https://s3.example.com"}},
            "mounts": {
                "disk": {
                    "remote": "store:bucket",
                    "path": str(self.path),
                    "cache": {"dir": str(directory / "cache")},
                    **keys,
                }
            },
            "apps": {"webui": {"command": ["x"], "needs": ["disk"]}},
            **{name: str(directory / name) for name in ("state", "runtime")},
            "control": {"socket": str(directory / "s")},
        }
        mount = MountStatus(
            *(str(self.path), "store:bucket", State.RUNNING, MountStage.READY, Health.HEALTHY, 7, 2),
            backend=WELL,
        )
        model = ModelStatus("disk", "/srv/hub", ModelStage.LINKED, Health.HEALTHY, current="v23", mount_restarts=2)
        app = AppStatus(needs=("disk",), state=State.RUNNING, health=Health.HEALTHY, pid=8)
        self.board = Board(Snapshot({"disk": mount}, {"hub": model}, {"webui": app}))
        self.journal = Journal(directory / "mountd.db")
        self.operations = Operations({}, {}, self.board, self.journal)
        self.done: list[str] = []
        self.heals = True
        """mountd replaces an rclone that is broken"""
        self.remounts = True
        """a remount that is asked for takes place"""
        self.notices = True
        """a bucket that is away is seen"""
        self.during: Callable[[], object] = lambda: None
        """happens as soon as the bucket is away"""
        self.exit: object = None
        """of the child, which is this object too, as the mount and the supervisor are"""
        self.pid = 7

    def deps(self) -> DrillDeps:
        return DrillDeps(
            settings=lambda: Settings.model_validate(self.config),
            mounts={"disk": cast(RcloneMount, self)},
            supervisors={"disk": cast(Supervisor, self)},
            probe_paths=lambda _: ["missing", "a"],
            board=self.board,
            operations=self.operations,
            journal=self.journal,
            instance=Instance.of(self.path, self.path),
            binary=Binary(Path("/r"), (1, 75, 2), frozenset()),
        )

    @property
    def child(self) -> Self:
        return self

    @property
    def mount(self) -> MountStatus:
        return self.board.snapshot.mounts["disk"]

    def show(self, **changes: Any) -> None:
        self.board.set_mount("disk", replace(self.mount, **changes))

    def signal(self, number: signal.Signals) -> None:
        self.done.append(number.name)
        if number is not signal.SIGCONT and self.heals:
            self.show(state=State.STOPPING)
            self.replace()

    def replace(self) -> None:
        """rclone, and with it all that stands on it."""
        restarts = self.mount.restarts + 1
        self.show(state=State.RUNNING, restarts=restarts, pid=10 * restarts)
        snapshot = self.board.snapshot
        self.board.set_model("hub", replace(snapshot.models["hub"], mount_restarts=restarts))
        webui = snapshot.apps["webui"]
        self.board.set_app("webui", replace(webui, restarts=webui.restarts + 1, pid=webui.restarts + 100))

    def detour(self, environment: Mapping[str, str]) -> None:
        self.done.append("detour" if environment else "no detour")

    def post(self, event: Event) -> None:
        assert isinstance(event, RestartAsked)
        self.done.append("remount")
        if self.remounts:
            self.replace()


def stand_in(system: Drilled) -> type[Throttle]:
    """For the proxy's process."""

    class ProxyStandIn(Throttle):
        asked = 1
        """requests that came to it"""

        def __init__(self) -> None: ...

        @classmethod
        async def start(cls, marks: Mapping[str, str]) -> Self:
            system.done.append("proxy")
            return cls()

        @property
        def url(self) -> str:
            return "http://mountd:secret@127.0.0.1:1"

        async def set(self, fault: str, *, delay_s: float = 0.0) -> None:
            system.done.append(f"{fault} {delay_s:g}")
            if fault == "none":
                system.show(backend=WELL)
            elif system.notices:
                system.show(backend=AWAY)
            if fault != "none":
                system.during()

        async def used_by(self, pid: int) -> None:
            if pid != system.mount.pid and pid != system.pid:
                raise MountdError("another process than rclone")

        async def requests(self) -> int:
            return self.asked

        async def close(self) -> None:
            system.done.append("proxy closed")

    return ProxyStandIn
