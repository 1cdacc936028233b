"""Executes one switch step by step, journals each step before and after, and undoes the switch if a step fails."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import structlog

from mountd.errors import MountdError, Refused, RolledBack
from mountd.journal.journal import OperationRecord
from mountd.model.content import Content
from mountd.operation import rules
from mountd.operation.plan import Step, Undo, changes, undo
from mountd.operation.results import logged
from mountd.operation.steps import Steps, each
from mountd.process import resources
from mountd.status.snapshot import Health

log = structlog.get_logger()

BUCKET_LIMIT_S = 10.0
"""For one bucket probe, before a version is blamed."""


@dataclass(frozen=True, slots=True)
class OperationOutcome:
    """`result` is committed, refused, rolled-back, failed, cancelled or interrupted, of a drill also passed. `failure`
    is None for committed and passed. `retryable`: the same may succeed later by itself."""

    result: str
    failure: MountdError | None = None
    retryable: bool = False
    note: str = ""
    """what somebody has to know although it succeeded"""


class SwitchRun:
    """One switch: `run` it once."""

    def __init__(self, record: OperationRecord, work: Steps) -> None:
        self._record = record
        self._work = work
        self._plan, self._model, self._apps = work.plan, work.model, work.apps
        self._board, self._journal = work.board, work.journal
        self._before: Content | None = None
        """what was live when it began"""
        self._restarts = 0
        """of the mount, when it began"""
        self._unwell = False
        """mount or bucket were not healthy at some moment since"""
        self._begun: list[Step] = []
        self._forward: asyncio.Task[None] | None = None
        """its steps, as long as none has failed"""
        self._goes_back = False
        self._cancelled_by = ""

    async def run(self) -> OperationOutcome:
        """Returns its outcome, also when it is cancelled: then the link is at the committed version."""
        self._before = self._model.live_content()
        self._restarts = self._board.snapshot.mounts[self._model.settings.mount].restarts
        observing = asyncio.create_task(self._observe())
        with contextlib.ExitStack() as taken:
            taken.enter_context(self._model.held(self._record.to_version))
            try:
                return await self._carry_out(taken)
            except asyncio.CancelledError:
                return await self._interrupt()
            finally:
                observing.cancel()

    def cancel(self, operator: str) -> None:
        """Undoes it; does nothing if it is being undone already. Raises Refused when it is too late."""
        if self._goes_back:
            return
        if Step.COMMIT in self._begun:
            raise Refused(
                f"cannot cancel: {self._record.model} is being committed to {self._record.to_version}",
                hint="`mountd rollback` goes back",
            )
        self._cancelled_by = self._cancelled_by or operator
        if self._forward is not None:
            self._forward.cancel()

    # -- forward --------------------------------------------------------------------------------------------------

    async def _carry_out(self, taken: contextlib.ExitStack) -> OperationOutcome:
        self._forward = asyncio.create_task(self._go_forward(taken))
        if self._cancelled_by:  # before its first step
            self._forward.cancel()
        try:
            await self._forward
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            error = MountdError(f"cannot {self._record.action}: cancelled by {self._cancelled_by}")
        except MountdError as failure:
            error = failure
        else:
            note = "automatic sync is suspended until `mountd resume`" if self._plan.override else ""
            return OperationOutcome("committed", note=note)
        finally:
            self._forward = None
        self._goes_back = True
        return await self._go_back(error)

    async def _go_forward(self, taken: contextlib.ExitStack) -> None:
        for step in self._plan.steps:
            if changes(step) and not any(map(changes, self._begun)):
                # Until here supervision goes on: an app that crashes is restarted, a link that drifts is healed.
                taken.enter_context(self._model.link.moving())
                for app in self._apps:
                    taken.enter_context(app.held())
            self._begun.append(step)
            await self._journal.begin_step(self._record.id, step)
            self._work.display.step(self._record, step, self._plan.limit_of(step))
            with resources.as_exhausted():
                await self._work.do(step)
            if step is not Step.COMMIT:
                await self._journal.end_step(self._record.id, step, "done")
        # From here on it has taken place, even if the journal cannot be written.
        await self._end_step(Step.COMMIT, "done")
        if self._plan.force and self._work.content is not None:
            with logged("release a version from quarantine"):
                await self._journal.release(self._model.name, self._work.content.digest)

    # -- back -----------------------------------------------------------------------------------------------------

    async def _go_back(self, error: MountdError) -> OperationOutcome:
        failed = self._begun[-1] if self._begun else None
        log.warning("operation failed", operation=self._record.id, step=str(failed or ""), cause=error.text)
        if failed is not None:
            await self._end_step(failed, "cancelled" if self._cancelled_by else "failed", cause=error.text)
        # At the same time: the previous version must not wait for the bucket's answer, and a crash in the undo must not
        # lose what is known of the bad one.
        judging = asyncio.create_task(self._judge(error))
        try:
            worse = await self._undo()
            quarantined = await judging
        finally:
            judging.cancel()
        if quarantined and worse is not None and rules.is_of_the_app(worse):
            quarantined = not await self._acquit()
        return self._outcome(error, worse, quarantined=quarantined)

    async def _undo(self) -> MountdError | None:
        """Undoes all it can; the first failure, None: all is undone.

        A journal or a step that fails does not stop it: an app that is stuck must find the right link once it can be
        started again.
        """
        first: MountdError | None = None
        for step in undo(self._begun):
            with logged("journal a step of the undo"):
                await self._journal.begin_step(self._record.id, step)
            self._work.display.step(self._record, step, self._plan.limit_of(step))
            outcome = "done"
            try:
                with resources.as_exhausted():
                    await self._undo_step(step)
            except MountdError as worse:
                log.error("cannot undo a step", operation=self._record.id, step=str(step), cause=worse.text)
                first, outcome = first or worse, "failed"
            await self._end_step(step, outcome)
        if first is not None:
            for app in self._apps:
                app.want()  # its supervisor keeps trying
        return first

    async def _undo_step(self, step: Undo) -> None:
        match step:
            case Undo.STOP_NEW:
                await each(app.stop() for app in self._apps)
            case Undo.FLIP_BACK:
                await self._model.flip(self._before)
                if Step.COMMIT in self._begun:
                    with logged("take a commit back"):
                        await self._model.state.revert()
            case Undo.START_OLD if self._before is None:
                for app in self._apps:
                    app.want()  # as before: it waits for a first version
            case Undo.START_OLD:
                await each(app.begin() for app in self._apps)
                await self._work.wait_until_ready()

    async def _interrupt(self) -> OperationOutcome:
        """mountd stops, maybe during an undo. The next start goes by what is committed: the link must agree with it."""
        if Step.COMMIT in self._begun:
            # Only the journal knows whether a commit that was cancelled took place.
            with logged("see whether the commit took place"):
                if (await self._journal.committed(self._model.name)).current == self._record.to_version:
                    return OperationOutcome("committed")
        if Step.FLIP in self._begun:
            with logged("point the link back"):
                await self._model.flip(self._before)
        if self._begun:
            await self._end_step(self._begun[-1], "interrupted")
        text = f"cannot {self._record.action}: mountd was stopped"
        if not any(map(changes, self._begun)):
            return OperationOutcome("interrupted", MountdError(text))
        return OperationOutcome("rolled-back", RolledBack(f"{text}; the link is at {self._former} again"))

    async def _end_step(self, step: Step | Undo, outcome: str, *, cause: str = "") -> None:
        with logged("journal the result of a step"):
            await self._journal.end_step(self._record.id, step, outcome, cause=cause)

    @property
    def _former(self) -> str:
        return self._before.version if self._before else "nothing"

    def _outcome(self, error: MountdError, worse: MountdError | None, *, quarantined: bool) -> OperationOutcome:
        retryable = rules.is_retryable(error, quarantined=quarantined, cancelled=bool(self._cancelled_by))
        what = f"cannot {self._record.action}"
        hint = error.hint
        if quarantined:
            refused = f"{self._record.to_version} is refused until what it holds changes, or --force"
            hint += ("; " if hint else "") + refused
        if not any(map(changes, self._begun)):
            if quarantined:
                error = Refused(error.text, hint=hint, code=error.code)
            result = "cancelled" if self._cancelled_by else "refused" if rules.is_refusal(error) else "failed"
            return OperationOutcome(result, error, retryable)
        if worse is not None:
            text = f"{error.text}; and then, going back to {self._former}: {worse.text}"
            return OperationOutcome("failed", MountdError(text, hint=worse.hint or error.hint))
        text = error.text if error.text.startswith(what) else f"{what}: {error.text}"
        failure = RolledBack(f"{text}; {self._former} is live again", hint=hint)
        return OperationOutcome("rolled-back", failure, retryable)

    # -- whose fault ----------------------------------------------------------------------------------------------

    async def _observe(self) -> None:
        while True:
            mount = self._board.snapshot.mounts[self._model.settings.mount]
            is_same = mount.usable and mount.restarts == self._restarts
            self._unwell = self._unwell or not is_same or mount.backend.health is Health.DEGRADED
            await self._board.changed()

    async def _judge(self, error: MountdError) -> bool:
        """Puts the version into quarantine if the failure is its own fault; whether it is there now."""
        content = self._work.content
        if content is None or not self._begun or self._cancelled_by:
            return False
        # The last bucket probe is some seconds old: a new one comes before any blame.
        if not rules.own_fault(self._begun[-1], error, mount_well=not self._unwell) or not await self._answers():
            return False
        try:
            await self._journal.quarantine(
                self._model.name,
                content.digest,
                version=content.version,
                operation=self._record.id,
                cause=error.text,
            )
        except MountdError as worse:
            log.error("cannot put a version into quarantine", cause=worse.text, hint=worse.hint)
            return False
        log.warning("version is in quarantine", version=content.version, digest=content.digest, cause=error.text)
        return True

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(BUCKET_LIMIT_S):
                await self._model.versions.ask_bucket()
        except (MountdError, TimeoutError):
            return False
        return True

    async def _acquit(self) -> bool:
        """The previous version fails in the same way, so the machine is at fault. False: it stays in quarantine."""
        content = self._work.content
        if content is None or self._plan.force:
            return False  # it may have stood there before
        try:
            await self._journal.release(self._model.name, content.digest)
        except MountdError as error:
            log.error("cannot release a version from quarantine", cause=error.text, hint=error.hint)
            return False
        log.warning("version released from quarantine: the previous one fails as well", version=content.version)
        return True


def _is_cancelled() -> bool:
    """Whether this task is cancelled; else what it waited for is."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
