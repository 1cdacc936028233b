"""The YAML as types, units and defaults: the one place that says which keys exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from mountd.settings.fields import (
    AbsolutePath,
    Name,
    Pattern,
    PositiveDuration,
    RelativePath,
    RemotePath,
    Umask,
    Version,
)
from mountd.settings.gates import GateSettings, WatchSettings
from mountd.settings.http import HttpSettings
from mountd.settings.limits import AppLimitSettings
from mountd.settings.notify import NotifySettings
from mountd.settings.outbox import OutboxSettings
from mountd.settings.preflight import PreflightSettings
from mountd.settings.remotes import FILLED_IN, RemoteSettings, Value
from mountd.settings.secret import SecretRef
from mountd.settings.section import Section
from mountd.settings.source import Place
from mountd.settings.supervision import ReadySettings, RestartSettings, StopSettings
from mountd.settings.sync import DesiredSettings, SyncSettings
from mountd.settings.units import Duration, Rate, Size

MAX_ENTRIES = 100
"""Remotes, mounts, models, apps: each is compared with each, and has processes and tasks of its own."""
DEFAULT_PROFILE: Literal["model-hub"] = "model-hub"
MODEL_PROFILES = ("model-hub", "small")
"""Profiles of mounts that are read only, and keep what was read."""
Level = Literal["metadata", "data", "pin"]
"""How much of a version has come to this machine: its listing; its bytes too, in the mount's cache; a checked copy."""
LEVELS: tuple[Level, ...] = get_args(Level)
"""Each holds what stands before it."""
Flag = bool | str | list[str]
"""A flag of rclone: bare or `=false`, with a value, or repeated."""
_NAMED = re.compile(r"(?<![A-Za-z0-9_.+@-])([a-z0-9][a-z0-9_-]*)[:,]")
"""What may be the name of a remote, in an option of another one."""


def keys_of(section: type[BaseModel]) -> dict[str, str]:
    """Key of the file → attribute; they differ where the key is a word of Python."""
    return {field.alias or name: name for name, field in section.model_fields.items()}


class CacheSettings(Section):
    """Where rclone keeps what it has read from the bucket, and how much of it."""

    dir: Annotated[AbsolutePath, FILLED_IN] = Field(
        description="a directory on a fast local disk, for this mount alone; default: the mount's name, below"
        " /var/cache/mountd for root and below ~/.cache/mountd for others"
    )
    max_size: Size | None = Field(
        None,
        description="above this, rclone removes the files that were not used for longest; leave room for two versions;"
        " default: only min_free limits the cache (profile outputs: 10G)",
    )
    min_free: Size = Field(Size(percent=5), description="space that stays free on the cache's file system")
    on_failure: Literal["keep", "stop"] = Field(
        "keep",
        description="while the directory is full or not writable; `keep`: serve on, without the cache if reads fail;"
        " `stop`: stop the apps until the cache can be used again",
    )


class HealthSettings(Section):
    """How mountd checks a mount. It replaces a mount that hangs; it never restarts anything because of the bucket."""

    interval: PositiveDuration = Field(1.0, description="time between two liveness probes of the mount")
    timeout: PositiveDuration = Field(2.0, description="a liveness probe that takes longer is missed")
    failures: Annotated[int, Field(ge=1)] = Field(
        2, description="after this many missed probes in a row the mount counts as hung, and is replaced"
    )
    backend: Annotated[Duration, Field(ge=2)] = Field(
        15.0, description="time between two probes of the bucket, which go past the mount"
    )


class MountSettings(Section):
    """One `rclone mount`."""

    remote: RemotePath
    path: AbsolutePath = Field(description="the mount point: an empty directory; mountd creates it")
    profile: Literal["model-hub", "outputs", "small", "plain"] = Field(
        DEFAULT_PROFILE,
        description="flags of rclone for a purpose; `model-hub`: read only, everything that was read stays cached;"
        " `small`: the same for little memory or a slow disk; `outputs`: for what an app writes; `plain`: all else",
    )
    allow_other: bool | None = Field(
        None,
        description="whether other users than mountd's may see the mount; default: yes as root, or when an app runs as"
        " another user",
    )
    uid: Annotated[int, Field(ge=0)] | None = Field(
        None, description="owner that the files are shown with; default: mountd's user"
    )
    gid: Annotated[int, Field(ge=0)] | None = Field(
        None, description="group that the files are shown with; default: mountd's group"
    )
    umask: Umask | None = Field(None, description="permission bits that the files are shown without; default: rclone's")
    cache: Annotated[CacheSettings, FILLED_IN]
    options: dict[str, Flag] = Field(
        default_factory=dict,
        description="any flag of `rclone mount` by its name, such as `vfs-read-ahead: 512M`; replaces the profile's",
    )
    health: HealthSettings = HealthSettings()
    drain: Duration = Field(
        60.0, description="how long a stop of this mount waits for uploads; the rest is uploaded at the next start"
    )

    @property
    def remote_name(self) -> str:
        return self.remote.partition(":")[0]


class WarmSettings(Section):
    """How much of a version mountd loads before an app reads it."""

    level: Level = Field(
        "metadata",
        description="`metadata`: the list of its files; `data`: also their content, into the mount's cache; `pin`: a"
        " checked copy on local disk, which the app reads without the mount",
    )
    adopt: Annotated[list[AbsolutePath], Field(max_length=20)] = Field(
        default_factory=list,
        description="local directories that may hold the files already: mountd uses a file with the size and sha256 of"
        " the manifest instead of fetching it",
    )
    limit: Rate | None = Field(
        None, description="at most this much per second is loaded ahead, such as 20M; default: no limit"
    )
    only_opened: bool = Field(
        False, description="at level data, load only the files that the app opened at its last start"
    )


