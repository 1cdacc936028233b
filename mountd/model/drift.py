"""The link as it is and as it should be → in sync, to be healed, or reported and left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from mountd.errors import Unavailable
from mountd.status.snapshot import Health, Reason

DRIFTED = "link-drifted"
BLOCKED = "link-blocked"
HEALS_PER_WINDOW = 20
HEAL_WINDOW_S = 60.0
"""A link that somebody keeps changing is healed at most so often in so many seconds, and reported."""


class LinkKind(Enum):
    NOTHING = auto()
    LINK = auto()
    FILE = auto()
    """or a socket, a device: anything but a link or a directory"""
    DIRECTORY = auto()
    NO_PARENT = auto()
    """the directory that is to hold the link is not there"""
    UNREADABLE = auto()


@dataclass(frozen=True, slots=True)
class FoundLink:
    """`detail` is where a link points, or why it cannot be read."""

    kind: LinkKind
    detail: str = ""


class LinkBlocked(Unavailable):
    """What is in the link's place may be somebody's data, or its directory cannot be written."""


def block(link: Path, found: FoundLink) -> LinkBlocked | None:
    """None: a link may be placed there, over nothing or over another link. What may be data is never touched."""
    cannot = f"cannot place the link {link}:"
    match found.kind:
        case LinkKind.NOTHING | LinkKind.LINK:
            return None
        case LinkKind.NO_PARENT:
            hint = f"create it (mkdir -p {link.parent}), or set another link"
            return LinkBlocked(f"{cannot} the directory {link.parent} does not exist", hint=hint)
        case LinkKind.UNREADABLE:
            return LinkBlocked(f"{cannot} {found.detail}", hint="look at the directory above")
    kind = "directory" if found.kind is LinkKind.DIRECTORY else "file"
    hint = f"mountd never deletes data: look what it is, then move it away (mv {link} {link}.old)"
    return LinkBlocked(f"{cannot} a real {kind} is in its place", hint=hint)


@dataclass(frozen=True, slots=True)
class WantedLink:
    """What the guard keeps; `left_alone` says why it does not heal a changed link now, "": it does."""

    link: Path
    target: str
    left_alone: str = ""
    hint: str = ""
    """what makes mountd heal it"""


def left_alone(model: str, link: Path, target: str, suspended: bool, self_heal: bool) -> tuple[str, str]:
    """Why a changed link is not healed now, and what changes that; empty: it is healed."""
    if suspended:
        return f"it is not healed while {model} is paused", "`mountd resume` puts it right"
    if not self_heal:
        return "it is not healed: sync.self_heal is false", f"put it right: ln -sfn {target} {link}"
    return "", ""


@dataclass(frozen=True, slots=True)
class Decision:
    """`code` is empty when the link is in sync. `again_s`: look again after that many seconds."""

    heal: bool = False
    code: str = ""
    text: str = ""
    hint: str = ""
    health: Health = Health.HEALTHY
    again_s: float | None = None

    def reason(self, model: str) -> Reason | None:
        return Reason(self.code, self.text, "link", model, self.hint) if self.code else None


def decide(wanted: WantedLink, found: FoundLink, heals: Sequence[float], now: float) -> Decision:
    """`heals`: when the link was healed before; like `now` in seconds of a clock that only goes forward."""
    if found == FoundLink(LinkKind.LINK, wanted.target):
        return Decision()
    blocked = block(wanted.link, found)
    if blocked is not None:
        return Decision(code=BLOCKED, text=blocked.text, hint=blocked.hint, health=Health.DEGRADED)
    removed = found.kind is LinkKind.NOTHING
    changed = "was removed" if removed else f"was pointed to {found.detail}"
    text = f"the link {wanted.link} {changed}"
    if wanted.left_alone:
        health = Health.MISSING if removed else Health.HEALTHY
        return Decision(code=DRIFTED, text=f"{text}; {wanted.left_alone}", hint=wanted.hint, health=health)
    again_s = wait_s(heals, now)
    if again_s > 0:
        # Without its present target: the reason would change each time.
        text = f"the link {wanted.link} is changed repeatedly: healed {HEALS_PER_WINDOW} times in the last "
        text += f"{HEAL_WINDOW_S:g} s, so the next time waits"
        hint = f"find what changes it, or let mountd leave it alone: mountd pause ({_audit(wanted.link)})"
        return Decision(code=DRIFTED, text=text, hint=hint, health=Health.DEGRADED, again_s=again_s)
    return Decision(heal=True, code=DRIFTED, text=text, hint="it is put right by itself", health=Health.PROGRESSING)


def _audit(link: Path) -> str:
    return f"auditctl -w {link.parent} -p w logs who"


def wait_s(heals: Sequence[float], now: float) -> float:
    """Seconds until the link may be healed again; 0: at once."""
    recent = recently(heals, now)
    if len(recent) < HEALS_PER_WINDOW:
        return 0.0
    return recent[-HEALS_PER_WINDOW] + HEAL_WINDOW_S - now


def recently(heals: Sequence[float], now: float) -> tuple[float, ...]:
    """Those that still count, oldest first."""
    return tuple(heal for heal in heals if now - heal < HEAL_WINDOW_S)
