"""Carries out one drill: makes the fault, measures its detection and repair, and always removes it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import structlog

from mountd.errors import DiskError, MountdError, Refused, Unavailable
from mountd.files.client import Files
from mountd.journal.journal import Drilled, Journal, OperationRecord
from mountd.mount.mount import RcloneMount
from mountd.operation import drill_plan as plans
from mountd.operation.drill_plan import DrillKind, DrillPlan, Measured
from mountd.operation.results import logged
from mountd.operation.runner import OperationOutcome
from mountd.operation.switch import Operations
from mountd.process.instance import Instance
from mountd.process.lifecycle import RestartAsked
from mountd.process.supervisor import Supervisor
from mountd.process.throttle import Throttle
from mountd.rclone.binary import Binary
from mountd.settings.profiles import cache_mode
from mountd.settings.schema import Settings
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot

log = structlog.get_logger()

PATIENCE_S = 30.0
"""Waited beyond a limit, to measure by how much it was missed."""
REMOUNT_S = 60.0
"""For a planned remount, without its drain and without its models and apps."""
TOUCH_S = 5.0
TOUCH_AGAIN_S = 0.1
TOUCH_BYTES = 4096
END_LIMIT_S = 1.0
"""To remove a fault when mountd stops."""


@dataclass(frozen=True, slots=True)
class DrillDeps:
    """What a drill looks at and acts on: the present objects, by name."""

    settings: Callable[[], Settings]
    mounts: Mapping[str, RcloneMount]
    supervisors: Mapping[str, Supervisor]
    probe_paths: Callable[[str], Sequence[str]]
    """of a mount: files that are worth reading, best first, relative to it"""
    board: Board
    operations: Operations
    journal: Journal
    instance: Instance
    binary: Binary


class DrillRunner:
    def __init__(self, deps: DrillDeps) -> None:
        self._deps = deps
        self._board = deps.board
        self._throttle: Throttle | None = None

    def limit_s(self, plan: DrillPlan) -> float:
        """The longest time that the drill may take."""
        limits = plan.limits
        measured_s = limits.detected_s + limits.ready_again_s + 2 * PATIENCE_S
        if plan.kind.breaks_rclone:
            return measured_s
        return 2 * self._remount_limit_s(plan) + plan.for_s + measured_s

    def _remount_limit_s(self, plan: DrillPlan) -> float:
        """For a planned remount, until its models and apps are ready again."""
        settings = self._deps.settings()
        mount, apps = settings.mounts[plan.mount], {name: settings.apps[name] for name in plan.apps}
        return mount.drain + REMOUNT_S + plans.make(DrillKind.KILL, plan.mount, mount, None, apps).limits.ready_again_s

    # -- doing ----------------------------------------------------------------------------------------------------

    async def run(self, plan: DrillPlan, record: OperationRecord) -> OperationOutcome:
        """Carries out the whole drill. Cancelled, it removes the fault and returns `interrupted`."""
        log.warning("drill started", mount=plan.mount, fault=str(plan.kind), operator=record.operator)
        touch = Files(f"{plan.mount}-drill", self._deps.instance.marks(f"{plan.mount}-drill"))
        try:
            if plan.kind.breaks_rclone:
                measured = await self._break_rclone(plan, record, touch)
            else:
                measured = await self._break_bucket(plan, record, touch)
        except asyncio.CancelledError:
            return OperationOutcome("interrupted", MountdError("mountd was stopped"))
        except MountdError as error:
            return OperationOutcome("refused" if isinstance(error, Refused) else "failed", error)
        finally:
            await touch.close()
        return await self._judge(plan, record, measured)

    async def _judge(self, plan: DrillPlan, record: OperationRecord, measured: Measured) -> OperationOutcome:
        missed = plans.shortfalls(plan, measured)
        drilled = Drilled(
            operation=record.id,
            kind=str(plan.kind),
            mount=plan.mount,
            detected_s=measured.detected_s,
            serving_again_s=measured.serving_again_s,
            ready_again_s=measured.ready_again_s,
            app_restarted=measured.app_restarted,
            passed=not missed,
            details=json.dumps(
                {
                    "for_s": None if plan.kind.breaks_rclone else plan.for_s,
                    "limits": asdict(plan.limits),
                    "rclone_restarted": measured.rclone_restarted,
                    "cached_reads": measured.cached_reads,
                    "shortfalls": missed,
                }
            ),
        )
        with logged("journal a drill", operation=record.id):
            await self._deps.journal.record_drill(drilled)
        log.info(
            "drill finished",
            mount=plan.mount,
            fault=str(plan.kind),
            passed=not missed,
            detected_s=measured.detected_s,
            serving_again_s=measured.serving_again_s,
            ready_again_s=measured.ready_again_s,
        )
        if missed:
            text = f"the drill {plan.kind} of {plan.mount} has not passed: {'; '.join(missed)}"
            return OperationOutcome(
                "failed", MountdError(text, hint=f"see `mountd logs {plan.mount}` and `mountd status`")
            )
        return OperationOutcome("passed")

    # -- rclone breaks --------------------------------------------------------------------------------------------

    async def _break_rclone(self, plan: DrillPlan, record: OperationRecord, touch: Files) -> Measured:
        limits, before = plan.limits, self._board.snapshot
        child = self._deps.supervisors[plan.mount].child
        if child is None or plans.unfit(before, plan):
            raise Refused(f"cannot drill {plan.mount}: it is not healthy any more")
        measured = Measured()
        began = time.monotonic()
        child.signal(signal.SIGKILL if plan.kind is DrillKind.KILL else signal.SIGSTOP)
        try:
            found = await self._reach(
                lambda now: plans.is_down(now, before, plan), began + limits.detected_s + PATIENCE_S
            )
            if found is None:
                return measured
            measured = replace(measured, detected_s=_since(began, found), rclone_restarted=True)
            await self._deps.operations.show_step(record, "recover")
            deadline = began + limits.serving_again_s + PATIENCE_S
            served = await self._reach(
                lambda now: plans.is_replaced(now, before, plan) and plans.is_serving(now, plan), deadline
            )
            if served is None or not await self._reads(plan, touch, deadline):
                return measured
            measured = replace(measured, serving_again_s=_since(began, time.monotonic()))
            ready = await self._reach(
                lambda now: plans.is_ready_after_remount(now, before, plan),
                began + limits.ready_again_s + PATIENCE_S,
            )
            restarted = plans.disturbed(self._board.snapshot, before, plan)
            return replace(
                measured, ready_again_s=None if ready is None else _since(began, ready), app_restarted=restarted
            )
        finally:
            if child.exit is None:
                child.signal(signal.SIGCONT)

    # -- the bucket breaks ----------------------------------------------------------------------------------------

    async def _break_bucket(self, plan: DrillPlan, record: OperationRecord, touch: Files) -> Measured:
        await self.close()  # the proxy of a drill that was cancelled
        throttle = self._throttle = await Throttle.start(self._deps.instance.marks(f"{plan.mount}-throttle"))
        try:
            try:
                await self._remount(plan, throttle)
                await self._deps.operations.show_step(record, "fault")
                measured = await self._measure_outage(plan, record, throttle, touch)
            except MountdError:
                await self._restore(plan, record, throttle)
                raise
            await self._restore(plan, record, throttle)
        except asyncio.CancelledError:
            # The proxy stays: rclone may have to upload through it.
            with contextlib.suppress(MountdError, TimeoutError):
                async with asyncio.timeout(END_LIMIT_S):
                    await throttle.set("none")
            self._deps.mounts[plan.mount].detour({})
            if not self._board.snapshot.stopping:
                self._deps.supervisors[plan.mount].post(RestartAsked("a drill was cancelled"))
            raise
        return measured

    async def _remount(self, plan: DrillPlan, throttle: Throttle | None) -> None:
        """Remounts, with the proxy or without; returns when all is ready again. Raises Unavailable, Refused."""
        before = self._board.snapshot
        self._deps.mounts[plan.mount].detour(plans.proxy_variables(throttle.url) if throttle else {})
        supervisor = self._deps.supervisors[plan.mount]
        supervisor.post(RestartAsked(f"a drill needs it {'to go through a proxy' if throttle else 'as it was'}"))
        deadline = time.monotonic() + self._remount_limit_s(plan)
        if await self._reach(lambda now: plans.is_ready_after_remount(now, before, plan), deadline) is None:
            where = "through the proxy of the drill" if throttle else "after the drill"
            raise Unavailable(f"cannot remount {plan.mount} {where}: it is not ready again", hint="see `mountd status`")
        if throttle is None:
            return
        if supervisor.child is not None:
            await throttle.used_by(supervisor.child.pid)
        if not await throttle.requests():
            raise Refused(
                f"cannot drill {plan.kind} on {plan.mount}: its rclone does not go through a proxy",
                hint="nothing was made slow or cut off; `mountd drill kill` and `mountd drill hang` work",
            )

    async def _restore(self, plan: DrillPlan, record: OperationRecord, throttle: Throttle) -> None:
        """Removes fault and proxy. Raises Unavailable."""
        with contextlib.suppress(MountdError):  # a dead proxy is one more reason to remount
            await throttle.set("none")
        await self._deps.operations.show_step(record, "restore")
        try:
            await self._remount(plan, None)
        except MountdError:
            await self.close()
            raise
        await self.close()

    async def _measure_outage(
        self, plan: DrillPlan, record: OperationRecord, throttle: Throttle, touch: Files
    ) -> Measured:
        can_read = await self._reads(plan, touch, time.monotonic() + PATIENCE_S)
        cached = can_read and cache_mode(self._deps.settings().mounts[plan.mount]) == "full"
        before, measured = self._board.snapshot, Measured()
        began = time.monotonic()
        await throttle.set("slow" if plan.kind is DrillKind.SLOW else "offline", delay_s=plans.DELAY_S)
        until = began + plan.for_s
        found = await self._reach(lambda now: plans.is_suspect(now, plan), until)
        if found is not None:
            measured = replace(measured, detected_s=_since(began, found))
        if cached:
            measured = replace(measured, cached_reads=await self._reads(plan, touch, time.monotonic() + TOUCH_S))
        await asyncio.sleep(max(0.0, until - time.monotonic()))
        lifted = time.monotonic()
        await throttle.set("none")
        await self._deps.operations.show_step(record, "recover")
        deadline = lifted + plan.limits.ready_again_s + PATIENCE_S
        if found is not None:
            served = await self._reach(lambda now: plans.is_serving(now, plan), deadline)
            ready = await self._reach(lambda now: plans.is_ready_after_outage(now, plan), deadline)
            measured = replace(
                measured,
                serving_again_s=None if served is None else _since(lifted, served),
                ready_again_s=None if ready is None else _since(lifted, ready),
            )
        now = self._board.snapshot
        return replace(
            measured,
            rclone_restarted=plans.is_replaced(now, before, plan)
            or now.mounts[plan.mount].pid != before.mounts[plan.mount].pid,
            app_restarted=plans.disturbed(now, before, plan),
        )

    # -- looking --------------------------------------------------------------------------------------------------

    async def _reach(self, holds: Callable[[Snapshot], bool], deadline: float) -> float | None:
        """When it first held (monotonic); None: it did not until the deadline."""
        try:
            await self._board.wait_until(holds, max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return None
        return time.monotonic()

    async def _reads(self, plan: DrillPlan, touch: Files, deadline: float) -> bool:
        """Whether something can be read through the mount; tries until the deadline."""
        while True:
            try:
                await self._touch(plan, touch)
            except DiskError as error:
                if time.monotonic() + TOUCH_AGAIN_S >= deadline:
                    log.info("drill cannot read through the mount", mount=plan.mount, cause=error.text)
                    return False
                await asyncio.sleep(TOUCH_AGAIN_S)
            else:
                return True

    async def _touch(self, plan: DrillPlan, touch: Files) -> None:
        """Reads a file that proved the mount, else lists a name in the root. Raises DiskError."""
        for path in self._deps.probe_paths(plan.mount):
            try:
                await touch.read(f"{plan.path}/{path}", length=TOUCH_BYTES, timeout_s=TOUCH_S)
            except DiskError as error:
                if error.errno != errno.ENOENT:
                    raise
            else:
                return
        await touch.list(plan.path, limit=1, timeout_s=TOUCH_S)

    # -- stop -----------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stops the proxy of an interrupted drill; call it after the mounts are closed, which still use the proxy."""
        throttle, self._throttle = self._throttle, None
        if throttle is not None:
            await throttle.close()


def _since(began: float, at: float) -> float:
    return round(at - began, 3)
