"""A drill as a plan: what it does, whether it is possible, how long each part may take, and whether it has passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from urllib.parse import urlsplit

from mountd.settings.http import is_loopback
from mountd.settings.remotes import RemoteSettings
from mountd.settings.schema import AppSettings, MountSettings
from mountd.settings.units import format_duration
from mountd.status import readiness
from mountd.status.snapshot import Health, Snapshot, State

DELAY_S = 5.0
"""How much longer each request to a slow bucket takes."""
DEFAULT_FOR_S = 30.0
LONGEST_FOR_S = 3600.0
ASK_S = 10.0
"""How long one bucket probe takes at most."""
MARGIN_S = 1.0
"""What a busy machine adds to each limit."""
EVIDENCE_S = 1.0
"""For the evidence of a mount that hangs, before its repair."""
REPAIR_S = 5.0
"""A new rclone in 0.3 s, and the few requests that prove the mount."""
RETURN_S = 5.0
MODEL_S = 60.0
"""For the metadata of a large model, loaded again after each remount."""
APP_S = 10.0
"""To be killed, and to count as running where it has no readiness check."""
_NO_HTTP = frozenset({"local", "memory", "sftp", "ftp", "smb", "hdfs"})
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY")


class DrillKind(StrEnum):
    KILL = "kill"
    HANG = "hang"
    SLOW = "slow"
    OFFLINE = "offline"

    @property
    def breaks_rclone(self) -> bool:
        """False: it breaks the bucket."""
        return self in (DrillKind.KILL, DrillKind.HANG)


@dataclass(frozen=True, slots=True)
class DrillLimits:
    """Seconds within which each must have happened; see Measured for when they begin."""

    detected_s: float
    serving_again_s: float
    ready_again_s: float


@dataclass(frozen=True, slots=True)
class DrillPlan:
    """`apps` are those on the mount, `restarted` those of them that a remount restarts."""

    kind: DrillKind
    mount: str
    path: str
    for_s: float
    apps: tuple[str, ...]
    restarted: tuple[str, ...]
    limits: DrillLimits


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds; None: did not happen.

    `detected_s` begins with the fault. The other two begin with the fault that breaks rclone, and with the *end* of one
    of the bucket. Serving: reads come through the mount, and the bucket is well; ready: models and apps too.
    `app_restarted` and `rclone_restarted` are about the fault, not about remounts that a drill needs before and after.
    `cached_reads`: what was cached could be read during the fault; None when there was nothing to try.
    """

    detected_s: float | None = None
    serving_again_s: float | None = None
    ready_again_s: float | None = None
    app_restarted: bool = False
    rclone_restarted: bool = False
    cached_reads: bool | None = None


@dataclass(frozen=True, slots=True)
class BucketRoute:
    """The way of a mount's rclone to its bucket: the remotes from top to bottom, and what decides how rclone goes."""

    remotes: Sequence[RemoteSettings]
    options: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    has_proxy_flag: bool = False


def make(
    kind: DrillKind, name: str, mount: MountSettings, for_s: float | None, apps: Mapping[str, AppSettings]
) -> DrillPlan:
    """The plan for mount `name`, on which `apps` run; `for_s` seconds, or as long as detecting needs by default."""
    restarted = {name: app for name, app in apps.items() if "remount" in app.restart.after}
    health = mount.health
    apps_s = max(
        (app.stop.grace + APP_S + (app.ready.timeout if app.ready else 0.0) for app in apps.values()), default=0
    )
    match kind:
        case DrillKind.KILL:
            detected_s = MARGIN_S
        case DrillKind.HANG:
            detected_s = health.interval + health.failures * health.timeout + EVIDENCE_S + MARGIN_S
        case DrillKind.SLOW | DrillKind.OFFLINE:
            detected_s = health.backend + ASK_S + MARGIN_S
    if kind.breaks_rclone:
        serving_s = detected_s + REPAIR_S
        ready_s = serving_s + MODEL_S + (apps_s if restarted else 0.0)
    else:
        # A slow bucket is asked no more often than a healthy one: it does answer.
        serving_s = RETURN_S + (health.backend if kind is DrillKind.SLOW else 0.0)
        ready_s = serving_s
    if for_s is None:
        for_s = max(DEFAULT_FOR_S, detected_s)
    limits = DrillLimits(round(detected_s, 3), round(serving_s, 3), round(ready_s, 3))
    return DrillPlan(kind, name, str(mount.path), for_s, tuple(apps), tuple(restarted), limits)


