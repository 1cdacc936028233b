"""Accepts a drill, a rehearsed fault on the running system, or refuses it."""

from __future__ import annotations

import os
from dataclasses import dataclass

from mountd.errors import NotFound, Refused, UsageError
from mountd.journal.journal import OperationRecord
from mountd.operation import drill_plan as plans
from mountd.operation.desired import Request
from mountd.operation.drill_plan import BucketRoute, DrillKind, DrillPlan
from mountd.operation.drill_runner import DrillDeps, DrillRunner
from mountd.settings.units import parse_duration
from mountd.text import did_you_mean


@dataclass(frozen=True, slots=True)
class StartedDrill:
    """`record` is None for a dry run. `limit_s`: how long the drill may take in all."""

    plan: DrillPlan
    record: OperationRecord | None
    limit_s: float


class Drills:
    def __init__(self, deps: DrillDeps) -> None:
        self._deps = deps
        self._runner = DrillRunner(deps)

    async def ask(self, kind: str, mount: str | None, for_: str | None, request: Request) -> StartedDrill:
        """Raises UsageError, NotFound, Busy, and Refused when it would prove nothing or cannot be done."""
        plan = self._plan(kind, mount, for_)
        limit_s = self._runner.limit_s(plan)
        self._deps.operations.check_may_begin("drill")
        why = plans.unfit(self._deps.board.snapshot, plan)
        if why:
            raise Refused(
                f"cannot drill {plan.mount}: {why}",
                hint="a drill proves something only on a healthy system; see `mountd status`",
            )
        if not plan.kind.breaks_rclone and (why := plans.no_way(self._way(plan.mount))):
            raise Refused(
                f"cannot drill {plan.kind} on {plan.mount}: {why}",
                hint="`mountd drill kill` and `mountd drill hang` work with every bucket",
            )
        if request.dry_run:
            return StartedDrill(plan, None, limit_s)
        record = await self._deps.operations.begin_exclusive(
            kind="drill",
            target=plan.mount,
            wanted=str(plan.kind),
            request=request,
            step="fault" if plan.kind.breaks_rclone else "detour",
            work=lambda record: self._runner.run(plan, record),
        )
        return StartedDrill(plan, record, limit_s)

    def _plan(self, kind: str, mount: str | None, for_: str | None) -> DrillPlan:
        settings = self._deps.settings()
        kinds = ", ".join(DrillKind)
        if kind not in list(DrillKind):
            near = did_you_mean(kind, DrillKind)
            raise UsageError(
                f"cannot drill {kind!r}: no such drill", hint=f"{did_you_mean(kind, DrillKind)}drills: {kinds}"
            )
        if mount is None:
            if len(settings.mounts) > 1:
                raise UsageError(f"cannot choose a mount: say which with --mount: {', '.join(settings.mounts)}")
            mount = next(iter(settings.mounts))
        if mount not in settings.mounts:
            near = did_you_mean(mount, settings.mounts)
            raise NotFound(f"cannot find the mount {mount}", hint=f"{near}mounts: {', '.join(settings.mounts)}")
        for_s = None
        if for_ is not None:
            if DrillKind(kind).breaks_rclone:
                raise UsageError(
                    f"cannot drill {kind} for {for_}: it lasts until mountd has repaired it",
                    hint="--for is for slow and offline",
                )
            try:
                for_s = parse_duration(for_)
            except ValueError as error:
                raise UsageError(f"cannot drill for that long: {error}") from None
            if not 1.0 <= for_s <= plans.LONGEST_FOR_S:
                raise UsageError(f"cannot drill for {for_}: write 1s to {plans.LONGEST_FOR_S / 3600:g}h")
            if why := plans.too_short(DrillKind(kind), settings.mounts[mount], for_s):
                raise UsageError(f"cannot drill {kind} for {for_}: {why}", hint="leave --for out, which is long enough")
        apps = {name: app for name, app in settings.apps.items() if mount in settings.mounts_of(app)}
        return plans.make(DrillKind(kind), mount, settings.mounts[mount], for_s, apps)

    def _way(self, mount: str) -> BucketRoute:
        settings = self._deps.settings()
        return BucketRoute(
            [settings.remotes[name] for name in settings.beneath(settings.mounts[mount].remote_name)],
            settings.mounts[mount].options,
            os.environ,
            has_proxy_flag="http-proxy" in self._deps.binary.flags,
        )

    async def close(self) -> None:
        """Call it after the mounts are closed."""
        await self._runner.close()
