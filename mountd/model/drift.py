"""What stands where the link belongs, and what is wanted there → in sync, to be healed, or told and left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from mountd.status.snapshot import Health, Reason

DRIFTED = "link-drifted"
BLOCKED = "link-blocked"
HEALS_PER_WINDOW = 20
HEAL_WINDOW_S = 60.0
"""Somebody who changes the link again and again is told, and healed after at most so often in so many seconds."""


class LinkKind(Enum):
    NOTHING = auto()
    LINK = auto()
    FILE = auto()
    """or a socket, a device: whatever is no link and no directory"""
    DIRECTORY = auto()
    NO_PARENT = auto()
    """the directory that is to hold the link is not there"""
    UNREADABLE = auto()


@dataclass(frozen=True, slots=True)
class FoundLink:
    """`detail` is where a link points, or why nobody could look."""

    kind: LinkKind
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Why no link can be placed there, and what to do."""

    text: str
    hint: str


def block(link: Path, seen: FoundLink) -> Block | None:
    """None: a link may be placed there, over nothing or over another link. What may be data is never touched."""
    cannot = f"cannot place the link {link}:"
    match seen.kind:
        case LinkKind.NOTHING | LinkKind.LINK:
            return None
        case LinkKind.NO_PARENT:
            return Block(
                f"{cannot} the directory {link.parent} does not exist",
                f"create it (mkdir -p {link.parent}), or set another link",
            )
        case LinkKind.UNREADABLE:
            return Block(f"{cannot} {seen.detail}", "look at the directory above")
    kind = "directory" if seen.kind is LinkKind.DIRECTORY else "file"
    return Block(
        f"{cannot} a real {kind} is in its place",
        f"mountd never deletes data: look what it is, then move it away (mv {link} {link}.old)",
    )


@dataclass(frozen=True, slots=True)
class WantedLink:
    """What is to be kept true; `left_alone` says why a changed link is not to be healed now, "" that it is."""

    link: Path
    target: str
    left_alone: str = ""
    hint: str = ""
    """what ends the leaving alone"""


def left_alone(model: str, link: Path, target: str, suspended: bool, self_heal: bool) -> tuple[str, str]:
    """Why a changed link is not healed now, and what ends that; empty: it is healed."""
    if suspended:
        return f"it is not healed while {model} is paused", "`mountd resume` puts it right"
    if not self_heal:
        return "it is not healed: sync.self_heal is false", f"put it right: ln -sfn {target} {link}"
    return "", ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`code` is empty when all is in sync. `again_s`: look again then, whatever is heard."""

    heal: bool = False
    code: str = ""
    text: str = ""
    hint: str = ""
    health: Health = Health.HEALTHY
    again_s: float | None = None

    def reason(self, model: str) -> Reason | None:
        return Reason(self.code, self.text, "link", model, self.hint) if self.code else None


def decide(keeping: WantedLink, seen: FoundLink, heals: Sequence[float], now: float) -> Decision:
    """`heals`: when the link was healed before; like `now` in seconds of a clock that only goes forward."""
    if seen == FoundLink(LinkKind.LINK, keeping.target):
        return Decision()
    blocked = block(keeping.link, seen)
    if blocked is not None:
        return Decision(code=BLOCKED, text=blocked.text, hint=blocked.hint, health=Health.DEGRADED)
    removed = seen.kind is LinkKind.NOTHING
    changed = "was removed" if removed else f"was pointed to {seen.detail}"
    text = f"the link {keeping.link} {changed}"
    if keeping.left_alone:
        health = Health.MISSING if removed else Health.HEALTHY
        return Decision(code=DRIFTED, text=f"{text}; {keeping.left_alone}", hint=keeping.hint, health=health)
    again_s = wait_s(heals, now)
    if again_s > 0:
        # Without where it points just now: that would be news each time.
        text = f"the link {keeping.link} is changed again and again: healed {HEALS_PER_WINDOW} times in the last "
        text += f"{HEAL_WINDOW_S:g} s, so the next time waits"
        hint = f"find what changes it, or let mountd leave it alone: mountd pause ({_audit(keeping.link)})"
        return Decision(code=DRIFTED, text=text, hint=hint, health=Health.DEGRADED, again_s=again_s)
    return Decision(heal=True, code=DRIFTED, text=text, hint="it is put right by itself", health=Health.PROGRESSING)


def _audit(link: Path) -> str:
    return f"auditctl -w {link.parent} -p w tells who"


def wait_s(heals: Sequence[float], now: float) -> float:
    """Seconds until the link may be healed again; 0: at once."""
    recent = recently(heals, now)
    if len(recent) < HEALS_PER_WINDOW:
        return 0.0
    return recent[-HEALS_PER_WINDOW] + HEAL_WINDOW_S - now


def recently(heals: Sequence[float], now: float) -> tuple[float, ...]:
    """Those that still count, oldest first."""
    return tuple(heal for heal in heals if now - heal < HEAL_WINDOW_S)