class ModelSettings(Section):
    """Versions side by side in a mount, one of them live behind a link."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["version"]}, {"required": ["desired"]}]})

    mount: Name = Field(description="the mount that holds the versions")
    directory: Pattern = Field(
        description="directory of a version below the mount, with {version} in place of its name"
    )
    link: AbsolutePath = Field(
        description="symbolic link, on local disk, that the app opens; it always points to the live version"
    )
    version: Version | None = Field(
        None, description="version for the first start; a later edit requests a switch to it"
    )
    desired: DesiredSettings | None = Field(
        None, description="in place of version: a file or a Git repository that says which version is wanted"
    )
    required: list[RelativePath] = Field(
        default_factory=list, description="files that a version must have, not empty, before it can go live"
    )
    warm: WarmSettings = WarmSettings()
    keep: Annotated[int, Field(ge=2)] = Field(
        2, description="how many versions stay in the local cache; the live and the previous one are two of them"
    )
    sync: SyncSettings = SyncSettings()
    watch: WatchSettings = WatchSettings()
    gates: Annotated[list[GateSettings], Field(max_length=20)] = Field(
        default_factory=list,
        description="checks that a new version must pass, in this order, once the app is ready and again during watch",
    )


class NeedSettings(Section):
    """A model that an app needs, and how much of it must be loaded before the app starts."""

    model: Name = Field(description="name of the model")
    level: Level = Field(description="level that the model must have reached; see warm.level")


class AppSettings(Section):
    """The program that needs the model."""

    command: Annotated[list[str], Field(min_length=1)] = Field(
        description="program and arguments, as a list; it must stay in the foreground"
    )
    directory: AbsolutePath = Field(Path("/"), description="working directory")
    user: str | None = Field(
        None, description="user that the app runs as; default: mountd's own user, which may be root"
    )
    umask: Umask = Field(0o022, description="permission bits that files of the app are created without")
    environment: dict[str, Value] = Field(
        default_factory=dict,
        description="variables for the app, as text or as a reference such as {env: NAME}; of mountd's own variables it"
        " inherits only those that the page on security lists",
    )
    needed: list[Name | NeedSettings] = Field(
        default_factory=list,
        alias="needs",
        description="models and mounts that must be there before the app starts; {model: NAME, level: …} starts it at"
        " that level of the model, default: the model's warm.level",
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
    """Which rclone mountd runs."""

    binary: AbsolutePath | None = Field(
        None,
        description="the rclone to use; default: the one on PATH, or the bundled one when that is older than 1.68",
    )


class ControlSettings(Section):
    """The Unix socket on which the command line asks the daemon. Its users may do what an operator's token allows."""

    socket: Annotated[AbsolutePath, FILLED_IN] = Field(description="its path; default: mountd.sock in runtime")
    group: str | None = Field(
        None, description="group whose members may use the socket, besides root and mountd's own user"
    )


class LogSettings(Section):
    """mountd's own log, on stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe lines to write")
    format: Literal["auto", "json", "console"] = Field(
        "auto", description="`console`: for people; `auto`: console on a terminal and in systemd's journal, else json"
    )


class Settings(Section):
    """The configuration file as a whole."""

    remotes: Annotated[dict[Name, RemoteSettings], Field(max_length=MAX_ENTRIES)] = Field(
        description="stores, by a name of your choice"
    )
    mounts: Annotated[dict[Name, MountSettings], Field(min_length=1, max_length=MAX_ENTRIES)] = Field(
        description="buckets that appear as directories, by name"
    )
    models: Annotated[dict[Name, ModelSettings], Field(max_length=MAX_ENTRIES)] = Field(
        default_factory=dict, description="models whose versions lie in a mount, by name"
    )
    apps: Annotated[dict[Name, AppSettings], Field(max_length=MAX_ENTRIES)] = Field(
        default_factory=dict, description="programs that mountd runs, by name"
    )
    outbox: Annotated[dict[Name, OutboxSettings], Field(max_length=MAX_ENTRIES)] = Field(
        default_factory=dict, description="directories whose finished files are uploaded by themselves: results of apps"
    )
    rclone: RcloneSettings = RcloneSettings()
    control: Annotated[ControlSettings, FILLED_IN]
    http: HttpSettings = HttpSettings()
    notify: Annotated[dict[Name, NotifySettings], Field(max_length=MAX_ENTRIES)] = Field(
        default_factory=dict, description="who is notified of events: targets by name"
    )
    log: LogSettings = LogSettings()
    state: Annotated[AbsolutePath, FILLED_IN] = Field(
        description="directory for the journal, pinned versions and incidents; default: /var/lib/mountd for root,"
        " ~/.local/state/mountd for others"
    )
    runtime: Annotated[AbsolutePath, FILLED_IN] = Field(
        description="directory for the control socket and rclone.conf; default: /run/mountd for root,"
        " $XDG_RUNTIME_DIR/mountd for others"
    )
    allow_plain_secrets: bool = Field(False, description="permit secrets that are written into this file")
    allow_unsafe_paths: bool = Field(
        False,
        description="permit links and mount points where another user can move a directory above them; only for volumes"
        " of a container, or an app in its user's home",
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
        for name, target in self.notify.items():
            for way, reference in target.secrets():
                yield ("notify", name, *way), reference

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
