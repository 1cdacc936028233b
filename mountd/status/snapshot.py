"""The snapshot: what is known of remotes, mounts, models, apps and the running operation at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from mountd.errors import Problem
from mountd.status.load import AppLoad, LoadHistory, LoadStatus
from mountd.status.notify import NotifyStatus
from mountd.status.source import SourceStatus, Unmet

if TYPE_CHECKING:
    from mountd.status.results import OutboxStatus


class Health(StrEnum):
    """Argo CD's words, best first."""

    HEALTHY = "Healthy"
    SUSPENDED = "Suspended"
    PROGRESSING = "Progressing"
    MISSING = "Missing"
    DEGRADED = "Degraded"
    UNKNOWN = "Unknown"


class State(StrEnum):
    """Where a supervised process is."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    CLEANING = "cleaning"
    BACKOFF = "backoff"
    FAILED = "failed"


class MountStage(StrEnum):
    """The stages of a mount's start-up; each includes the ones before it."""

    PREFLIGHT = "preflight"
    SPAWNED = "spawned"
    MOUNTED = "mounted"
    ANSWERING = "answering"
    READY = "ready"


class ModelStage(StrEnum):
    """The stages of a model on a running mount. While it is `listed` its names are being loaded."""

    WAITING = "waiting"
    LISTED = "listed"
    WARMED = "warmed"
    LINKED = "linked"


class Sync(StrEnum):
    SYNCED = "Synced"
    OUT_OF_SYNC = "OutOfSync"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is not Healthy: a code for scripts, a sentence for people, and what to do."""

    code: str
    text: str
    layer: str = ""
    """bucket, rclone, mount, link, app, outbox, config or journal"""
    object: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RemoteStatus:
    health: Health = Health.UNKNOWN
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class CacheStatus:
    bytes_used: int = 0
    files: int = 0
    uploads_queued: int = 0
    limit_bytes: int | None = None
    """None: only the free room of its disk limits it"""


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """Uploads that an end waits for; `open` of the files that are left are still being written by a program."""

    files: int
    files_left: int
    bytes_left: int
    open: int = 0

    def __str__(self) -> str:
        open_ = f", {self.open} open for writing" if self.open else ""
        return f"{self.files_left} of {self.files} files left, {size(self.bytes_left)}{open_}"


def size(count: int) -> str:
    """Bytes → `12 MiB`."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


@dataclass(frozen=True, slots=True)
class MountStatus:
    path: str
    remote: str
    state: State = State.STOPPED
    stage: MountStage = MountStage.PREFLIGHT
    health: Health = Health.UNKNOWN
    pid: int | None = None
    restarts: int = 0
    """how often it has come back to `running`: another number means other FUSE files behind the same path"""
    unasked: int = 0
    """how many of these were not requested: shown as `restarts`"""
    since: str = ""
    """when the state began, UTC, ISO 8601"""
    cache: CacheStatus = CacheStatus()
    backend: RemoteStatus = RemoteStatus()
    """the bucket behind it, asked outside the mount"""
    reason: Reason | None = None
    drain: DrainStatus | None = None
    """while its stop waits for uploads"""
    cache_broken: bool = False
    """its cache directory is gone, full or cannot be written"""
    cache_bypassed: bool = False
    """everything is read from the bucket, without the cache"""
    cache_stops_apps: bool = False
    """by configuration no app runs on it meanwhile"""
    gone: bool = False
    """down for longer than a repair takes: an app that still runs on it is not ready"""
    fault: Reason | None = None
    """what it went down for the last time that nobody had asked for it, kept while it runs again"""

    @property
    def usable(self) -> bool:
        return self.state is State.RUNNING and self.stage is MountStage.READY


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """Whether the link is still as mountd placed it: something else may change it."""

    reason: Reason | None = None
    health: Health = Health.HEALTHY
    times: int = 0
    """how often it was found changed"""
    heals: int = 0
    last: str = ""
    """what was found last, kept after it was healed"""
    absent: bool = False
    """no link is there at all"""
    target: str | None = None
    """where the link points instead; None: nowhere, or it has not drifted"""


