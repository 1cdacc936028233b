"""Keeps rclone.conf, and the keys that rclone takes while it runs, in line with the settings and the secrets."""

from __future__ import annotations

import asyncio
import secrets as random
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

import structlog
from pydantic import ValidationError

from mountd.errors import CannotStart
from mountd.rclone import conf, credentials, writeback
from mountd.rclone.binary import Binary, dump, obscure
from mountd.rclone.private_file import FileStat, identity, read, remove_leftovers, replace
from mountd.rclone.writeback import WritebackRecord
from mountd.settings import masking
from mountd.settings.schema import Settings
from mountd.settings.secret import LookAtSecrets, ReadSecrets, SecretRef, is_secret_option

log = structlog.get_logger()

SETTLED_S = 1.0
"""A secret that has changed counts when it has lain still for so long: keys in two files are rotated one after the
other, and a file may be written in place."""
SETTLING_LIMIT_S = 5.0
SETTLING_STEP_S = 0.1
REMEMBERED_SECRETS = 200
TRIES = 5
RECORD_NAME = "rclone-written.json"

Resolved = dict[str, dict[str, str]]
Keys = Mapping[str, Mapping[str, str]]
"""What `credentials.split` takes out of the remotes, by remote and option."""


class SecretChange(Enum):
    """What changed secrets behind a remote mean for a running rclone."""

    NOTHING = auto()
    """there are none"""
    LIVE = auto()
    """rclone takes them by itself, within `credentials.LIFE_S`"""
    REMOUNT = auto()
    """rclone reads them only when it starts"""


@dataclass(frozen=True, slots=True)
class RemoteSecrets:
    """What an rclone has of a remote and those beneath it: what it has read in rclone.conf, and the keys that it takes
    while it runs. `signing` are those that it may still sign with, see SecretRefresh."""

    fixed: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False)
    live: Keys = field(default_factory=dict, repr=False)
    signing: Keys = field(default_factory=dict, repr=False)

    def same(self, other: RemoteSecrets) -> bool:
        return (self.fixed, self.live) == (other.fixed, other.live)

    def resigns(self, before: RemoteSecrets) -> bool:
        """Whether an access key id has another secret than before."""
        return any(
            keys["access_key_id"] == known["access_key_id"] and keys["secret_access_key"] != known["secret_access_key"]
            for name, keys in self.live.items()
            if (known := before.signing.get(name))
        )


@dataclass(frozen=True, slots=True)
class SecretRefresh:
    """`has`: what the rclone that runs has now, for the next call.

    `resigned`: an access key id has another secret. rclone may use the previous one until it is restarted: the AWS
    SDK keeps for a day what it derives from a secret, by the access key id alone.
    """

    change: SecretChange
    has: RemoteSecrets
    resigned: bool = False


@dataclass(frozen=True, slots=True)
class _NothingNew:
    """A refresh that has found nothing new, and what was there: while all of that is the same, no file is read."""

    settings: Settings
    since: RemoteSecrets
    seen: object

    def holds(self, settings: Settings, since: RemoteSecrets, seen: object) -> bool:
        return self.settings is settings and self.since is since and self.seen == seen


async def read_in_threads(secrets: Mapping[str, SecretRef]) -> dict[str, str]:
    """For a short run, which waits for a disk as long as its caller does."""
    return {name: await asyncio.to_thread(each.read) for name, each in secrets.items()}


async def look_at_nothing(secrets: Collection[SecretRef]) -> object:
    """They are read each time."""
    return None


def record_path(state: Path) -> Path:
    """Where a daemon on this state directory remembers what rclone writes: tokens, in a 0700 directory."""
    return state / "private" / RECORD_NAME


