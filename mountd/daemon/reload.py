"""Reload: the file is read again and all of it checked before anything changes; then what differs is changed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets as random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import structlog

from mountd.api.documents import SCHEMA
from mountd.api.documents.operations import ReloadDocument
from mountd.api.server import Server
from mountd.clock import now_text
from mountd.daemon.apply import Applier, ApplyNotify
from mountd.daemon.members import Members
from mountd.daemon.tcp_port import TcpPort
from mountd.daemon.watch_files import FileWatch, trail
from mountd.errors import Busy, CannotStart, ConfigError, MountdError, NotUploaded, Problem
from mountd.journal.journal import Journal
from mountd.model import link
from mountd.model.drift import LinkBlocked
from mountd.operation.desired import DesiredVersions
from mountd.operation.switch import Operations
from mountd.process.notify import Notifier
from mountd.process.slow_disk import SlowDisk
from mountd.settings.change import Change, Digests, compare
from mountd.settings.load import Loaded, check_secrets, first_problems, load
from mountd.settings.schema import Settings
from mountd.settings.source import Place, dotted, line_of
from mountd.settings.words import MAX_PROBLEMS
from mountd.status.board import Board
from mountd.status.snapshot import ConfigStatus

log = structlog.get_logger()

T = TypeVar("T")

PATIENCE_S = 10.0
"""How long a requested reload waits for an operation or another reload to finish."""
NEEDS_RESTART = "needs a restart of mountd"
SILENT_HINT = "mountd retries by itself; put the file, and those of secrets, on a local disk"
LOOK_S = 1.0
"""How often the files are read again while a reload waits for an operation: a token that is removed counts at once."""
READ_S = 5.0
"""How long one reading of the file, or of all secrets, may take: the disk may not answer."""
RESTART_HINT = "undo this edit, or restart mountd: systemctl restart mountd"
READINGS = 3
"""Of a file that changes each time while its secrets are read, the last one counts: its next change is noticed."""
_KEY = random.token_bytes(32)  # of this process: digests of secrets mean nothing outside of it


class Reloader:
    """All or nothing: a file that cannot be used leaves everything as it is, and is shown until it is corrected."""

    def __init__(
        self,
        loaded: Loaded,
        *,
        members: Members,
        operations: Operations,
        desired: DesiredVersions,
        server: Server,
        board: Board,
        journal: Journal,
        notify: ApplyNotify,
    ) -> None:
        self._source = Path(os.path.abspath(loaded.source))
        self._members = members
        self._operations = operations
        self.port = TcpPort(server, board, members.mount_points)
        self._board = board
        self._journal = journal
        self._watch = FileWatch(members.mount_points)
        self._disk = SlowDisk()
        self._digests: Digests = {}
        self._turn = asyncio.Lock()
        self._is_ahead = False
        """whether the port admits by contents that the rest of a reload has not caught up with"""
        self._applier = Applier(members, desired, board, notify)
        self._asked: set[asyncio.Task[Any]] = set()
        self._board.set_config(ConfigStatus(str(loaded.source), loaded=now_text(), warnings=loaded.warnings))

    # -- its tasks ------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Before anything of the settings starts: what changes from now on is noticed."""
        settings = self._members.settings
        try:
            await self._in_time(self._watch.follow(self._files(settings)))
            self._digests = await self._on_disk(lambda: _digests(settings))
        except ConfigError as error:  # tried again as soon as the disk answers
            log.warning("cannot watch the configuration", cause=error.text)

    async def follow_files(self) -> None:
        """Until cancelled: reload when the file or a secret has changed."""
        if await self._is_edited():  # between the first reading and `begin`
            await self._try("the configuration file has changed")
        while True:
            await self._watch.changed()
            await self._try("a file has changed")

    async def follow_signal(self, hangup: asyncio.Event, notifier: Notifier) -> None:
        """Until cancelled: SIGHUP, and the two messages that systemd waits for then."""
        while True:
            await hangup.wait()
            hangup.clear()
            notifier.send_reloading()
            try:
                await self._try("SIGHUP")
            finally:  # also after a bug, or when the machine lacks something: systemd waits for it
                if not self._board.snapshot.stopping:
                    notifier.send(READY=1)

    async def _is_edited(self) -> bool:
        try:
            loaded = await self._on_disk(lambda: load(self._source))
        except ConfigError:
            return True
        return loaded.settings != self._members.settings

    async def _try(self, cause: str) -> None:
        with contextlib.suppress(MountdError):  # `_told` or `_shown` has logged it
            await self.reload(cause, patience_s=None)

    async def _on_disk(self, work: Callable[[], T]) -> T:
        return await self._in_time(self._disk.run(work, READ_S))

    async def _in_time(self, reading: Awaitable[T]) -> T:
        """Raises ConfigError."""
        try:
            return await reading
        except TimeoutError:
            self._watch.doubt()
            text = f"a disk that it, or a secret, lies on does not answer within {READ_S:g} s"
            raise ConfigError(str(self._source), [Problem("", 0, text)], hint=SILENT_HINT) from None

    async def ask(self, operator: str) -> ReloadDocument:
        """In a request, which goes on when its client leaves. Raises ConfigError, Busy (also while mountd stops),
        MountdError."""
        if self._board.snapshot.stopping:  # it would start what has been stopped
            raise Busy("cannot reload: mountd is stopping", hint="start mountd: it reads the file", holder="a stop")
        task = asyncio.current_task()
        assert task is not None
        self._asked.add(task)
        try:
            return await self.reload(f"{operator} asked")
        finally:
            self._asked.discard(task)

    def tasks(self) -> list[asyncio.Task[Any]]:
        """What must finish before anything else stops."""
        return [*self._asked, *self._applier.tasks()]

    def close(self) -> None:
        self._watch.close()

    # -- one reload -----------------------------------------------------------------------------------------------

    async def reload(self, cause: str, *, patience_s: float | None = PATIENCE_S) -> ReloadDocument:
        """Raises ConfigError with all problems (the previous configuration stays), Busy after `patience_s`, and
        NotUploaded when all is done, but a mount that was removed has left files in its cache. Whatever else it raises
        while it carries out the change, the status shows that only a part of the file is in effect."""
        deadline = None if patience_s is None else asyncio.get_running_loop().time() + patience_s
        async with contextlib.AsyncExitStack() as stack:
            await self._enter(stack, self._turn, deadline)
            with self._reported(cause):
                loaded, digests, change = await self._look()
            # Nothing to do: no waiting. The running operation may be the switch to the edited version of this file,
            # noticed before the request.
            while change and not await self._is_quiet(stack, deadline):  # a token may be removed meanwhile
                with self._reported(cause):
                    loaded, digests, change = await self._look()
            if change:
                with self._reported(cause):
                    loaded, digests = await self._read()
                    change = await self._check(loaded, digests)
            left_before = dict(self._members.left)
            if change:
                with self._shown(cause):
                    change = await self._applier.apply(change, loaded.settings)
            self._digests, self._is_ahead = digests, False
            with contextlib.suppress(MountdError):  # it is still shown
                await self.port.retry(loaded.settings.http)
            done = self._report(change)
        self._show(done, loaded, cause)
        left = [reason for cache, reason in self._members.left.items() if left_before.get(cache) != reason]
        if left:
            texts = "; ".join(reason.text for reason in left)
            raise NotUploaded(f"cannot upload everything of a mount that was removed: {texts}", hint=left[0].hint)
        return done

    async def _enter(
        self, stack: contextlib.AsyncExitStack, turn: AbstractAsyncContextManager[Any], deadline: float | None
    ) -> None:
        """Raises Busy at the deadline."""
        try:
            async with asyncio.timeout_at(deadline):
                await stack.enter_async_context(turn)
        except TimeoutError:
            self._operations.check_free("reload")
            holder = "another reload"
            raise Busy(f"cannot reload: busy with {holder}", hint="try again in a moment", holder=holder) from None

    async def _is_quiet(self, stack: contextlib.AsyncExitStack, deadline: float | None) -> bool:
        """False: operations still run after LOOK_S. Raises Busy at the deadline."""
        soon = asyncio.get_running_loop().time() + LOOK_S
        try:
            await self._enter(stack, self._operations.quiet(), soon if deadline is None else min(soon, deadline))
        except Busy:
            if deadline is not None and deadline <= soon:
                raise
            return False
        return True

    async def _look(self) -> tuple[Loaded, Digests, Change]:
        """What the file says, and what that changes. Tokens and certificates count at once, whatever runs.

        Raises ConfigError.
        """
        loaded, digests = await self._read()
        change, http = self._compare(loaded, digests), loaded.settings.http
        # Only what their files hold: other settings of the port count with the rest of the file, or not at all.
        if (change.admit or self._is_ahead) and http == self._members.settings.http:
            with contextlib.suppress(MountdError):  # `_check` tries it again, and reports it
                await self.port.change(http, move=False)
                self._is_ahead = change.admit
        return loaded, digests, change

    @contextlib.contextmanager
    def _reported(self, cause: str) -> Iterator[None]:
        """Around what finds out whether the file can be used."""
        try:
            yield
        except ConfigError as error:
            self._show_broken(error, cause)
            raise
        except MountdError as error:
            log.error("cannot reload the configuration", cause=error.text, hint=error.hint)
            raise

    @contextlib.contextmanager
    def _shown(self, cause: str) -> Iterator[None]:
        """Around what carries out a change: what fails there leaves a part of it in effect, until mountd restarts."""
        try:
            yield
        except Exception as error:
            text = error.text if isinstance(error, MountdError) else f"{type(error).__name__}: {error}"
            hint = error.hint if isinstance(error, MountdError) else ""
            log.error("configuration is only partly in effect", cause=text, hint=hint, reload=cause)
            self._board.set_config(replace(self._board.snapshot.config, incomplete=text))
            raise

    def _compare(self, loaded: Loaded, digests: Digests) -> Change:
        return compare(self._members.settings, loaded.settings, self._digests, digests, root=os.geteuid() == 0)

    async def _read(self) -> tuple[Loaded, Digests]:
        """What the file and the secrets say at the same time: a ConfigMap may be swapped between one and the other.

        Raises ConfigError.
        """
        for _ in range(READINGS):
            loaded, digests = await self._read_once()
            if (await self._on_disk(lambda: load(self._source))).settings == loaded.settings:
                break
        return loaded, digests

    async def _read_once(self) -> tuple[Loaded, Digests]:
        running = self._files(self._members.settings)
        await self._refuse_on_mounts([self._source])
        loaded = await self._on_disk(lambda: load(self._source))
        wanted = self._files(loaded.settings)
        # Before secrets are read, so that no change is missed; those of both, whichever of the two is used.
        await self._in_time(self._watch.follow([*wanted, *running]))
        await self._refuse_on_mounts(wanted)
        problems = await self._on_disk(lambda: check_secrets(loaded.settings, loaded.lines))
        if problems:
            raise ConfigError(str(self._source), problems)
        return loaded, await self._on_disk(lambda: _digests(loaded.settings))

    def _files(self, settings: Settings) -> list[Path]:
        paths = (reference.path for _, reference in settings.secrets())
        return [self._source, *(path for path in paths if path is not None)]

    async def _refuse_on_mounts(self, paths: Iterable[Path]) -> None:
        mounts, wanted = self._members.mount_points(), tuple(paths)
        for path, found in await self._on_disk(lambda: [(each, trail(each, mounts)) for each in wanted]):
            if found.mount:
                text = f"{path} must be on local disk, but lies on the mount {found.mount}"
                raise ConfigError(str(self._source), [Problem("", 0, text)])

    async def _check(self, loaded: Loaded, digests: Digests) -> Change:
        """What to do; everything that can fail has been tried afterwards. Raises ConfigError."""
        new = loaded.settings
        change = self._compare(loaded, digests)
        problems = [_problem(loaded, place, NEEDS_RESTART) for place in change.refused]
        problems += await asyncio.to_thread(self._wrong_flags, loaded, change)
        for name in change.relink:
            try:
                link.check(new.models[name].link)
                if not new.allow_unsafe_paths:
                    link.refuse_unsafe(new.models[name].link)
            except LinkBlocked as error:
                problems.append(_problem(loaded, ("models", name, "link"), f"{error.text}; {error.hint}"))
        for name in (*change.added.models, *change.switch):  # a journal that cannot be written is known before
            await self._journal.commit(name, await self._journal.committed(name))
        if not problems and (change.listen or change.admit):
            try:
                await self.port.change(new.http, move=change.listen)
            except MountdError as error:
                problems.append(_problem(loaded, ("http", "listen"), error.text))
        if problems:
            hint = RESTART_HINT if change.refused else ""  # the file by itself is valid
            raise ConfigError(str(self._source), [*first_problems(problems)], hint=hint)
        return change

    def _wrong_flags(self, loaded: Loaded, change: Change) -> list[Problem]:
        problems: list[Problem] = []
        lines = {dotted(place): line for place, line in loaded.lines.items()}
        for name in (*change.remount, *change.replace, *change.added.mounts):
            try:
                self._members.check_mount(loaded.settings, name)
            except ConfigError as error:
                problems += [Problem(each.path, lines.get(each.path, 0), each.text) for each in error.problems]
            if len(problems) > MAX_PROBLEMS:
                break
        return problems

    # -- reports -------------------------------------------------------------------------------------------------

    def _report(self, change: Change) -> ReloadDocument:
        return ReloadDocument(
            schema=SCHEMA,
            changed=[dotted(place) for place in change.places],
            restarted=[*change.remount, *change.replace, *change.restart, *change.follow],
            in_place=[dotted(place) for place in change.in_place],
        )

    def _show(self, done: ReloadDocument, loaded: Loaded, cause: str) -> None:
        before = self._board.snapshot.config
        for warning in loaded.warnings:
            if warning not in before.warnings:
                log.warning("configuration warning", cause=str(warning))
        left = (Problem("", 0, f"{reason.text}; {reason.hint}") for reason in self._members.left.values())
        changed, restarted = done["changed"], done["restarted"]
        report = log.info if changed or before.problems else log.debug
        report("configuration reloaded", cause=cause, changed=changed, restarted=restarted, in_place=done["in_place"])
        self._board.set_config(
            ConfigStatus(
                source=before.source,
                loaded=now_text() if changed else before.loaded,
                # Who edits and then asks may come second: the watch was faster. What it did is still to be seen.
                summary=f"changed {', '.join(changed)} and restarted {', '.join(restarted) or 'nothing'}"
                if changed
                else before.summary,
                warnings=(*loaded.warnings, *left),
                incomplete=before.incomplete,
            )
        )

    def _show_broken(self, error: ConfigError, cause: str) -> None:
        before = self._board.snapshot.config
        problems = tuple(error.problems)
        report = log.debug if problems == before.problems else log.warning
        report(
            "configuration invalid, keeping the previous one", cause=cause, problems=[str(each) for each in problems]
        )
        self._board.set_config(replace(before, problems=problems, hint=error.hint))


def _problem(loaded: Loaded, place: Place, text: str) -> Problem:
    return Problem(dotted(place), line_of(place, loaded.lines), text)


def _digests(settings: Settings) -> Mapping[Place, str]:
    """Of every secret that can be read; "" for one that cannot."""
    found = {}
    for place, reference in settings.secrets():
        try:
            secret = reference.read().encode()
        except CannotStart:
            found[place] = ""
        else:
            found[place] = hashlib.blake2b(secret, key=_KEY, digest_size=16).hexdigest()
    return found