def too_short(kind: DrillKind, mount: MountSettings, for_s: float) -> str:
    """Why a fault of the bucket that lasts so long could pass by chance only; empty when it is long enough.

    It may begin right after a question, and a question to a bucket that does not answer takes its time.
    """
    health = mount.health
    if kind.breaks_rclone or for_s >= health.backend + ASK_S:
        return ""
    every, answer = format_duration(health.backend), format_duration(ASK_S)
    return f"mountd asks the bucket each {every} and waits {answer} for the answer: it might not even notice"


def described(plan: DrillPlan) -> tuple[str, ...]:
    """What will happen to whom, in plain words."""
    mount, for_ = plan.mount, format_duration(plan.for_s)
    apps = " and ".join(plan.restarted)
    are = "are" if len(plan.restarted) > 1 else "is"
    match plan.kind:
        case DrillKind.KILL:
            what = f"rclone, which serves mount {mount}, is killed, as if it had crashed."
            then = f"Reads through {plan.path} fail until mountd has mounted it again, a few seconds."
        case DrillKind.HANG:
            what = f"rclone, which serves mount {mount}, is frozen, as if it hung."
            then = (
                f"Reads through {plan.path} wait until mountd has noticed (at most {plan.limits.detected_s:g} s), then "
                "fail until it is mounted again, a few seconds."
            )
        case DrillKind.SLOW:
            what = f"For {for_} each request of mount {mount} to its bucket takes {DELAY_S:g} s longer."
            then = "What is cached goes on at full speed; what is not, waits."
        case DrillKind.OFFLINE:
            what = f"For {for_} mount {mount} cannot reach its bucket."
            then = "What is cached goes on at full speed; what is not, fails."
    if plan.kind.breaks_rclone:
        apps_text = f"{apps} {are} restarted: files of the old mount that are open are dead." if apps else ""
        return what, then, apps_text or "No app is restarted."
    around = (
        f"So that it happens to nobody else, {mount} is remounted through a small proxy on this machine before, "
        "and without it after."
    )
    apps_text = f"{apps} {are} restarted at both of these remounts, and not in between." if apps else ""
    return what, then, around, apps_text or "No app is restarted."


def unfit(snapshot: Snapshot, plan: DrillPlan) -> str:
    """Why a drill would prove nothing now; empty: it would."""
    mount = snapshot.mounts[plan.mount]
    if not mount.usable:
        return f"mount {plan.mount} is {mount.state} ({mount.stage})"
    if mount.health is not Health.HEALTHY:
        return mount.reason.text if mount.reason else f"mount {plan.mount} is {mount.health}"
    if mount.backend.health is not Health.HEALTHY:
        return mount.backend.reason.text if mount.backend.reason else "it is not known yet whether the bucket answers"
    for name, model in snapshot.models.items():
        if model.mount == plan.mount and not model.linked:
            return f"model {name} is {model.stage}"
    for name in plan.apps:
        if snapshot.apps[name].state is not State.RUNNING:
            waits = readiness.blockers(snapshot, name)
            return waits[0].text if waits else f"{name} is {snapshot.apps[name].state}"
    return ""


def no_way(way: BucketRoute) -> str:
    """Why rclone cannot reach its bucket through a proxy; empty: it can, as far as is known."""
    for remote in way.remotes:
        if remote.type in _NO_HTTP:
            return f"a remote of type {remote.type} does not speak HTTP, and only that can be made slow or cut off"
    if "http-proxy" in way.options:
        return "its way to the bucket already leads through a proxy (option http-proxy)"
    endpoint = str(way.remotes[-1].options.get("endpoint") or way.remotes[-1].options.get("url") or "")
    if not _is_loopback(endpoint):
        given = {name.upper() for name, value in way.environment.items() if value}
        for variable in _PROXY_VARIABLES:
            if variable in given:
                return f"its way to the bucket already leads through a proxy ({variable} in mountd's environment)"
    elif not way.has_proxy_flag:
        return f"{endpoint} is on this machine, where only a newer rclone (with --http-proxy) goes through a proxy"
    return ""