@dataclass(frozen=True, slots=True)
class ModelStatus:
    mount: str
    link: str
    stage: ModelStage = ModelStage.WAITING
    health: Health = Health.PROGRESSING
    current: str | None = None
    previous: str | None = None
    desired: str | None = None
    sync: Sync = Sync.UNKNOWN
    target: str | None = None
    digest: str | None = None
    verified: bool = False
    warmed_percent: int = 0
    warm_seconds: float | None = None
    mount_restarts: int = -1
    """the mount's `restarts` that the stage was reached on"""
    reason: Reason | None = None
    drift: DriftStatus = DriftStatus()
    changed: Reason | None = None
    """why the live version is no longer what it was made to be in the bucket"""
    suspended: str | None = None
    """who has paused automatic changes and why; None: not paused"""
    automatic: bool = True
    """by configuration mountd switches to an edited version by itself"""
    source: SourceStatus | None = None
    """what says from outside which version is wanted"""
    overridden: str | None = None
    """who has switched by hand against the source, until `mountd resume`; None: nobody"""
    window: str = ""
    """why no automatic switch may begin now by `sync.windows`; empty: one may"""
    unmet: Unmet | None = None
    """what the last try to reach a declared version failed for; of no interest once another one is desired"""
    pending: str | None = None
    """the declared version that mountd switches to by itself as soon as it may, or tries again"""
    drifted_to: str | None = None
    """the version that the link points to after a change from outside, as long as it does"""
    level: str = "metadata"
    """how much of the live version is on this machine: metadata, data or pin"""
    loading: LoadStatus | None = None
    """what is coming ahead of the app"""
    loads: LoadHistory = field(default_factory=LoadHistory)
    pinned: bool = False
    """the link leads to a copy on local disk: what reads there needs no mount"""

    @property
    def seen_by_apps(self) -> str | None:
        """The version that an app finds behind the link now; None: none."""
        return self.drifted_to if self.drift.reason is not None else self.current

    @property
    def follows(self) -> bool:
        """Whether mountd switches to a declared version by itself, now."""
        return self.automatic and self.suspended is None and self.overridden is None and not self.window

    @property
    def fails(self) -> Unmet | None:
        """Why it is not at the declared version, although nothing keeps it from switching."""
        unmet = self.unmet
        wanted = unmet is not None and unmet.version == self.desired != self.current
        return unmet if wanted and self.follows else None

    @property
    def linked(self) -> bool:
        return self.stage is ModelStage.LINKED


@dataclass(frozen=True, slots=True)
class AppStatus:
    needs: tuple[str, ...] = ()
    state: State = State.STOPPED
    health: Health = Health.UNKNOWN
    pid: int | None = None
    restarts: int = 0
    """how often it has come back to `running`"""
    unasked: int = 0
    """how many of these were not requested: shown as `restarts`"""
    since: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    """version of each model that it was started with"""
    mounts: Mapping[str, int] = field(default_factory=dict)
    """`restarts` of each mount behind it when it was started"""
    follows_remounts: bool = True
    """by configuration it is restarted when a mount behind it was replaced"""
    reason: Reason | None = None
    killed: str = ""
    """why it had to be killed at its stop; until it runs again"""
    fault: Reason | None = None
    """the crash that it comes back from, until it runs"""
    load: AppLoad | None = None
    """while it starts: how far it is with its files"""
    stopped: str | None = None
    """who has stopped it and why, until a person starts it or mountd restarts; None: nobody"""


WARM = "warm"
WAITS = "waits"
"""The step of an operation that is scheduled."""
CHANGES = frozenset({"switch", "rollback"})
"""Kinds of operations that change a model; that of a drill has the name of a mount, which a model may have, too."""


@dataclass(frozen=True, slots=True)
class Operation:
    id: int
    kind: str
    model: str
    from_version: str | None
    to_version: str
    operator: str
    source: str
    step: str
    started: str
    percent: int | None = None
    eta_s: float | None = None
    began: float = 0.0
    """the present step, monotonic"""
    limit_s: float | None = None
    """how long that may take"""
    bytes_per_s: float | None = None
    """while it, or an app that it waits for, loads data"""

    @property
    def only_loads(self) -> bool:
        """A warm: it changes nothing that is live, and a switch of its model ends it."""
        return self.kind == WARM


@dataclass(frozen=True, slots=True)
class ScheduledSwitch:
    """A switch for a later time; `due` and `asked` in UTC, ISO 8601. `waits`: why it has not begun, once it is due."""

    id: int
    model: str
    version: str
    due: str
    operator: str
    reason: str
    asked: str
    waits: str = ""
    step: str = WAITS


@dataclass(frozen=True, slots=True)
class ConfigStatus:
    """The configuration file: which one runs, and what is wrong with what stands there now."""

    source: str = ""
    loaded: str = ""
    """when what runs was read, UTC, ISO 8601"""
    summary: str = ""
    """what the last reload changed"""
    problems: tuple[Problem, ...] = ()
    """why the file as it is now is not used: the previous configuration stays"""
    hint: str = ""
    warnings: tuple[Problem, ...] = ()
    incomplete: str = ""
    """why only a part of the last change is in effect, until mountd restarts"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment; immutable, so that decisions and displays see the same."""

    mounts: Mapping[str, MountStatus] = field(default_factory=dict)
    models: Mapping[str, ModelStatus] = field(default_factory=dict)
    apps: Mapping[str, AppStatus] = field(default_factory=dict)
    operation: Operation | None = None
    """of those that run the one that was begun first"""
    operations: tuple[Operation, ...] = ()
    """all that run, in the order in which they were begun: at most one a model"""
    scheduled: tuple[ScheduledSwitch, ...] = ()
    """the next one first"""
    stopping: bool = False
    config: ConfigStatus = ConfigStatus()
    journal: Reason | None = None
    """why events are not written down"""
    lacks: Mapping[str, Reason] = field(default_factory=dict)
    """by part of mountd: what this machine lacks for it"""
    notify: Mapping[str, NotifyStatus] = field(default_factory=dict)
    """by target of notifications"""
    outbox: Mapping[str, OutboxStatus] = field(default_factory=dict)
