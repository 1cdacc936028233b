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
    """`POST /api/v1/webhook/MODEL` reads the repository at once: GitHub, Gitea (HMAC) and GitLab (token)."""

    secret: SecretRef


class GitSettings(Section):
    """A file in a Git repository, as it is at the tip of a branch or tag."""

    url: GitAddress
    ref: GitRef = Field("main", description="a branch or a tag")
    path: RelativePath = Field(description="of the file, in the repository")
    key: YamlKey | None = Field(None, description="of the YAML file, such as tts.version; default: plain text")
    interval: Annotated[Duration, Field(ge=1)] = Field(180.0, description="how often it is read, 10 % more or less")
    timeout: PositiveDuration = Field(30.0, description="how long one reading may take")
    token: SecretRef | None = Field(None, description="the password for https")
    user: Annotated[str, Field(pattern=r"^[A-Za-z0-9._@+-]{1,100}$")] = Field(
        "x-access-token", description="the user name beside the token; most servers take any"
    )
    ssh_key: SecretRef | None = Field(None, description="the private key for ssh, without a passphrase")
    known_hosts: AbsolutePath | None = Field(
        None, description="keys of ssh servers that are trusted; default: /etc/ssh/ssh_known_hosts"
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
    """What says which version is wanted: a file that something else replaces, or one in a Git repository."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["file"]}, {"required": ["git"]}]})

    file: AbsolutePath | None = Field(None, description="of a ConfigMap, for example; read when it changes")
    key: YamlKey | None = Field(None, description="of the YAML file, such as tts.version; default: plain text")
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
    """A failed change of version that was declared: after `initial`, then `factor` times as long, up to `max`."""

    limit: Annotated[int, Field(ge=0, le=100)] = Field(3, description="0: never")
    initial: PositiveDuration = 10.0
    factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 2.0
    max: PositiveDuration = 60.0


class WindowSettings(Section):
    """A time in which automatic switches may begin (allow), or may not (deny), as Argo CD's sync windows."""

    kind: Literal["allow", "deny"]
    schedule: Schedule = Field(description="cron: when it begins")
    duration: Annotated[Duration, Field(ge=60, le=LONGEST_WINDOW_S)]
    timezone: Timezone = "UTC"
    manual: bool = Field(True, description="a person may switch although this window does not let mountd do it")


class SyncSettings(Section):
    """What mountd changes by itself; `mountd pause` stops all of it until `mountd resume`."""

    automatic: bool = Field(True, description="a version that is declared is switched to without anybody asking")
    self_heal: bool = Field(True, description="a link that somebody changed is put right")
    retry: RetrySettings = Field(RetrySettings(), description="only for causes that can pass, such as an outage")
    windows: Annotated[list[WindowSettings], Field(max_length=20)] = Field(
        default_factory=list, description="when automatic switches may begin; default: always"
    )
