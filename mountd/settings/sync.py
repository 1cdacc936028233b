"""The keys of GitOps: where the wanted version of a model comes from, and when mountd follows it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from mountd.settings.fields import AbsolutePath, PositiveDuration, RelativePath
from mountd.settings.secret import SecretRef
from mountd.settings.section import Section
from mountd.settings.source import Place
from mountd.settings.units import Duration

_ANY_TIME = datetime(2026, 1, 1, tzinfo=UTC)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
LONGEST_WINDOW_S = 366 * 86400.0
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9][A-Za-z0-9.-]*:[^/:][^:]*")
"""`git@example.com:team/deploy.git`: ssh as everybody writes it."""


def _git_address(value: str) -> str:
    if re.search(r"[\x00-\x20\x7f]", value):
        raise ValueError("must not contain spaces or control characters")
    if _SCP.fullmatch(value):
        return value
    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("https", "http", "ssh") and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine or (parts.hostname or "").startswith("-"):
        raise ValueError("must be https://…, ssh://… or git@HOST:PATH, such as https://git.example.com/team/deploy.git")
    if parts.password is not None or (parts.username is not None and parts.scheme != "ssh"):
        raise ValueError("must not hold a user or a password: write token: {env: NAME}, {file: /path} or …")
    if parts.query or parts.fragment:
        raise ValueError("must be the address of a repository, without ? and #")
    return value


def _ref(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}", value) or re.search(r"\.\.|//|\.lock$|[./]$", value):
        raise ValueError(f"{value[:64]!r} is not the name of a branch or tag")
    return value


def _key(value: str) -> str:
    if not re.fullmatch(r"[^\s.]{1,64}(\.[^\s.]{1,64}){0,9}", value):
        raise ValueError(f"{value[:64]!r} is no key of a YAML file: write its way with dots, such as tts.version")
    return value


def _schedule(value: str) -> str:
    try:
        if len(value.split()) != 5:
            raise ValueError
        CronSim(value, _ANY_TIME)
    except (CronSimError, ValueError):
        raise ValueError(
            f"{value[:64]!r} is no cron schedule: minute hour day month weekday, such as 0 22 * * *"
        ) from None
    return value


@cache
def zone(name: str) -> ZoneInfo:
    """Read from disk once, when the configuration is: later only an event loop asks. Raises ValueError, OSError,
    KeyError."""
    return ZoneInfo(name)


def _timezone(value: str) -> str:
    try:
        zone(value)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        raise ValueError(f"{value[:64]!r} is no timezone: write UTC, or a name such as Asia/Shanghai") from None
    return value


GitAddress = Annotated[
    str,
    AfterValidator(_git_address),
    WithJsonSchema(
        {"type": "string", "pattern": r"^(https?|ssh)://|^[^/]+@[^/]+:", "examples": ["https://…/deploy.git"]}
    ),
]
GitRef = Annotated[str, AfterValidator(_ref)]
YamlKey = Annotated[str, AfterValidator(_key)]
Schedule = Annotated[str, AfterValidator(_schedule)]
Timezone = Annotated[str, AfterValidator(_timezone)]


class WebhookSettings(Section):
    """With `POST /api/v1/webhook/MODEL` the Git server makes mountd read the repository at once."""

    secret: SecretRef = Field(description="the secret that the Git server sends, or signs with")


class GitSettings(Section):
    """A file in a Git repository, at the newest commit of a branch or tag."""

    url: GitAddress = Field(description="address of the repository, for https or ssh, without user and password")
    ref: GitRef = Field("main", description="branch or tag")
    path: RelativePath = Field(description="path of the file in the repository")
    key: YamlKey | None = Field(
        None, description="key of the version in a YAML file, such as tts.version; default: the file is one line"
    )
    interval: Annotated[Duration, Field(ge=1)] = Field(
        180.0, description="how often mountd asks for a new commit, 10 % more or less"
    )
    timeout: PositiveDuration = Field(30.0, description="a request that takes longer fails")
    token: SecretRef | None = Field(None, description="access token for https")
    user: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@+-]{1,100}$")] = Field(
        "x-access-token", description="user name sent with the token; most servers accept any"
    )
    ssh_key: SecretRef | None = Field(None, description="private key for ssh, without a passphrase")
    known_hosts: AbsolutePath | None = Field(
        None, description="file with the keys of trusted ssh servers; default: /etc/ssh/ssh_known_hosts"
    )
    webhook: WebhookSettings | None = None

    @property
    def is_ssh(self) -> bool:
        return self.url.startswith("ssh://") or "://" not in self.url

    @property
    def is_in_the_open(self) -> bool:
        """Whether what is sent can be read, and what comes back be changed, on the way."""
        return self.url.startswith("http://") and urlsplit(self.url).hostname not in LOOPBACK


class DesiredSettings(Section):
    """Where the wanted version comes from. Exactly one of `file` and `git`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["file"]}, {"required": ["git"]}]})

    file: AbsolutePath | None = Field(
        None, description="file that holds the version, such as one of a ConfigMap; mountd reads it when it changes"
    )
    key: YamlKey | None = Field(
        None, description="key of the version in a YAML file, such as tts.version; default: the file is one line"
    )
    git: GitSettings | None = None

    @model_validator(mode="after")
    def _check(self) -> DesiredSettings:
        if (self.file is None) == (self.git is None):
            raise ValueError("write exactly one of file and git")
        if self.git is not None and self.key is not None:
            raise ValueError("key belongs to file; that of a repository stands under git")
        return self

    def secrets(self) -> Iterator[tuple[Place, SecretRef]]:
        """Every secret that is referred to, and where."""
        git = self.git
        if git is not None:
            hook = git.webhook.secret if git.webhook else None
            named = {("token",): git.token, ("ssh_key",): git.ssh_key, ("webhook", "secret"): hook}
            yield from ((("git", *way), each) for way, each in named.items() if each is not None)


class RetrySettings(Section):
    """How often an automatic switch is tried again after a cause that can pass, such as a timeout."""

    limit: Annotated[int, Field(ge=0, le=100)] = Field(
        3, description="number of retries; 0: none. Also how often mountd may be killed in such a switch, at least 1"
    )
    initial: PositiveDuration = Field(10.0, description="wait before the first retry")
    factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = Field(
        2.0, description="the wait grows by this factor with each retry"
    )
    max: PositiveDuration = Field(60.0, description="longest wait")


class WindowSettings(Section):
    """A time in which automatic switches may begin (allow) or may not (deny), as in Argo CD."""

    kind: Literal["allow", "deny"] = Field(description="a deny window wins over an allow window")
    schedule: Schedule = Field(description="cron expression for its begin: minute hour day month weekday")
    duration: Annotated[Duration, Field(ge=60, le=LONGEST_WINDOW_S)] = Field(description="how long it lasts")
    timezone: Timezone = Field("UTC", description="timezone of the schedule, such as Asia/Shanghai")
    manual: bool = Field(True, description="whether a person may switch while this window stops automatic switches")


class SyncSettings(Section):
    """What mountd changes by itself. `mountd pause` stops all of it until `mountd resume`."""

    automatic: bool = Field(True, description="switch when version, or the version that desired names, changes")
    self_heal: bool = Field(True, description="repair the link when something else changes it")
    retry: RetrySettings = RetrySettings()
    windows: Annotated[list[WindowSettings], Field(max_length=20)] = Field(
        default_factory=list, description="times for automatic switches; default: they may begin at any time"
    )
