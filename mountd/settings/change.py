"""Old and new settings → what restarts, what takes effect in place, and what a running mountd must refuse.

Pure. What a secret is now comes in as a digest for each place, so that a changed file counts as a changed key does.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from enum import Enum, auto
from typing import Any

from pydantic import BaseModel

from mountd.settings.profiles import writes_back
from mountd.settings.remotes import RemoteSettings
from mountd.settings.schema import Settings, keys_of
from mountd.settings.secret import SecretRef
from mountd.settings.source import Place

Digests = Mapping[Place, str]
"""place of a secret → what differs when the secret does"""


class Effect(Enum):
    """What a changed key asks for."""

    REFUSE = auto()
    """only a restart of mountd can"""
    IN_PLACE = auto()
    CREDENTIALS = auto()
    """new credentials for a mount that goes on"""
    REMOUNT = auto()
    REPLACE = auto()
    """a remount somewhere else: what was there is ended before what is new begins"""
    RESTART = auto()
    """of the app"""
    SWITCH = auto()
    """the model is asked for another version, or what asks for it is another one"""
    RESTART_MODEL = auto()
    """the model is looked for elsewhere"""
    RELINK = auto()
    LISTEN = auto()
    """the TCP port listens elsewhere, or changes between TLS and plain text"""
    ADMIT = auto()
    """others may ask on the TCP port, or it has another certificate"""


CREDENTIAL_OPTIONS = frozenset({"access_key_id", "secret_access_key", "session_token"})
"""Of an S3 remote: they are one credential, also when only a part of it is a secret."""

_TOP = {
    **dict.fromkeys(("control", "state", "runtime", "rclone", "log", "allow_unsafe_paths"), Effect.REFUSE),
    **dict.fromkeys(("allow_plain_secrets", "notify"), Effect.IN_PLACE),
}
_MOUNT = {
    **dict.fromkeys(("remote", "profile", "allow_other", "uid", "gid", "umask", "cache", "options"), Effect.REMOUNT),
    **dict.fromkeys(("health", "drain"), Effect.IN_PLACE),
    "path": Effect.REPLACE,
}
_CACHE = {
    **dict.fromkeys(("max_size", "min_free"), Effect.REMOUNT),
    "dir": Effect.REPLACE,
    "on_failure": Effect.IN_PLACE,
}
_MODEL = {
    **dict.fromkeys(("mount", "directory"), Effect.RESTART_MODEL),
    **dict.fromkeys(("required", "warm", "keep", "sync", "watch", "gates"), Effect.IN_PLACE),
    "link": Effect.RELINK,
    **dict.fromkeys(("version", "desired"), Effect.SWITCH),
}
_APP = {
    **dict.fromkeys(("command", "directory", "user", "umask", "environment", "needs"), Effect.RESTART),
    **dict.fromkeys(("preflight", "ready", "stop", "restart", "limits"), Effect.IN_PLACE),
}
_HTTP = {
    **dict.fromkeys(("listen", "tls"), Effect.LISTEN),
    **dict.fromkeys(("tokens", "behind_proxy"), Effect.ADMIT),
}
_OUTBOX = dict.fromkeys(
    ("directory", "remote", "settle", "keep", "include", "exclude", "parallel", "limit", "late", "min_free"),
    Effect.IN_PLACE,
)
_SECTIONS = {"mounts": _MOUNT, "models": _MODEL, "apps": _APP, "outbox": _OUTBOX}
_WITHOUT_RESTART = {Effect.IN_PLACE, Effect.CREDENTIALS, Effect.SWITCH, Effect.RELINK, Effect.LISTEN, Effect.ADMIT}


@dataclass(frozen=True, slots=True)
class Names:
    mounts: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    apps: tuple[str, ...] = ()
    outbox: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """What has to be done; names of mounts, models, apps and outboxes that both settings have, each at most once."""

    places: tuple[Place, ...] = ()
    """every key that differs, added and removed entries as one"""
    refused: tuple[Place, ...] = ()
    in_place: tuple[Place, ...] = ()
    """the keys that take effect although nothing restarts for them"""
    remount: tuple[str, ...] = ()
    replace: tuple[str, ...] = ()
    """mounts that are stopped and mounted somewhere else"""
    credentials: tuple[str, ...] = ()
    """mounts that go on with new credentials; none that is remounted anyway"""
    restart: tuple[str, ...] = ()
    """apps that are restarted at once, those on a mount that is replaced among them"""
    follow: tuple[str, ...] = ()
    """apps that a remount, or a model that is elsewhere now, restarts a little later"""
    switch: tuple[str, ...] = ()
    restart_models: tuple[str, ...] = ()
    relink: tuple[str, ...] = ()
    listen: bool = False
    admit: bool = False
    added: Names = field(default_factory=Names)
    removed: Names = field(default_factory=Names)

    def __bool__(self) -> bool:
        return bool(self.places)


def effect_of(place: Place, old: Settings, new: Settings) -> Effect:
    """What the changed key at `place` asks for, within a section or an entry that both settings have."""
    section, *rest = map(str, place)
    if section == "remotes":
        return _remote_effect(old.remotes[rest[0]], new.remotes[rest[0]], rest[1])
    if section == "mounts" and rest[1] == "cache" and len(rest) > 2:
        return _CACHE[rest[2]]
    if section == "apps" and rest[1] == "needs" and old.apps[rest[0]].needs == new.apps[rest[0]].needs:
        return Effect.IN_PLACE  # the same names: a level is for the next start
    if section == "models" and rest[1:] == ["sync", "automatic"] and new.models[rest[0]].sync.automatic:
        return Effect.SWITCH  # what a source says counts again, also if a person has asked for another one meanwhile
    if section in _SECTIONS:
        return _SECTIONS[section][rest[1]]
    if section == "http":
        return Effect.ADMIT if len(rest) > 1 else _HTTP[rest[0]]  # the same TLS with other files, or new ones in them
    return Effect.IN_PLACE if place == ("log", "level") else _TOP[section]


def _remote_effect(old: RemoteSettings, new: RemoteSettings, option: str) -> Effect:
    values = (old.options.get(option), new.options.get(option))
    credential = old.type == new.type == "s3" and option in CREDENTIAL_OPTIONS and None not in values
    secret = all(isinstance(value, SecretRef) for value in values)
    return Effect.CREDENTIALS if credential or secret else Effect.REMOUNT


def compare(old: Settings, new: Settings, before: Digests, after: Digests, *, root: bool) -> Change:
    """All of it. `before` and `after` are the digests of the secrets that `old` and `new` refer to.

    `root`: whether mountd runs as root, on which the default of `allow_other` hangs.
    """
    added = Names(*(_only_in(new, old, section) for section in _SECTIONS))
    removed = Names(*(_only_in(old, new, section) for section in _SECTIONS))
    changed_secrets = (place for place, digest in after.items() if before.get(place, digest) != digest)
    places = tuple(dict.fromkeys([*_differences(old, new, ()), *changed_secrets]))
    effects = {place: effect_of(place, old, new) for place in places if not _is_entry(place)}
    replace = _entries_with(Effect.REPLACE, effects, "mounts")
    # What waits for an upload must be drained by the rules that it was written under.
    replace |= {
        name
        for name in _common(old.mounts, new.mounts)
        if writes_back(old.mounts[name]) != writes_back(new.mounts[name])
    }
    remount = _mounts_with(Effect.REMOUNT, effects, old, new)
    remount |= {name for name in _common(old.mounts, new.mounts) if _allow_other_differs(old, new, name, root=root)}
    remount -= replace
    credentials = _mounts_with(Effect.CREDENTIALS, effects, old, new) - remount - replace
    restart = _entries_with(Effect.RESTART, effects, "apps")
    restart |= {name for name in _common(old.apps, new.apps) if replace & set(old.mounts_of(old.apps[name]))}
    restart_models = _entries_with(Effect.RESTART_MODEL, effects, "models")
    restart_models |= {name for name in _common(old.models, new.models) if new.models[name].mount in replace}
    return Change(
        places=places,
        refused=tuple(place for place, effect in effects.items() if effect is Effect.REFUSE),
        in_place=tuple(place for place, effect in effects.items() if effect in _WITHOUT_RESTART),
        remount=_ordered(new.mounts, remount),
        replace=_ordered(new.mounts, replace),
        credentials=_ordered(new.mounts, credentials),
        restart=_ordered(new.apps, restart),
        follow=_ordered(new.apps, _followers(new, remount, restart_models) - restart - set(added.apps)),
        switch=_ordered(new.models, _entries_with(Effect.SWITCH, effects, "models")),
        restart_models=_ordered(new.models, restart_models),
        relink=_ordered(new.models, _entries_with(Effect.RELINK, effects, "models")),
        listen=Effect.LISTEN in effects.values(),
        admit=Effect.ADMIT in effects.values(),
        added=added,
        removed=removed,
    )


def remounting(change: Change, mounts: Collection[str], new: Settings) -> Change:
    """The change when these mounts, which were to go on with new credentials, are remounted after all."""
    remotes = {remote for name in mounts for remote in _remotes_of(new, name)}
    followers = _followers(new, {*change.remount, *mounts}, set(change.restart_models)) - {
        *change.restart,
        *change.added.apps,
    }
    return replace_fields(
        change,
        remount=_ordered(new.mounts, {*change.remount, *mounts}),
        credentials=tuple(name for name in change.credentials if name not in mounts),
        follow=_ordered(new.apps, followers),
        in_place=tuple(place for place in change.in_place if place[0] != "remotes" or place[1] not in remotes),
    )


def _only_in(here: Settings, there: Settings, section: str) -> tuple[str, ...]:
    return tuple(name for name in getattr(here, section) if name not in getattr(there, section))


def _common(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    return [name for name in new if name in old]


def _ordered(section: Mapping[str, object], names: set[str]) -> tuple[str, ...]:
    return tuple(name for name in section if name in names)


def _is_entry(place: Place) -> bool:
    """An entry that was added or removed as a whole: no key of it asks for anything by itself."""
    return len(place) == 2 and place[0] in ("remotes", *_SECTIONS)


def _differences(old: Any, new: Any, place: Place) -> Iterator[Place]:
    """The places of the smallest named things that differ; lists and secrets count as one."""
    if old == new:
        return
    before, after = _parts(old), _parts(new)
    # A thing that only one of them has is one difference, however many keys it holds; so is a remote's option.
    if before is None or after is None:
        yield place
        return
    for key in dict.fromkeys([*before, *after]):
        if key in before and key in after:
            yield from _differences(before[key], after[key], (*place, key))
        else:
            yield (*place, key)


def _parts(value: Any) -> Mapping[str, Any] | None:
    if isinstance(value, RemoteSettings):
        return {"type": value.type, **value.options}
    if isinstance(value, BaseModel) and not isinstance(value, SecretRef):
        return {key: getattr(value, name) for key, name in keys_of(type(value)).items()}
    return value if isinstance(value, dict) else None


def _entries_with(effect: Effect, effects: Mapping[Place, Effect], section: str) -> set[str]:
    return {str(place[1]) for place, each in effects.items() if each is effect and place[0] == section}


def _mounts_with(effect: Effect, effects: Mapping[Place, Effect], old: Settings, new: Settings) -> set[str]:
    """Mounts whose own key, or a key of a remote that they stand on, has this effect."""
    remotes = _entries_with(effect, effects, "remotes")
    found = _entries_with(effect, effects, "mounts")
    return found | {name for name in _common(old.mounts, new.mounts) if remotes & _remotes_of(new, name)}


def _remotes_of(settings: Settings, mount: str) -> set[str]:
    """The mount's remote and those that it wraps."""
    return set(settings.beneath(settings.mounts[mount].remote_name))


def _allow_other_differs(old: Settings, new: Settings, name: str, *, root: bool) -> bool:
    """Its default hangs on the users of all apps."""
    return old.allows_other(old.mounts[name], root=root) != new.allows_other(new.mounts[name], root=root)


def _followers(settings: Settings, remount: set[str], restart_models: set[str]) -> set[str]:
    """Apps that restart because what they stand on was replaced, as their `restart.after` says."""
    return {
        name
        for name, app in settings.apps.items()
        if ("remount" in app.restart.after and remount & set(settings.mounts_of(app)))
        or ("switch" in app.restart.after and restart_models & set(app.needs))
    }
