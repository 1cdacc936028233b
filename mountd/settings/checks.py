"""What no key shows alone: names that must exist, secrets in the open, sockets too long, limits that contradict."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from mountd.settings import masking, stores
from mountd.settings.fields import is_host_address
from mountd.settings.http import HttpSettings, is_loopback
from mountd.settings.paths import check_paths
from mountd.settings.profiles import cache_mode, writes_back
from mountd.settings.remotes import RemoteSettings, Value
from mountd.settings.schema import LEVELS, MountSettings, NeedSettings, Settings
from mountd.settings.secret import SecretRef, is_secret, is_secret_option
from mountd.settings.source import Place
from mountd.settings.targets import check_target
from mountd.settings.wanted import check_wanted
from mountd.settings.words import Finding, did_you_mean

MAX_SOCKET_BYTES = 100  # sun_path holds 108 with its NUL; what follows a name may still grow
LONGEST_SOCKET = "private/notify-{name}.sock"  # as mount/mount.py names it
SLOW_DETECTION_S = 300

_IN_THE_OPEN = (
    "is a secret in plain text: write {env: NAME}, {file: /path} or {credential: NAME} instead, "
    "or set allow_plain_secrets: true"
)
_HOLDS_ONE = "may hold a secret in plain text: write {env: NAME}, {file: /path} or {credential: NAME} instead"
_ON_THE_COMMAND_LINE = (
    "may hold a secret, which every user of this machine can read in rclone's command line: "
    "write it as an option of the remote"
)


SECTIONS = ("remotes", "mounts", "models", "apps", "outbox")
WrittenNames = Mapping[str, Sequence[str]]
"""The names in each section of the file, also of entries that are too broken to be in the settings."""


def check(settings: Settings, known: WrittenNames) -> Iterator[Finding]:
    """Every contradiction between keys of settings that are valid one by one."""
    yield from _unique_names(known)
    yield from _references(settings, known)
    yield from check_paths(settings)
    yield from _sockets(settings)
    yield from _outboxes(settings, known)
    for name, remote in settings.remotes.items():
        yield from _remote(("remotes", name), remote, plain=settings.allow_plain_secrets)
    for name, mount in settings.mounts.items():
        yield from _mount(("mounts", name), mount)
    for name, model in settings.models.items():
        yield from check_wanted(("models", name), model)
    yield from _levels(settings)
    yield from _http(settings.http)
    for name, target in settings.notify.items():
        yield from check_target(("notify", name), target, plain=settings.allow_plain_secrets)
    for name, app in settings.apps.items():
        yield from _environment(("apps", name, "environment"), app.environment, plain=settings.allow_plain_secrets)
        if app.restart.backoff.max < app.restart.backoff.initial:
            yield Finding(("apps", name, "restart", "backoff", "max"), "must not be less than initial")
        if app.user is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", app.user):
            yield Finding(("apps", name, "user"), "is not the name of a user")


def _unique_names(known: WrittenNames) -> Iterator[Finding]:
    taken: dict[str, str] = {}
    for section in ("mounts", "models", "apps", "outbox"):
        for name in known[section]:
            if name in taken:
                yield Finding(
                    (section, name),
                    f"the name is taken by {taken[name]}: mounts, models, apps and outboxes share one set of names",
                )
            taken.setdefault(name, f"{section}.{name}")


def _references(settings: Settings, known: WrittenNames) -> Iterator[Finding]:
    for name, mount in settings.mounts.items():
        yield from _remote_path(("mounts", name, "remote"), mount.remote, known)
    for name, model in settings.models.items():
        if known["mounts"] and model.mount not in known["mounts"]:  # none at all is a problem by itself
            yield Finding(("models", name, "mount"), _unknown(model.mount, "mount", known["mounts"]))
    needed = [*known["models"], *known["mounts"]]
    for name, app in settings.apps.items():
        for index, need in enumerate(app.needed):
            item: Place = ("apps", name, "needs", index)
            if isinstance(need, str):
                if need not in needed:
                    yield Finding(item, _unknown(need, "model or mount", needed))
            elif need.model in known["mounts"]:
                yield Finding(
                    (*item, "model"), f"{need.model!r} is a mount, and only a model has a level: write its name alone"
                )
            elif need.model not in known["models"]:
                yield Finding((*item, "model"), _unknown(need.model, "model", known["models"]))


def _remote_path(place: Place, remote: str, known: WrittenNames) -> Iterator[Finding]:
    name = remote.partition(":")[0]
    if re.search(r"[\x00-\x1f\x7f]", remote):
        yield Finding(place, "must not contain line ends or other control characters")
    elif "," in name:  # a connection string, which may hold a secret
        yield Finding(place, "must be REMOTE:BUCKET: write the options under remotes")
    elif name not in known["remotes"]:
        yield Finding(place, _unknown(name, "remote", known["remotes"]))


def _outboxes(settings: Settings, known: WrittenNames) -> Iterator[Finding]:
    places: dict[str, str] = {}
    for name, outbox in settings.outbox.items():
        place = ("outbox", name, "remote")
        yield from _remote_path(place, outbox.remote, known)
        remote = settings.remotes.get(outbox.remote_name)
        if remote is not None and remote.type == "s3" and not outbox.remote.partition(":")[2].strip("/"):
            yield Finding(place, "must name a bucket: REMOTE:BUCKET[/PREFIX]")
        if (other := places.setdefault(outbox.remote.rstrip("/"), name)) != name:
            yield Finding(place, f"is where outbox.{other} puts its files too: give each a prefix of its own")
        for above in [each for each, other in settings.outbox.items() if _lies_below(outbox.remote, other.remote)]:
            text = (
                f"lies below that of outbox.{above}, whose files may get the same keys: give each a prefix of its own"
            )
            yield Finding(place, text, warning=True)
        if outbox.min_free.percent is not None and outbox.min_free.percent > 95:
            yield Finding(("outbox", name, "min_free"), "leaves no room for results: write 5% or a size")


def _lies_below(remote: str, other: str) -> bool:
    return remote != other and remote.startswith(other if other.endswith((":", "/")) else f"{other}/")


def _levels(settings: Settings) -> Iterator[Finding]:
    """What is fetched ahead: where it is kept, and who waits for it."""
    for name, model in settings.models.items():
        place, mount = ("models", name, "warm"), settings.mounts.get(model.mount)
        if model.warm.level == "data" and mount is not None and (mode := cache_mode(mount).lower()) != "full":
            yield Finding(
                (*place, "level"),
                f"needs a mount that keeps what is read, but mounts.{model.mount} has vfs-cache-mode {mode}: give it"
                " the profile model-hub or small, or write pin",
            )
        if model.warm.level == "pin" and model.warm.only_opened:
            yield Finding(
                (*place, "only_opened"),
                "belongs to level data: a pinned version is complete, or it would not do without the mount",
            )
    for name, app in settings.apps.items():
        for index, need in enumerate(app.needed):
            if not isinstance(need, NeedSettings) or need.model not in settings.models:
                continue
            own = settings.models[need.model].warm.level
            if LEVELS.index(need.level) > LEVELS.index(own):
                yield Finding(
                    ("apps", name, "needs", index, "level"),
                    f"is never reached: models.{need.model}.warm.level is {own}; write {need.level} there as well",
                )


def _http(http: HttpSettings) -> Iterator[Finding]:
    if http.tls is None and http.tokens is not None and not http.behind_proxy and not is_loopback(http.address[0]):
        yield Finding(
            ("http", "listen"),
            "answers other machines in plain text, and tokens come to it in plain text: write http.tls, or"
            " behind_proxy: true where only a proxy that speaks TLS reaches it",
            warning=True,
        )
    if http.behind_proxy and http.tokens is None:
        yield Finding(
            ("http", "behind_proxy"),
            "leaves only /healthz, /readyz and /metrics as long as there are no http.tokens",
            warning=True,
        )


def _unknown(name: str, what: str, names: Sequence[str]) -> str:
    meant = did_you_mean(name, names)
    if not meant:
        meant = f"; there is {', '.join(repr(each) for each in names)}" if names else "; there is none"
    return f"there is no {what} {name!r}{meant}"


def _sockets(settings: Settings) -> Iterator[Finding]:
    control = len(str(settings.control.socket).encode())
    if control > MAX_SOCKET_BYTES:
        yield Finding(
            ("control", "socket"), f"the path of a Unix socket has {MAX_SOCKET_BYTES} bytes at most, this one {control}"
        )
    for name in (*settings.mounts, *settings.outbox):
        path = settings.runtime / LONGEST_SOCKET.format(name=name)
        length = len(str(path).encode())
        if length > MAX_SOCKET_BYTES:
            yield Finding(
                ("runtime",),
                f"is too long: the path of a Unix socket has {MAX_SOCKET_BYTES} bytes at most, and {path} has {length}",
            )
            return


def _remote(place: Place, remote: RemoteSettings, *, plain: bool) -> Iterator[Finding]:
    for name, value in remote.options.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9_]{0,63}", name):
            better = re.sub(r"[^a-z0-9]+", "_", name.lower())[:64].strip("_")
            yield Finding(
                (*place, name),
                f"is not the name of an option of rclone{f', did you mean {better!r}?' if better else ''}",
            )
        elif isinstance(value, str) and re.search(r"[\x00-\x1f\x7f]", value):
            yield Finding((*place, name), "must not contain line ends or other control characters")
        elif not isinstance(value, SecretRef) and is_secret_option(name, value) and not plain:
            yield Finding((*place, name), _IN_THE_OPEN)
        elif not isinstance(value, SecretRef) and masking.option(name, value) != value and not plain:
            yield Finding((*place, name), _HOLDS_ONE, warning=True)
    if remote.type == "s3":
        provider, endpoint = remote.options.get("provider"), remote.options.get("endpoint")
        amazon = isinstance(provider, str) and provider.lower() == "aws"
        if isinstance(endpoint, str) and endpoint and not is_host_address(endpoint):
            yield Finding((*place, "endpoint"), "must be the store's address, such as https://s3.example.com")
        if not amazon and not endpoint:
            yield Finding(
                (*place, "endpoint"),
                "is missing: write the store's address, such as https://s3.example.com, or provider: AWS for Amazon's",
            )
        yield from stores.check(place, remote)


def _environment(place: Place, environment: Mapping[str, Value], *, plain: bool) -> Iterator[Finding]:
    for name, value in environment.items():
        if "=" in name or re.search(r"[\x00-\x20\x7f]", name):
            yield Finding((*place, name), "is not the name of an environment variable")
        elif not isinstance(value, SecretRef) and is_secret(name, value) and not plain:
            yield Finding((*place, name), _IN_THE_OPEN)


def _mount(place: Place, mount: MountSettings) -> Iterator[Finding]:
    health = mount.health
    worst_s = health.failures * max(health.interval, health.timeout)
    if worst_s > SLOW_DETECTION_S:
        yield Finding(
            (*place, "health"), f"a hung mount would be noticed after {worst_s / 60:.0f} minutes only", warning=True
        )
    for name, flag in mount.options.items():
        texts: Sequence[bool | str] = flag if isinstance(flag, list) else [flag]
        if any(isinstance(each, str) and masking.option(name, each) != each for each in texts):
            yield Finding((*place, "options", name), _ON_THE_COMMAND_LINE, warning=True)
    if "drain" in mount.model_fields_set and not writes_back(mount):
        yield Finding((*place, "drain"), "has no use: nothing waits for its upload on this mount", warning=True)
    if mount.cache.max_size is not None and mount.cache.max_size.of(1 << 50) == 0:
        yield Finding((*place, "cache", "max_size"), "must be more than 0; leave it out for no limit")
    if mount.cache.min_free.percent is not None and mount.cache.min_free.percent > 95:
        yield Finding((*place, "cache", "min_free"), "leaves no room for the cache: write 5% or a size")
