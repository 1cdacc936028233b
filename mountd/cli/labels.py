"""Words of the daemon's documents as people read them, in the language of the command line.

The documents, and what `-o json` prints, keep their words: programs compare them.
"""

from __future__ import annotations

from collections.abc import Iterable

from mountd.i18n import N_, _

HEALTH = (
    N_("Healthy"), N_("Progressing"), N_("Suspended"), N_("Missing"), N_("Degraded"), N_("Unknown"),
    N_("Synced"), N_("OutOfSync"),
)  # fmt: skip
STATES = (
    N_("stopped"), N_("starting"), N_("running"), N_("stopping"), N_("cleaning"), N_("backoff"), N_("failed"),
    N_("unknown"), N_("spawned"), N_("mounted"), N_("answering"), N_("waiting"), N_("listed"), N_("warmed"),
    N_("linked"),
)  # fmt: skip
LAYERS = (
    N_("bucket"), N_("rclone"), N_("mount"), N_("link"), N_("app"), N_("config"), N_("journal"),
    N_("outbox"), N_("notify"),
)  # fmt: skip
STEPS = (
    N_("preflight"), N_("warm"), N_("verify"), N_("stop"), N_("flip"), N_("start"), N_("ready"), N_("gates"),
    N_("watch"), N_("commit"),
)  # fmt: skip
"""Of a switch, in their order."""
UNDO = (N_("stop-new"), N_("flip-back"), N_("start-old"))
OTHER_STEPS = (
    N_("waits"), N_("fault"), N_("restore"), N_("recover"),
)  # fmt: skip
KINDS = (N_("switch"), N_("rollback"), N_("schedule"), N_("drill"))
RESULTS = (
    N_("committed"), N_("rolled-back"), N_("refused"), N_("cancelled"), N_("interrupted"), N_("passed"), N_("done"),
    N_("missed"), N_("begun"),
)  # fmt: skip
ROLES = (N_("current"), N_("previous"), N_("desired"))
LEVELS = (N_("metadata"), N_("data"), N_("pin"))
ANSWERS = (
    N_("yes"), N_("no"), N_("never"), N_("ok"), N_("warn"), N_("fail"), N_("nothing"),
    N_("not finished"),
)  # fmt: skip
COMPARED = (N_("version"), N_("flags"), N_("process"))
KNOWN = frozenset(
    (
        *(*HEALTH, *STATES, *LAYERS, *STEPS, *UNDO, *OTHER_STEPS, *KINDS, *RESULTS, *ROLES, *LEVELS),
        *(*ANSWERS, *COMPARED),
    )
)


def word(value: object) -> str:
    """One of the words above in the language of people; any other value as it is."""
    text = str(value)
    return _(text) if text in KNOWN else text


def joined(facts: Iterable[object]) -> str:
    """What is not empty, with commas between."""
    return _(", ").join(str(fact) for fact in facts if fact)


def duration(seconds: float) -> str:
    """Seconds → `42 s`, `5 m 3 s`, `2 h 10 m`, `3 d 4 h`, in the language of the reader."""
    whole = int(seconds)
    for big, small, template in (
        (86400, 3600, _("{big} d {small} h")),
        (3600, 60, _("{big} h {small} m")),
        (60, 1, _("{big} m {small} s")),
    ):
        if whole >= big:
            return template.format(big=whole // big, small=whole % big // small)
    return _("{count} s").format(count=whole)