def _is_loopback(endpoint: str) -> bool:
    """As Go sees it, whose clients then use no proxy of the environment."""
    try:
        host = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").hostname or ""
    except ValueError:
        return False
    return is_loopback(host)


def proxy_variables(url: str) -> dict[str, str]:
    """What makes rclone go through the proxy at `url`: its own flag where it has it, else what Go's clients know."""
    return {"HTTP_PROXY": url, "HTTPS_PROXY": url, "NO_PROXY": "", "no_proxy": "", "RCLONE_HTTP_PROXY": url}


# -- read from the snapshot --- -------------------------------------------------------------------------------------


def is_down(now: Snapshot, before: Snapshot, plan: DrillPlan) -> bool:
    """mountd has noticed that rclone is gone or hung, and replaces it."""
    return now.mounts[plan.mount].state is not State.RUNNING or is_replaced(now, before, plan)


def is_replaced(now: Snapshot, before: Snapshot, plan: DrillPlan) -> bool:
    return now.mounts[plan.mount].restarts != before.mounts[plan.mount].restarts


def is_suspect(now: Snapshot, plan: DrillPlan) -> bool:
    """mountd has noticed that something is wrong with the bucket."""
    return now.mounts[plan.mount].backend.health not in (Health.HEALTHY, Health.UNKNOWN)


def is_serving(now: Snapshot, plan: DrillPlan) -> bool:
    mount = now.mounts[plan.mount]
    return mount.usable and mount.health is Health.HEALTHY and mount.backend.health is Health.HEALTHY


def is_ready_after_outage(now: Snapshot, plan: DrillPlan) -> bool:
    return (
        is_serving(now, plan)
        and all(model.linked for model in now.models.values() if model.mount == plan.mount)
        and all(now.apps[name].state is State.RUNNING for name in plan.apps)
    )


def is_ready_after_remount(now: Snapshot, before: Snapshot, plan: DrillPlan) -> bool:
    """Models and apps on the mount have followed the remount, and are ready."""
    restarts = now.mounts[plan.mount].restarts
    return (
        is_ready_after_outage(now, plan)
        and is_replaced(now, before, plan)
        and all(model.mount_restarts == restarts for model in now.models.values() if model.mount == plan.mount)
        and all(now.apps[name].restarts != before.apps[name].restarts for name in plan.restarted)
    )


def disturbed(now: Snapshot, before: Snapshot, plan: DrillPlan) -> bool:
    """Whether an app on the mount has another process than before."""
    return any(now.apps[name].pid != before.apps[name].pid for name in plan.apps)


# -- the verdict -----------------------------------------------------------------------------------------------------


def shortfalls(plan: DrillPlan, measured: Measured) -> tuple[str, ...]:
    """Why the drill failed; empty: passed."""
    limits = plan.limits
    parts = (
        ("the fault was", "detected", measured.detected_s, limits.detected_s),
        (f"mount {plan.mount} was", "serving again", measured.serving_again_s, limits.serving_again_s),
        ("everything was", "ready again", measured.ready_again_s, limits.ready_again_s),
    )
    found = []
    for subject, event, took_s, limit_s in parts:
        if took_s is None:
            found.append(f"{subject} not {event}{_too_short(plan) if event == 'detected' else ''}")
            break  # what comes after it could not happen
        if took_s > limit_s:
            found.append(f"{subject} {event} after {took_s:.1f} s, the limit is {limit_s:g} s")
    if not plan.kind.breaks_rclone:
        if measured.rclone_restarted:
            found.append("rclone was restarted, which cannot help a bucket")
        if measured.app_restarted:
            found.append("an app was restarted, although its files were there")
        if measured.cached_reads is False:
            found.append("what was cached could not be read")
    return tuple(found)


def _too_short(plan: DrillPlan) -> str:
    """Why the fault could pass unnoticed; else empty."""
    if plan.kind.breaks_rclone or plan.for_s >= plan.limits.detected_s:
        return ""
    enough = format_duration(float(ceil(plan.limits.detected_s)))
    return f": it lasted {format_duration(plan.for_s)}, which may be over before mountd asks; use --for {enough}"
