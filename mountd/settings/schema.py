"""The YAML as types, units and defaults: the one place that says which keys exist."""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mountd.settings.fields import (
    AbsolutePath,
    HttpAddress,
    Name,
    Pattern,
    PositiveDuration,
    PrometheusAddress,
    RelativePath,
    RemotePath,
    Signal,
    Umask,
    Version,
    WebAddress,
)
from mountd.settings.http import HttpSettings
from mountd.settings.limits import AppLimitSettings
from mountd.settings.outbox import OutboxSettings
from mountd.settings.preflight import PreflightSettings
from mountd.settings.remotes import FILLED_IN, RemoteSettings, Value
from mountd.settings.secret import SecretRef
from mountd.settings.section import Section
from mountd.settings.source import Place
from mountd.settings.sync import DesiredSettings, SyncSettings
from mountd.settings.units import Duration, Limit, Rate, Size

MAX_ENTRIES = 100
"""Remotes, mounts, models, apps: each is compared with each, and has processes and tasks of its own."""
DEFAULT_PROFILE: Literal["model-hub"] = "model-hub"
MODEL_PROFILES = ("model-hub", "small")
"""Profiles of mounts that are read only, and keep what was read."""
Level = Literal["metadata", "data", "pin"]
"""How much of a version has come to this machine: its listing; its bytes too, in the mount's cache; a checked copy."""
LEVELS: tuple[Level, ...] = get_args(Level)
"""Each holds what stands before it."""
RestartCause = Literal["crash", "remount", "switch"]
RESTART_CAUSES: tuple[RestartCause, ...] = get_args(RestartCause)
"""What an app is restarted after."""
Flag = bool | str | list[str]
"""A flag of rclone: bare or `=false`, with a value, or repeated."""
_NAMED = re.compile(r"(?<![A-Za-z0-9_.+@-])([a-z0-9][a-z0-9_-]*)[:,]")
"""What may be the name of a remote, in an option of another one."""


def keys_of(section: type[BaseModel]) -> dict[str, str]:
    """Key of the file → attribute; they differ where the key is a word of Python."""
    return {field.alias or name: name for name, field in section.model_fields.items()}


class CacheSettings(Section):
    """Where rclone keeps what it has fetched, and how much of it."""

    dir: Annotated[AbsolutePath, FILLED_IN]
    max_size: Size | None = Field(
        None, description="room for at least two versions; default: no limit but min_free (profile outputs: 10G)"
    )
    min_free: Size = Field(Size(percent=5), description="kept free on the cache's file system")
    on_failure: Literal["keep", "stop"] = Field(
        "keep",
        description="while the directory is full or cannot be written: keep serving, without the cache where reads fail"
        " for it, or stop the apps until it can be used",
    )


class HealthSettings(Section):
    """How a mount is probed: `failures` liveness probes in a row that miss `timeout` mean hung."""

    interval: PositiveDuration = 1.0
    timeout: PositiveDuration = 2.0
    failures: Annotated[int, Field(ge=1)] = 2
    backend: Annotated[Duration, Field(ge=2)] = Field(
        15.0, description="how often the bucket is asked outside the mount"
    )


class MountSettings(Section):
    """One `rclone mount`."""

    remote: RemotePath
    path: AbsolutePath = Field(description="the mount point: an empty directory, created when missing")
    profile: Literal["model-hub", "outputs", "small", "plain"] = DEFAULT_PROFILE
    allow_other: bool | None = Field(None, description="default: true as root or when an app runs as another user")
    uid: Annotated[int, Field(ge=0)] | None = None
    gid: Annotated[int, Field(ge=0)] | None = None
    umask: Umask | None = None
    cache: Annotated[CacheSettings, FILLED_IN]
    options: dict[str, Flag] = Field(default_factory=dict, description="any flag of rclone mount by its own name")
    health: HealthSettings = HealthSettings()
    drain: Duration = Field(60.0, description="how long its end waits at most for uploads that are not done")

    @property
    def remote_name(self) -> str:
        return self.remote.partition(":")[0]


class WatchSettings(Section):
    """After a switch the app is watched; a crash or a failing gate brings the former version back."""

    period: Duration = Field(30.0, alias="for", description="0s: not at all")
    crashes: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="how many crashes end it; after those before, the app is started again"
    )


