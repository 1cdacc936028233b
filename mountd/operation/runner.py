"""Executes one switch step by step, journals each step before and after, and undoes the switch if a step fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from mountd.errors import MountdError, Refused, RolledBack
from mountd.journal.journal import Committed, Journal, OperationRecord
from mountd.model.content import Content
from mountd.model.model import Model
from mountd.operation import rules
from mountd.operation.plan import Step, SwitchPlan, Undo, changes, undo
from mountd.operation.show import Display
from mountd.operation.steps import RestartableApp, Steps, each
from mountd.process import resources
from mountd.status.board import Board
from mountd.status.snapshot import Health, Snapshot

log = structlog.get_logger()

BUCKET_LIMIT_S = 10.0
"""For one bucket probe, before a version is blamed."""


@dataclass
class Job:
    record: OperationRecord
    plan: SwitchPlan
    model: Model
    apps: Sequence[RestartableApp]
    cancelled_by: str = ""
    forward: asyncio.Task[None] | None = None
    """its steps, as long as none has failed"""
    step: Step | None = None
    """the present one, else the last one"""
    is_over: bool = False
    """its steps are done: it is committed or being undone"""

    def cancel(self, operator: str) -> None:
        """Undoes it; does nothing if it is being undone already. Raises Refused when it is too late."""
        if self.step is Step.COMMIT:
            raise Refused(
                f"cannot cancel: {self.record.model} is being committed to {self.record.to_version}",
                hint="`mountd rollback` goes back",
            )
        if self.is_over:
            return
        self.cancelled_by = self.cancelled_by or operator
        if self.forward is not None:
            self.forward.cancel()


@dataclass(frozen=True, slots=True)
class OperationOutcome:
    """`result` is committed, refused, rolled-back, failed, cancelled or interrupted, of a drill also passed. `failure`
    is None for committed and passed. `retryable`: the same may succeed later by itself."""

    result: str
    failure: MountdError | None = None
    retryable: bool = False


@dataclass
class _Trail:
    """What was before the operation, and what it has done so far."""

    before: Content | None
    former: Committed
    restarts: int
    """of the mount, when it began"""
    begun: list[Step] = field(default_factory=list)
    unwell: bool = False
    """mount or bucket were not healthy at some moment since"""


class Runner:
    def __init__(self, board: Board, journal: Journal, display: Display) -> None:
        self._board = board
        self._journal = journal
        self._display = display

    async def run(self, job: Job) -> OperationOutcome:
        """Returns its outcome, also when it is cancelled: then the link is at the committed version."""
        mount = self._board.snapshot.mounts[job.model.settings.mount]
        trail = _Trail(job.model.live_content(), job.model.committed, mount.restarts)
        observing = asyncio.create_task(self._observe(job, trail))
        with contextlib.ExitStack() as taken:
            taken.enter_context(job.model.held(job.record.to_version))
            try:
                return await self._carry_out(job, trail, taken)
            except asyncio.CancelledError:
                return await self._interrupt(job, trail)
            finally:
                observing.cancel()

    # -- forward --------------------------------------------------------------------------------------------------

    async def _carry_out(self, job: Job, trail: _Trail, taken: contextlib.ExitStack) -> OperationOutcome:
        work = Steps(job.record.id, job.plan, job.model, job.apps, self._board, self._journal, self._display)
        job.forward = asyncio.create_task(self._go_forward(job, trail, work, taken))
        if job.cancelled_by:  # before its first step
            job.forward.cancel()
        try:
            await job.forward
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            error = MountdError(f"cannot {job.record.action}: cancelled by {job.cancelled_by}")
        except MountdError as failure:
            error = failure
        else:
            return OperationOutcome("committed")
        finally:
            job.forward, job.is_over = None, True
        job.step = None
        return await self._go_back(job, trail, error, work.content)

    async def _go_forward(self, job: Job, trail: _Trail, work: Steps, taken: contextlib.ExitStack) -> None:
        for step in job.plan.steps:
            if changes(step) and not any(map(changes, trail.begun)):
                # Until here supervision goes on: an app that crashes is restarted, a link that drifts is healed.
                taken.enter_context(job.model.link.moving())
                for app in job.apps:
                    taken.enter_context(app.held())
            trail.begun.append(step)
            job.step = step
            await self._journal.begin_step(job.record.id, step)
            self._display.step(job.record, step, job.plan.limit_of(step))
            with resources.as_exhausted():
                await work.do(step)
            if step is not Step.COMMIT:
                await self._journal.end_step(job.record.id, step, "done")
        # From here on it has taken place, even if the journal cannot be written.
        with _logged("journal the result of a step"):
            await self._journal.end_step(job.record.id, Step.COMMIT, "done")
        if job.plan.force and work.content is not None:
            with _logged("release a version from quarantine"):
                await self._journal.release(job.model.name, work.content.digest)

    # -- back -----------------------------------------------------------------------------------------------------

    async def _go_back(self, job: Job, trail: _Trail, error: MountdError, content: Content | None) -> OperationOutcome:
        failed = trail.begun[-1] if trail.begun else None
        log.warning("operation failed", operation=job.record.id, step=str(failed or ""), cause=error.text)
        if failed is not None:
            with _logged("journal the result of a step"):
                outcome = "cancelled" if job.cancelled_by else "failed"
                await self._journal.end_step(job.record.id, failed, outcome, cause=error.text)
        # At the same time: the previous version must not wait for the bucket's answer, and a crash in the undo must not
        # lose what is known of the bad one.
        judging = asyncio.create_task(self._judge(job, trail, error, content))
        try:
            worse = await self._undo(job, trail)
            quarantined = await judging
        finally:
            judging.cancel()
        if quarantined and content is not None and worse is not None and rules.is_of_the_app(worse):
            quarantined = not await self._acquit(job, content)
        retryable = rules.is_retryable(error, quarantined=quarantined, cancelled=bool(job.cancelled_by))
        return _outcome(job, trail, error, worse, quarantined=quarantined, retryable=retryable)

    async def _undo(self, job: Job, trail: _Trail) -> MountdError | None:
        """Undoes all it can; the first failure, None: all is undone.

        A journal or a step that fails does not stop it: an app that is stuck must find the right link once it can be
        started again.
        """
        first: MountdError | None = None
        for step in undo(trail.begun):
            with _logged("journal a step of the undo"):
                await self._journal.begin_step(job.record.id, step)
            self._display.step(job.record, step, job.plan.limit_of(step))
            outcome = "done"
            try:
                with resources.as_exhausted():
                    await self._undo_step(step, job, trail)
            except MountdError as worse:
                log.error("cannot undo a step", operation=job.record.id, step=str(step), cause=worse.text)
                first, outcome = first or worse, "failed"
            with _logged("journal the result of a step"):
                await self._journal.end_step(job.record.id, step, outcome)
        if first is not None:
            for app in job.apps:
                app.want()  # its supervisor keeps trying
        return first

    async def _undo_step(self, step: Undo, job: Job, trail: _Trail) -> None:
        match step:
            case Undo.STOP_NEW:
                await each(app.stop() for app in job.apps)
            case Undo.FLIP_BACK:
                await job.model.flip(trail.before)
                if Step.COMMIT in trail.begun:
                    with _logged("take a commit back"):
                        await job.model.state.revert()
            case Undo.START_OLD if trail.before is None:
                for app in job.apps:
                    app.want()  # as before: it waits for a first version
            case Undo.START_OLD:
                await each(app.begin() for app in job.apps)
                await each(app.become_ready() for app in job.apps)

    async def _interrupt(self, job: Job, trail: _Trail) -> OperationOutcome:
        """mountd stops, maybe during an undo. The next start goes by what is committed: the link must agree with it."""
        if Step.COMMIT in trail.begun:
            # Only the journal knows whether a commit that was cancelled took place.
            with _logged("see whether the commit took place"):
                if (await self._journal.committed(job.model.name)).current == job.record.to_version:
                    return OperationOutcome("committed")
        if Step.FLIP in trail.begun:
            with _logged("point the link back"):
                await job.model.flip(trail.before)
        if trail.begun:
            with _logged("journal the result of a step"):
                await self._journal.end_step(job.record.id, trail.begun[-1], "interrupted")
        text = f"cannot {job.record.action}: mountd was stopped"
        if not any(changes(step) for step in trail.begun):
            return OperationOutcome("interrupted", MountdError(text))
        return OperationOutcome("rolled-back", RolledBack(f"{text}; the link is at {_live(trail)} again"))

    # -- whose fault ----------------------------------------------------------------------------------------------

    async def _observe(self, job: Job, trail: _Trail) -> None:
        while True:
            trail.unwell = trail.unwell or not _is_well(self._board.snapshot, job, trail)
            await self._board.changed()

    async def _judge(self, job: Job, trail: _Trail, error: MountdError, content: Content | None) -> bool:
        """Puts the version into quarantine if the failure is its own fault; whether it is there now."""
        if content is None or not trail.begun or job.cancelled_by:
            return False
        failed = trail.begun[-1]
        # The last bucket probe is some seconds old: a new one comes before any blame.
        if trail.unwell or not rules.own_fault(failed, error, mount_well=True) or not await _answers(job.model):
            return False
        try:
            await self._journal.quarantine(
                job.model.name,
                content.digest,
                version=content.version,
                operation=job.record.id,
                cause=error.text,
            )
        except MountdError as worse:
            log.error("cannot put a version into quarantine", cause=worse.text, hint=worse.hint)
            return False
        log.warning("version is in quarantine", version=content.version, digest=content.digest, cause=error.text)
        return True

    async def _acquit(self, job: Job, content: Content) -> bool:
        """The previous version fails in the same way, so the machine is at fault. False: it stays in quarantine."""
        if job.plan.force:
            return False  # it may have stood there before
        try:
            await self._journal.release(job.model.name, content.digest)
        except MountdError as error:
            log.error("cannot release a version from quarantine", cause=error.text, hint=error.hint)
            return False
        log.warning("version released from quarantine: the previous one fails as well", version=content.version)
        return True


def _outcome(
    job: Job, trail: _Trail, error: MountdError, worse: MountdError | None, *, quarantined: bool, retryable: bool
) -> OperationOutcome:
    what = f"cannot {job.record.action}"
    hint = error.hint
    if quarantined:
        hint += ("; " if hint else "") + f"{job.record.to_version} is refused until what it holds changes, or --force"
    if not any(changes(step) for step in trail.begun):
        if quarantined:
            error = Refused(error.text, hint=hint)
        result = "cancelled" if job.cancelled_by else "refused" if rules.is_refusal(error) else "failed"
        return OperationOutcome(result, error, retryable)
    if worse is not None:
        text = f"{error.text}; and then, going back to {_live(trail)}: {worse.text}"
        return OperationOutcome("failed", MountdError(text, hint=worse.hint or error.hint))
    text = error.text if error.text.startswith(what) else f"{what}: {error.text}"
    return OperationOutcome("rolled-back", RolledBack(f"{text}; {_live(trail)} is live again", hint=hint), retryable)


def _live(trail: _Trail) -> str:
    return trail.before.version if trail.before else "nothing"


def _is_well(snapshot: Snapshot, job: Job, trail: _Trail) -> bool:
    mount = snapshot.mounts[job.model.settings.mount]
    return mount.usable and mount.restarts == trail.restarts and mount.backend.health is not Health.DEGRADED


async def _answers(model: Model) -> bool:
    try:
        async with asyncio.timeout(BUCKET_LIMIT_S):
            await model.versions.ask_bucket()
    except (MountdError, TimeoutError):
        return False
    return True


def _is_cancelled() -> bool:
    """Whether this task is cancelled; else what it waited for is."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """Around what must not stop an undo: logs its failure and goes on."""
    try:
        yield
    except MountdError as error:
        log.error(f"cannot {what}", cause=error.text, hint=error.hint)