class ConfFile:
    """`<runtime>/private/rclone.conf` and the files beside it, mode 0600 in a 0700 directory."""

    def __init__(self, path: Path, binary: Binary, *, record: Path | None = None) -> None:
        """`record`: where to remember what rclone itself writes (OAuth tokens), see `record_path`.

        Without it, beside the file: lost with it at a reboot, and with it a token that cannot be had again.
        """
        self.path = path
        self.secrets: tuple[str, ...] = ()
        """what a log must not show: the secrets of the last writes, plain and obscured"""
        self.read_secrets: ReadSecrets = read_in_threads
        self.look_at_files: LookAtSecrets = look_at_nothing
        self._itself = SecretRef(file=path)
        self._nothing_new: dict[str, _NothingNew] = {}
        self._binary = binary
        self._record_path = record or path.with_name(RECORD_NAME)
        self._record: WritebackRecord | None = None
        self._lock = asyncio.Lock()
        self._known: dict[SecretRef, str] = {}
        self._unreadable: set[SecretRef] = set()
        self._obscured: dict[tuple[str, str], tuple[str, str]] = {}  # by remote and option: plain, and as rclone has it
        self._looked_at: FileStat | None = None
        self._same: tuple[str, Resolved] | None = None  # a text that rclone wrote, and what it parses to
        self._is_first = True

    async def write(self, settings: Settings) -> dict[str, RemoteSecrets]:
        """Write what the settings and the secrets say now; when a running rclone has other keys, what they come to rest
        at, see `refresh`. What an rclone that is started then has of each remote.

        A secret that cannot be read now is taken as it was last, when there is such. What rclone itself wrote into the
        file stays, unless the settings have changed there. Raises CannotStart (a secret or the disk) and UsageError (a
        value the format cannot hold).
        """
        async with self._lock:
            resolved = await self._resolve(settings, settings.remotes, lenient=True)
            split = credentials.split(resolved, self.path.parent)
            if not self._is_first and await asyncio.to_thread(self._has_other, split.keys):
                # Perhaps of a mount that this start has nothing to do with, in the middle of a rotation.
                resolved, _ = await self._settled(settings, settings.remotes, resolved, lenient=True)
                split = credentials.split(resolved, self.path.parent)
            asked = {name: dict(options) for name, options in split.remotes.items()}
            self._hide(settings, resolved)
            own = await self._obscure_all(asked)
            await asyncio.to_thread(self._write_live, split.keys)
            await self._write_conf(own, asked)
            return {name: self._behind(resolved, settings.beneath(name)) for name in resolved}

    async def refresh(self, settings: Settings, remote: str, since: RemoteSecrets) -> SecretRefresh:
        """Look again at the secrets behind one remote, for an rclone that has those in `since`.

        New S3 keys are put where it takes them. When something has changed this lasts `SETTLED_S`; what does not come
        to rest within `SETTLING_LIMIT_S` is left for the next time. Raises CannotStart when a secret cannot be read or
        the disk not be written: what rclone has stays.
        """
        names = settings.beneath(remote)
        # Before they are read; and at rclone.conf, which rclone writes itself.
        seen = await self.look_at_files([self._itself, *_secrets_of(settings, names)])
        before = self._nothing_new.pop(remote, None)
        if seen is not None and before is not None and before.holds(settings, since, seen):
            self._nothing_new[remote] = before
            return SecretRefresh(SecretChange.NOTHING, since)
        await self.remember()
        resolved = await self._resolve(settings, names)
        found = self._behind(resolved, names)
        if not found.same(since):
            resolved, at_rest = await self._settled(settings, names, resolved)
            if not at_rest:
                return SecretRefresh(SecretChange.NOTHING, since)
            found = self._behind(resolved, names)
        resigned = found.resigns(since)
        if found.same(since):
            if not resigned:
                self._nothing_new[remote] = _NothingNew(settings, since, seen)
            return SecretRefresh(SecretChange.NOTHING, since, resigned)
        async with self._lock:
            self._hide(settings, resolved)
            await asyncio.to_thread(self._write_keys, found.live)
        change = SecretChange.LIVE if found.fixed == since.fixed else SecretChange.REMOUNT
        has = RemoteSecrets(since.fixed, found.live, since.signing if resigned else found.live)
        return SecretRefresh(change, has, resigned)

    def _behind(self, resolved: Resolved, names: Iterable[str]) -> RemoteSecrets:
        split = credentials.split({name: resolved[name] for name in names}, self.path.parent)
        return RemoteSecrets(split.remotes, split.keys, signing=split.keys)

    async def _settled(
        self, settings: Settings, names: Collection[str], resolved: Resolved, *, lenient: bool = False
    ) -> tuple[Resolved, bool]:
        """What is behind these remotes once it has lain still, and whether it has in time. Raises CannotStart."""
        began = still_since = time.monotonic()
        while time.monotonic() - still_since < SETTLED_S:
            await asyncio.sleep(SETTLING_STEP_S)
            before = resolved
            resolved = await self._resolve(settings, names, lenient=lenient)
            if resolved != before:
                still_since = time.monotonic()
                if still_since - began > SETTLING_LIMIT_S:
                    return resolved, False
        return resolved, True

    async def remember(self) -> None:
        """Remember what rclone has written into its file since, so that it outlasts the file."""
        async with self._lock:
            await self._learn()

    # -- secrets --------------------------------------------------------------------------------------------------

    async def _resolve(self, settings: Settings, names: Iterable[str], *, lenient: bool = False) -> Resolved:
        """The options of these remotes with their secrets read. Raises CannotStart."""
        options = {name: settings.remotes[name].options for name in names}
        wanted = _secrets_of(settings, options)
        # At the same time: a file on a disk that does not answer takes its limit.
        found = await asyncio.gather(*(self._read(each, lenient=lenient) for each in wanted), return_exceptions=True)
        for result in found:
            if isinstance(result, BaseException):
                raise result
        values = dict(zip(wanted, map(str, found), strict=True))
        return {
            name: {"type": settings.remotes[name].type}
            | {option: values[value] if isinstance(value, SecretRef) else value for option, value in each.items()}
            for name, each in options.items()
        }

    async def _read(self, reference: SecretRef, *, lenient: bool) -> str:
        try:
            value = (await self.read_secrets({"": reference}))[""]
        except CannotStart as error:
            if not lenient or reference not in self._known:
                raise
            if reference not in self._unreadable:
                self._unreadable.add(reference)
                log.warning("cannot read a secret, its last value stays", cause=error.text)
            return self._known[reference]
        self._unreadable.discard(reference)
        self._known[reference] = value
        return value

    def _hide(self, settings: Settings, resolved: Resolved) -> None:
        for name, options in resolved.items():
            given = settings.remotes[name].options
            self._hide_values(
                value
                for option, value in options.items()
                if isinstance(given.get(option), SecretRef) or masking.option(option, value) != value
            )

    def _hide_values(self, values: Iterable[str]) -> None:
        """Newest first; previous ones stay hidden, as rclone may still log them."""
        known = dict.fromkeys(value for value in (*values, *self.secrets) if value)
        self.secrets = tuple(known)[:REMEMBERED_SECRETS]

    async def _obscure_all(self, asked: Resolved) -> Resolved:
        own = {name: dict(options) for name, options in asked.items()}
        for name, options in own.items():
            for option in sorted(self._binary.password_options.get(options["type"], frozenset()) & options.keys()):
                if options[option]:
                    plain, options[option] = options[option], await self._obscure(name, option, options[option])
                    self._hide_values((plain, options[option]))
        return own

    async def _obscure(self, name: str, option: str, value: str) -> str:
        """The same result for the same value: rclone's differs each time, which would look like a change."""
        plain, obscured = self._obscured.get((name, option), ("", ""))
        if plain != value:
            obscured = await obscure(self._binary, value)
            self._obscured[name, option] = value, obscured
        return obscured

    # -- files ----------------------------------------------------------------------------------------------------

    def _write_live(self, keys: Keys) -> None:
        directory = self.path.parent
        if self._is_first:  # later an rclone may still run that needs what is of no remote any more
            wanted = {credentials.keys_name(name) for name in keys}
            remove_leftovers(
                directory, ("aws-*.json", ".aws*", f"{self.path.name}?*", f".{self.path.name}.*"), keep=wanted
            )
            self._is_first = False
        self._write_keys(keys)
        if keys:
            replace(directory / credentials.SCRIPT_NAME, credentials.SCRIPT)
            replace(directory / credentials.CONFIG_NAME, credentials.render_config(keys, directory))

    def _has_other(self, keys: Keys) -> bool:
        """Whether one of these remotes has other keys now, which an rclone may be using."""
        found = {name: read(self.path.with_name(credentials.keys_name(name))) for name in keys}
        return any(text not in (None, credentials.render_keys(keys[name])) for name, text in found.items())

    def _write_keys(self, keys: Keys) -> None:
        for name, each in keys.items():
            replace(self.path.with_name(credentials.keys_name(name)), credentials.render_keys(each))

    async def _write_conf(self, own: Resolved, asked: Resolved) -> None:
        for attempt in range(TRIES):
            await self._learn()
            merged, record = writeback.merge(await self._recorded(), own, asked)
            text = conf.render(merged)
            current = await asyncio.to_thread(read, self.path)
            if current is not None and self._same == (current, merged):
                text = current  # the same in rclone's own form
            try:
                await asyncio.to_thread(replace, self.path, text, expected=current)
            except BlockingIOError:
                if attempt + 1 < TRIES:
                    continue  # rclone has written meanwhile
                await asyncio.to_thread(replace, self.path, text)
            self._looked_at = await asyncio.to_thread(identity, self.path)
            await self._save(record.model_copy(update={"text": record.digest(text)}))
            return

    async def _learn(self) -> None:
        looked_at = await asyncio.to_thread(identity, self.path)
        if looked_at is None or looked_at == self._looked_at:
            return  # while rclone saves it the file is away for a moment
        record = await self._recorded()
        text = await asyncio.to_thread(read, self.path)
        if text is None:
            return
        if record.digest(text) != record.text:
            try:
                found = await dump(self._binary, self.path)
            except CannotStart as error:
                log.warning("cannot read what rclone wrote into its configuration", cause=error.text)
                self._looked_at = looked_at
                return
            if await asyncio.to_thread(read, self.path) != text:
                return  # written again: next time
            self._same = (text, found)
            learnt = writeback.learn(record, found, text)
            for name, each in learnt.remotes.items():
                self._hide_values(value for option, value in each.kept.items() if is_secret_option(option, value))
                if name not in record.remotes or each.kept != record.remotes[name].kept:
                    log.info("rclone has changed its configuration", remote=name, options=sorted(each.kept))
            await self._save(learnt)
        self._looked_at = looked_at

    async def _recorded(self) -> WritebackRecord:
        if self._record is None:
            self._record = await asyncio.to_thread(self._load)
        return self._record

    def _load(self) -> WritebackRecord:
        text = read(self._record_path)
        if text is not None:
            try:
                return WritebackRecord.model_validate_json(text)
            except ValidationError:  # its text may hold what is secret
                log.warning("cannot use the record of rclone's own configuration", path=str(self._record_path))
        return WritebackRecord(salt=random.token_hex(16))

    async def _save(self, record: WritebackRecord) -> None:
        self._record = record
        try:
            await asyncio.to_thread(replace, self._record_path, record.model_dump_json(indent=1) + "\n")
        except CannotStart as error:  # a full disk is no reason to have no mount
            log.warning("cannot record rclone's own configuration", cause=error.text)


def _secrets_of(settings: Settings, names: Iterable[str]) -> list[SecretRef]:
    """Behind these remotes, each once."""
    given = (value for name in names for value in settings.remotes[name].options.values())
    return list(dict.fromkeys(value for value in given if isinstance(value, SecretRef)))