class GateSettings(Section):
    """What a new version must pass before it stays: an answer below 400, a command that exits 0, or a figure."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["http"]}, {"required": ["command"]}, {"required": ["prometheus", "query", "max"]}],
            "dependentRequired": {"query": ["prometheus"], "max": ["prometheus"]},
        }
    )

    http: WebAddress | None = None
    command: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="run as the app's user, with MOUNTD_VERSION and MOUNTD_MODEL"
    )
    prometheus: PrometheusAddress | None = None
    query: Annotated[str, Field(min_length=1, max_length=4000)] | None = Field(None, description="PromQL; one figure")
    max: Annotated[float, Field(allow_inf_nan=False)] | None = Field(None, description="the figure may not be more")
    timeout: PositiveDuration = 60.0

    @model_validator(mode="after")
    def _check(self) -> GateSettings:
        if sum(each is not None for each in (self.http, self.command, self.prometheus)) != 1:
            raise ValueError("write exactly one of http, command and prometheus")
        for name, value in (("query", self.query), ("max", self.max)):
            if self.prometheus is not None and value is None:
                raise ValueError(f"prometheus needs {name} as well")
            if self.prometheus is None and value is not None:
                raise ValueError(f"{name} belongs to prometheus")
        return self


class WarmSettings(Section):
    """What of a version is fetched before an app reads it."""

    level: Level = Field(
        "metadata",
        description="metadata: its listing; data: also its bytes, into the mount's cache; pin: a checked copy on local"
        " disk, which the app reads without the mount",
    )
    adopt: Annotated[list[AbsolutePath], Field(max_length=20)] = Field(
        default_factory=list,
        description="directories that may hold the files already: what has the size and sha256 of the manifest is taken"
        " from there, and not fetched",
    )
    limit: Rate | None = Field(
        None, description="so many bytes a second are fetched ahead at most, such as 20M; default: no limit"
    )
    only_opened: bool = Field(
        False, description="of level data: only the files that the app opened when it started last"
    )


class ModelSettings(Section):
    """Versions side by side in a mount, one of them live behind a link."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["version"]}, {"required": ["desired"]}]})

    mount: Name
    directory: Pattern = Field(description="under the mount; {version} names the versions")
    link: AbsolutePath = Field(description="on local disk; atomically replaced")
    version: Version | None = Field(None, description="wanted at first start; editing it asks for a switch")
    desired: DesiredSettings | None = Field(None, description="instead of version: what says from outside which one")
    required: list[RelativePath] = Field(
        default_factory=list, description="must exist, non-empty, before a version may go live"
    )
    warm: WarmSettings = WarmSettings()
    keep: Annotated[int, Field(ge=2)] = Field(
        2, description="versions that stay in the local cache, the live and the previous one among them"
    )
    sync: SyncSettings = SyncSettings()
    watch: WatchSettings = WatchSettings()
    gates: Annotated[list[GateSettings], Field(max_length=20)] = Field(
        default_factory=list, description="tried in this order once the app is ready, and again while it is watched"
    )


