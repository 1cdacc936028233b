"""Carries out a reload, in an order in which nothing uses what is removed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial

import structlog

from mountd.daemon import logs
from mountd.daemon.members import Members
from mountd.errors import JournalError, MountdError
from mountd.operation.desired import DesiredVersions
from mountd.process.lifecycle import RestartAsked
from mountd.settings.change import Change, remounting
from mountd.settings.notify import NotifySettings
from mountd.settings.schema import Settings
from mountd.status.board import Board
from mountd.status.snapshot import State

log = structlog.get_logger()

CAUSE = "the configuration was changed"
JOURNAL_S = 30.0
"""How long another program may hold the journal while a new model is read from it, which says what is live."""
JOURNAL_AGAIN_S = 0.5
STUCK = (State.BACKOFF, State.FAILED)
ApplyNotify = Callable[[Mapping[str, NotifySettings]], Awaitable[None]]
"""From now on these targets are notified."""


class Applier:
    """`apply` is called while no operation runs, and for one change at a time."""

    def __init__(self, members: Members, desired: DesiredVersions, board: Board, notify: ApplyNotify) -> None:
        self._members = members
        self._notify = notify
        self._desired = desired
        self._board = board
        self._following: dict[str, asyncio.Task[None]] = {}

    def tasks(self) -> list[asyncio.Task[None]]:
        """Tasks that wait to change something later."""
        return [*self._following.values(), *self._desired.tasks()]

    async def apply(self, change: Change, new: Settings) -> Change:
        """Returns the change as carried out: a secret may need a remount.

        Removes from the top down and adds from the bottom up, so that nothing uses what is removed.
        Whatever it raises, only a part of the change is carried out then, and apps that it stopped start again.
        """
        members, old = self._members, self._members.settings
        gone = {*change.removed.mounts, *change.replace}
        stopped = {name for name in old.apps if name in new.apps and gone & set(old.mounts_of(old.apps[name]))}
        try:
            removing = (members.remove_app(name) for name in change.removed.apps)
            await asyncio.gather(*removing, *(members.stop_app(name) for name in stopped))
            change = await self._change_members(change, old, new)
        finally:
            if not self._board.snapshot.stopping:  # else a stop has cancelled this, and stops all apps
                for name in stopped:
                    members.apps[name].want()
        await self._notify(new.notify)
        self._restart_apps(change, stopped, old)
        # A model that moves to another mount or directory has lost its pending switch.
        for name in dict.fromkeys((*change.switch, *change.restart_models)):
            await self._desired.declare(name)
        return change

    async def _change_members(self, change: Change, old: Settings, new: Settings) -> Change:
        """While the affected apps are stopped → the change as carried out."""
        members = self._members
        members.settings = new
        logs.set_level(new.log.level)
        await self._change_models(change, old)
        for app in members.apps.values():
            app.reconfigure(new)
        for name in change.removed.models:
            await members.remove_model(name)
        for name in change.removed.mounts:
            await members.remove_mount(name, old.mounts[name])
        change = remounting(change, await self._change_mounts(change), new)
        for name in change.added.apps:
            members.add_app(name)
        for name in (
            *change.added.mounts,
            *change.replace,
            *change.added.models,
            *change.restart_models,
            *change.added.apps,
        ):
            members.begin(name)
        await members.outboxes.apply(new)
        return change

    async def _change_models(self, change: Change, old: Settings) -> None:
        """Onto the mounts that will be there: no model refers to a removed one."""
        members = self._members
        for name in (*change.restart_models, *change.removed.models):
            self._forget(name)
            await members.pause(name)
        for name in change.replace:
            await members.remove_mount(name, old.mounts[name])
            members.add_mount(name)  # at once, so that no snapshot is without it
        for name in change.added.mounts:
            members.add_mount(name)
        for name, model in members.models.items():
            if name not in change.removed.models:
                settings = members.settings.models[name]
                model.reconfigure(settings, members.mounts[settings.mount].disk)
        for name in change.added.models:
            members.add_model(name)
            await self._load(name)

    async def _load(self, name: str) -> None:
        """Waits up to JOURNAL_S for a journal that cannot be read. Raises MountdError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + JOURNAL_S
        while True:
            try:
                return await self._desired.load(name)
            except JournalError as error:
                if loop.time() >= deadline:
                    raise
                log.warning("waiting for the journal", model=name, cause=error.text, hint=error.hint)
            await asyncio.sleep(JOURNAL_AGAIN_S)

    async def _change_mounts(self, change: Change) -> Collection[str]:
        """Those that must be remounted for a secret that only a new rclone reads."""
        members = self._members
        stale = set()
        for mount in members.mounts.values():
            mount.reconfigure(members.settings)
        for name in change.remount:
            members.supervisors[name].post(RestartAsked(CAUSE))
        for name in change.credentials:
            if members.supervisors[name].life.state in STUCK:
                members.supervisors[name].post(RestartAsked("its credentials have changed"))
                continue
            try:
                if await members.mounts[name].refresh_credentials():
                    stale.add(name)
                    members.supervisors[name].post(RestartAsked("a secret has changed that only a new rclone reads"))
            except MountdError as error:  # the mount reports it when the store refuses the old ones
                log.warning("cannot give new credentials to a mount", mount=name, cause=error.text, hint=error.hint)
        return stale

    def _restart_apps(self, change: Change, stopped: Collection[str], old: Settings) -> None:
        members = self._members
        for name, app in members.apps.items():
            changed = name in old.apps and app.settings != old.apps[name]
            fixed = changed and app.supervisor.life.state in STUCK
            if fixed or (name in change.restart and name not in stopped):
                app.supervisor.post(RestartAsked(CAUSE))
        for name in change.restart_models:
            # One that was stopped starts once the model is live there, and would restart at once.
            following = (each for each in change.follow if each not in stopped)
            apps = [each for each in following if name in members.apps[each].settings.needs]
            if apps:
                follow = partial(self._restart_when_linked, name, apps)
                self._following[name] = self._members.tasks.keep(follow, f"follow {name}")

    async def _restart_when_linked(self, model: str, apps: Collection[str]) -> None:
        """Open files of an app stay valid until the model is live in its new place."""
        await self._board.wait_until(lambda snapshot: snapshot.models[model].linked)
        for name in apps:
            if name in self._members.apps:
                self._members.apps[name].supervisor.post(RestartAsked(f"{model} is elsewhere now"))

    def _forget(self, model: str) -> None:
        """Cancels what waits for this model."""
        self._desired.drop(model)
        if model in self._following:
            self._following.pop(model).cancel()
