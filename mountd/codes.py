"""The codes of events: what each means, which ones people must know, and which code says that an alarm is over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True, slots=True)
class EventCode:
    """`meaning`: one line. `must_know`: people are notified of it unless their rules say otherwise.

    `healed_by`: of an alarm, the codes of which one, on the same object, says that it is over.
    """

    meaning: str
    must_know: bool = False
    healed_by: tuple[str, ...] = ()


_BUCKET = ("bucket-answers",)
_MACHINE = ("recovered",)
_EITHER = ("recovered", "bucket-answers")
"""On `mountd` the first one, on a remote the second."""
_SOURCE = ("desired-read",)
_PATTERN = re.compile(r"[a-z*][a-z0-9*-]{0,63}")

_RUNS = {
    "mountd-started": EventCode("mountd has started"),
    "mountd-stopped": EventCode("mountd has stopped in order"),
    "mountd-restarted-after-crash": EventCode("the previous run of mountd ended without an orderly stop", True),
    "ready": EventCode("all that is configured is ready"),
    "not-ready": EventCode("something that is configured is not ready", True, ("ready",)),
    "journal-gap": EventCode("events are missing: the journal could not be written for a while", True),
    "journal-replaced": EventCode("the journal was lost or broken, and a new one was created", True),
}
_CONFIG = {
    "config-reloaded": EventCode("the configuration file was read again, or is valid again"),
    "config-broken": EventCode(
        "the configuration file cannot be used: the previous one stays", True, ("config-reloaded",)
    ),
    "config-incomplete": EventCode("only a part of a changed configuration is in effect", True),
    "reload-requested": EventCode("a person asked for a reload of the configuration"),
}
_REMOTES = {
    "bucket-answers": EventCode("the bucket gives again what it is asked"),
    "bucket-unreachable": EventCode("the bucket's endpoint cannot be reached", True, _BUCKET),
    "bucket-silent": EventCode("the bucket does not answer in time", True, _BUCKET),
    "bucket-slow": EventCode("the bucket is slow, or asks for fewer requests", False, _BUCKET),
    "bucket-error": EventCode("the bucket answers with an error", True, _BUCKET),
    "bucket-missing": EventCode("the bucket does not exist", True, _BUCKET),
    "bucket-empty": EventCode("the bucket says that it is empty, and held something before", True, _BUCKET),
    "bucket-invalid": EventCode("what answers in the bucket's place gives no valid answers", True, _BUCKET),
    "directory-missing": EventCode("the directory of the bucket does not exist", True, _BUCKET),
    "object-missing": EventCode("an object that the bucket lists is not there", True, _BUCKET),
    "object-archived": EventCode("an object is archived and cannot be read", True, _BUCKET),
    "access-denied": EventCode("the bucket refuses the credentials", True, _BUCKET),
    "credentials-expired": EventCode("the bucket's credentials have expired", True, _BUCKET),
    "clock-skew": EventCode("the clocks of this machine and of the bucket differ too much", True, _BUCKET),
    "tls-failure": EventCode("the bucket's certificate is not accepted", True, _BUCKET),
    "rclone-error": EventCode("rclone refused a request of mountd", True, _BUCKET),
}
_STATES = {
    "stopped": ("is stopped", False),
    "starting": ("is starting", False),
    "running": ("is running", False),
    "stopping": ("is being stopped", False),
    "cleaning": ("has ended, and what it left is cleared", False),
    "backoff": ("has failed, and waits for the next try", False),
    "failed": ("has failed, and is not tried again by itself", True),
}
_MOUNTS_AND_APPS = {
    f"{kind}-{state}": EventCode(
        f"{article} {kind} {meaning}", must_know, (f"{kind}-running",) if state in ("backoff", "failed") else ()
    )
    for kind, article in (("mount", "a"), ("app", "an"))
    for state, (meaning, must_know) in _STATES.items()
} | {
    "restart-requested": EventCode("a person asked for the restart of a mount or an app"),
    "app-stop-asked": EventCode("a person stopped an app"),
    "app-start-asked": EventCode("a person started an app"),
    "app-signalled": EventCode("a person sent a signal to an app"),
    "app-ignored-signal": EventCode("an app did not stop by its signal, and was killed"),
}
_MODELS = {
    "model-linked": EventCode("the link of a model leads to a complete version"),
    "link-drifted": EventCode("a link was changed from outside", False, ("link-healed",)),
    "link-blocked": EventCode("a link cannot be placed: something else is in its place", True, ("link-healed",)),
    "link-healed": EventCode("a link was put right"),
    "content-changed": EventCode(
        "the live version has changed in the bucket since it went live", True, ("content-restored",)
    ),
    "content-restored": EventCode("the live version is again what it was made live with"),
    "data-loading": EventCode("the data of a version begins to load"),
    "data-waits": EventCode("loading the data of a version waits for something"),
    "data-loaded": EventCode("the data of a version is on this machine"),
    "desired-declared": EventCode("the source of the wanted version names another one"),
    "desired-read": EventCode("the source of the wanted version can be read again"),
    "desired-unreachable": EventCode("the source of the wanted version cannot be read", True, _SOURCE),
    "desired-refused": EventCode("the source of the wanted version refuses access", True, _SOURCE),
    "desired-invalid": EventCode("the source of the wanted version names no version", True, _SOURCE),
    "conf-unwritable": EventCode("a private file of mountd cannot be written", True, _SOURCE),
    "suspended": EventCode("automatic changes of a model are paused"),
    "resumed": EventCode("automatic changes of a model are resumed"),
    "sync-suspended": EventCode("a switch by hand suspended the automatic sync of a model"),
    "sync-window-opened": EventCode("a model may be switched by itself again"),
    "sync-window-closed": EventCode("no automatic switch of a model may begin now"),
    "profile-removed": EventCode("what was recorded of an app's start was removed"),
}
_RESULTS = {
    "committed": ("is done: the version is live", True),
    "rolled-back": ("failed, and what had changed was undone", True),
    "failed": ("failed", True),
    "refused": ("was refused, and nothing was changed", True),
    "cancelled": ("was cancelled", False),
    "interrupted": ("was interrupted by the end of mountd", True),
}
_OPERATIONS = {
    f"{kind}-{result}": EventCode(f"a {kind} {meaning}", must_know)
    for kind in ("switch", "rollback")
    for result, (meaning, must_know) in _RESULTS.items()
} | {
    "switch-scheduled": EventCode("a person scheduled a switch"),
    "schedule-cancelled": EventCode("a person cancelled a scheduled switch"),
    "schedule-begun": EventCode("a scheduled switch began"),
    "schedule-failed": EventCode("a scheduled switch could not begin", True),
    "schedule-missed": EventCode("a scheduled switch was too late to begin", True),
}
_LACKS = {
    "recovered": EventCode("what the machine lacked is there again"),
    "no-descriptors": EventCode("there are no file descriptors left", True, _EITHER),
    "no-processes": EventCode("no process or thread can be started", True, _EITHER),
    "no-memory": EventCode("there is no memory left", True, _EITHER),
    "disk-full": EventCode("a disk is full", True, _MACHINE),
    "system-error": EventCode("the system refuses something", True, _EITHER),
    "mount-not-visible": EventCode("the rest of the machine does not see a mount", True, _MACHINE),
    "secret-missing": EventCode("a secret cannot be read", True, ("recovered", "desired-read")),
    "secret-readable": EventCode("a file with a secret can be read by every user", True, _MACHINE),
    "tokens-unusable": EventCode("the file of tokens cannot be used", True, _MACHINE),
    "tls-unusable": EventCode("the certificate of the TCP port cannot be used", True, _MACHINE),
}
_NOTIFICATIONS = {
    "notify-failing": EventCode("notifications of a target cannot be delivered", True, ("notify-working",)),
    "notify-working": EventCode("notifications of a target are delivered again"),
    "notifications-dropped": EventCode("notifications of a target were lost: it was away for too long", True),
}
CODES: Mapping[str, EventCode] = {
    **_RUNS,
    **_CONFIG,
    **_REMOTES,
    **_MOUNTS_AND_APPS,
    **_MODELS,
    **_OPERATIONS,
    **_LACKS,
    **_NOTIFICATIONS,
}
"""Every code that mountd writes into its journal."""
OF = "of"
"""In an event's data: the code of the alarm that it ends, where one code ends several."""
ABOUT_NOTIFICATIONS = frozenset(_NOTIFICATIONS)
"""Their object is a target; that one is not notified of them."""
MUST_KNOW = tuple(code for code, each in CODES.items() if each.must_know)
HEALING = frozenset(code for each in CODES.values() for code in each.healed_by)


def is_pattern(text: str) -> bool:
    """Whether it can be a pattern of codes: a code, in which `*` stands for any characters."""
    return bool(_PATTERN.fullmatch(text))


def matching(pattern: str, codes: Iterable[str] = CODES) -> list[str]:
    """The codes that the pattern means."""
    compiled = _compiled(pattern)
    return [code for code in codes if compiled.fullmatch(code)]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))))