class ReadySettings(Section):
    """When the app is ready: an HTTP answer below 400 from its own port, or a command that exits 0."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["http"]}, {"required": ["command"]}]})

    http: HttpAddress | None = None
    command: Annotated[list[str], Field(min_length=1)] | None = None
    timeout: PositiveDuration = 900.0

    @model_validator(mode="after")
    def _check(self) -> ReadySettings:
        if (self.http is None) == (self.command is None):
            raise ValueError("write exactly one of http and command")
        return self


class StopSettings(Section):
    signal: Signal = signals.SIGTERM
    grace: PositiveDuration = 30.0


class BackoffSettings(Section):
    """Wait `initial`, then `factor` times as long after each further failure, up to `max`."""

    initial: PositiveDuration = 1.0
    factor: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    max: PositiveDuration = 60.0


class RestartSettings(Section):
    after: list[RestartCause] = Field(default_factory=lambda: [*RESTART_CAUSES])
    backoff: BackoffSettings = BackoffSettings()
    limit: Limit = Limit(5, 600.0)


class NeedSettings(Section):
    """A model that an app needs, and how much of it must be here before the app starts."""

    model: Name
    level: Level


class AppSettings(Section):
    """The program that needs the model."""

    command: Annotated[list[str], Field(min_length=1)]
    directory: AbsolutePath = Path("/")
    user: str | None = Field(None, description="drop to this user when mountd runs as root")
    umask: Umask = Field(0o022, description="for what the app makes; not that of the shell that started mountd")
    environment: dict[str, Value] = Field(default_factory=dict)
    needed: list[Name | NeedSettings] = Field(
        default_factory=list,
        alias="needs",
        description="models and mounts by name; {model: NAME, level: …} starts the app at that level of the model,"
        " default: the model's own",
    )
    preflight: PreflightSettings | None = None
    ready: ReadySettings | None = None
    stop: StopSettings = StopSettings()
    restart: RestartSettings = RestartSettings()
    limits: AppLimitSettings = AppLimitSettings()

    @property
    def needs(self) -> list[str]:
        """The names of models and mounts, in the order of the file."""
        return [each if isinstance(each, str) else each.model for each in self.needed]


class RcloneSettings(Section):
    binary: AbsolutePath | None = Field(
        None, description="default: rclone on PATH, or the bundled one when that is older than 1.68"
    )


class ControlSettings(Section):
    socket: Annotated[AbsolutePath, FILLED_IN]
    group: str | None = Field(None, description="members may use the socket; without it root and the daemon's own user")


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="auto: for people on a terminal and in systemd's journal, JSON elsewhere"
    )


class Settings(Section):
    """The configuration file as a whole."""

    remotes: Annotated[dict[Name, RemoteSettings], Field(max_length=MAX_ENTRIES)]
    mounts: Annotated[dict[Name, MountSettings], Field(min_length=1, max_length=MAX_ENTRIES)]
    models: Annotated[dict[Name, ModelSettings], Field(max_length=MAX_ENTRIES)] = Field(default_factory=dict)
    apps: Annotated[dict[Name, AppSettings], Field(max_length=MAX_ENTRIES)] = Field(default_factory=dict)
    outbox: Annotated[dict[Name, OutboxSettings], Field(max_length=MAX_ENTRIES)] = Field(
        default_factory=dict, description="directories whose finished files are uploaded by themselves: results of apps"
    )
    rclone: RcloneSettings = RcloneSettings()
    control: Annotated[ControlSettings, FILLED_IN]
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    state: Annotated[AbsolutePath, FILLED_IN]
    runtime: Annotated[AbsolutePath, FILLED_IN]
    allow_plain_secrets: bool = False
    allow_unsafe_paths: bool = Field(
        False,
        description="links and mount points also where another user can move a directory above them: for volumes of a"
        " container, or an app in its user's home",
    )

    def allows_other(self, mount: MountSettings, *, root: bool) -> bool:
        """Whether other users may read `mount`: as written, else as root or when an app runs as another user."""
        if mount.allow_other is not None:
            return mount.allow_other
        return root or any(app.user is not None for app in self.apps.values())

    def beneath(self, remote: str) -> tuple[str, ...]:
        """The remote itself, first, and each one that it wraps (crypt, union, alias, …), at whatever depth.

        By what its options say: `remote = a:b`, `upstreams = "a:b:ro c=d:"`. A word too many does no harm.
        """
        found = [remote]
        for each in found:  # grows meanwhile
            for value in self.remotes[each].options.values():
                if isinstance(value, str):
                    found += [word for word in _NAMED.findall(value) if word in self.remotes and word not in found]
        return tuple(dict.fromkeys(found))

    def secrets(self) -> Iterator[tuple[Place, SecretRef]]:
        """Every secret that is referred to, and where."""
        groups: list[tuple[Place, dict[str, Value]]]
        groups = [(("remotes", name), each.options) for name, each in self.remotes.items()]
        groups += [(("apps", name, "environment"), each.environment) for name, each in self.apps.items()]
        for place, group in groups:
            for key, value in group.items():
                if isinstance(value, SecretRef):
                    yield (*place, key), value
        if self.http.tokens is not None:
            yield ("http", "tokens"), self.http.tokens
        if self.http.tls is not None:
            yield ("http", "tls", "certificate"), self.http.tls.certificate
            yield ("http", "tls", "key"), self.http.tls.key
        for name, model in self.models.items():
            if model.desired is not None:
                for way, reference in model.desired.secrets():
                    yield ("models", name, "desired", *way), reference

    def secrets_elsewhere(self) -> dict[Place, SecretRef]:
        """Credentials of systemd, where it passed none: only its unit can read them."""
        return {place: reference for place, reference in self.secrets() if reference.is_elsewhere}

    def secret_variables(self) -> tuple[str, ...]:
        """The variables of mountd's own environment that hold secrets: no child may inherit them."""
        return tuple(reference.env for _, reference in self.secrets() if reference.env)

    def level_needed(self, app: AppSettings, model: str) -> Level:
        """How much of the model must be here before the app starts: as its needs say, else the model's own level."""
        own = self.models[model].warm.level
        written = [each.level for each in app.needed if isinstance(each, NeedSettings) and each.model == model]
        return own if model in app.needed or not written else max(written, key=LEVELS.index)

    def mounts_of(self, app: AppSettings) -> list[str]:
        """Names of the mounts that stand behind what `app` needs, in the order of its needs."""
        names = (self.models[need].mount if need in self.models else need for need in app.needs)
        return list(dict.fromkeys(names))
