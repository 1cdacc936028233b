"""The codes of events: what each means, which ones people must know, and which code says that an alarm is over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from mountd.i18n import N_


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
_OUTBOX = ("outbox-recovered",)
_PATTERN = re.compile(r"[a-z*][a-z0-9*-]{0,63}")

_RUNS = {
    "mountd-started": EventCode(N_("mountd has started")),
    "mountd-stopped": EventCode(N_("mountd has stopped in order")),
    "mountd-restarted-after-crash": EventCode(N_("the previous run of mountd ended without an orderly stop"), True),
    "ready": EventCode(N_("all that is configured is ready")),
    "not-ready": EventCode(N_("something that is configured is not ready"), True, ("ready",)),
    "journal-gap": EventCode(N_("events are missing: the journal could not be written for a while"), True),
    "journal-replaced": EventCode(N_("the journal was lost or broken, and a new one was created"), True),
}
_CONFIG = {
    "config-reloaded": EventCode(N_("the configuration file was read again, or is valid again")),
    "config-broken": EventCode(
        N_("the configuration file cannot be used: the previous one stays"), True, ("config-reloaded",)
    ),
    "config-incomplete": EventCode(N_("only a part of a changed configuration is in effect"), True),
    "reload-requested": EventCode(N_("a person asked for a reload of the configuration")),
}
_REMOTES = {
    "bucket-answers": EventCode(N_("the bucket gives again what it is asked")),
    "bucket-unreachable": EventCode(N_("the bucket's endpoint cannot be reached"), True, _BUCKET),
    "bucket-silent": EventCode(N_("the bucket does not answer in time"), True, _BUCKET),
    "bucket-slow": EventCode(N_("the bucket is slow, or asks for fewer requests"), False, _BUCKET),
    "bucket-error": EventCode(N_("the bucket answers with an error"), True, _BUCKET),
    "bucket-missing": EventCode(N_("the bucket does not exist"), True, _BUCKET),
    "bucket-empty": EventCode(N_("the bucket says that it is empty, and held something before"), True, _BUCKET),
    "bucket-invalid": EventCode(N_("what answers in the bucket's place gives no valid answers"), True, _BUCKET),
    "directory-missing": EventCode(N_("the directory of the bucket does not exist"), True, _BUCKET),
    "object-missing": EventCode(N_("an object that the bucket lists is not there"), True, _BUCKET),
    "object-archived": EventCode(N_("an object is archived and cannot be read"), True, _BUCKET),
    "access-denied": EventCode(N_("the bucket refuses the credentials"), True, _BUCKET),
    "credentials-expired": EventCode(N_("the bucket's credentials have expired"), True, _BUCKET),
    "clock-skew": EventCode(N_("the clocks of this machine and of the bucket differ too much"), True, _BUCKET),
    "tls-failure": EventCode(N_("the bucket's certificate is not accepted"), True, _BUCKET),
    "rclone-error": EventCode(N_("rclone refused a request of mountd"), True, _BUCKET),
}
_MOUNTS_AND_APPS = {
    "mount-stopped": EventCode(N_("a mount is stopped")),
    "mount-starting": EventCode(N_("a mount is starting")),
    "mount-running": EventCode(N_("a mount is running")),
    "mount-stopping": EventCode(N_("a mount is being stopped")),
    "mount-cleaning": EventCode(N_("a mount has ended, and what it left is cleared")),
    "mount-backoff": EventCode(N_("a mount has failed, and waits for the next try"), False, ("mount-running",)),
    "mount-failed": EventCode(N_("a mount has failed, and is not tried again by itself"), True, ("mount-running",)),
    "app-stopped": EventCode(N_("an app is stopped")),
    "app-starting": EventCode(N_("an app is starting")),
    "app-running": EventCode(N_("an app is running")),
    "app-stopping": EventCode(N_("an app is being stopped")),
    "app-cleaning": EventCode(N_("an app has ended, and what it left is cleared")),
    "app-backoff": EventCode(N_("an app has failed, and waits for the next try"), False, ("app-running",)),
    "app-failed": EventCode(N_("an app has failed, and is not tried again by itself"), True, ("app-running",)),
    "restart-requested": EventCode(N_("a person asked for the restart of a mount or an app")),
    "app-stop-asked": EventCode(N_("a person stopped an app")),
    "app-start-asked": EventCode(N_("a person started an app")),
    "app-signalled": EventCode(N_("a person sent a signal to an app")),
    "app-ignored-signal": EventCode(N_("an app did not stop by its signal, and was killed")),
}
_MODELS = {
    "model-linked": EventCode(N_("the link of a model leads to a complete version")),
    "link-drifted": EventCode(N_("a link was changed from outside"), False, ("link-healed",)),
    "link-blocked": EventCode(N_("a link cannot be placed: something else is in its place"), True, ("link-healed",)),
    "link-healed": EventCode(N_("a link was put right")),
    "content-changed": EventCode(
        N_("the live version has changed in the bucket since it went live"), True, ("content-restored",)
    ),
    "content-restored": EventCode(N_("the live version is again what it was made live with")),
    "data-loading": EventCode(N_("the data of a version begins to load")),
    "data-waits": EventCode(N_("loading the data of a version waits for something")),
    "data-loaded": EventCode(N_("the data of a version is on this machine")),
    "desired-declared": EventCode(N_("the source of the wanted version names another one")),
    "desired-read": EventCode(N_("the source of the wanted version can be read again")),
    "desired-unreachable": EventCode(N_("the source of the wanted version cannot be read"), True, _SOURCE),
    "desired-refused": EventCode(N_("the source of the wanted version refuses access"), True, _SOURCE),
    "desired-invalid": EventCode(N_("the source of the wanted version names no version"), True, _SOURCE),
    "conf-unwritable": EventCode(N_("a private file of mountd cannot be written"), True, _SOURCE),
    "suspended": EventCode(N_("automatic changes of a model are paused")),
    "resumed": EventCode(N_("automatic changes of a model are resumed")),
    "sync-suspended": EventCode(N_("a switch by hand suspended the automatic sync of a model")),
    "sync-window-opened": EventCode(N_("a model may be switched by itself again")),
    "sync-window-closed": EventCode(N_("no automatic switch of a model may begin now")),
    "profile-removed": EventCode(N_("what was recorded of an app's start was removed")),
}
_OPERATIONS = {
    "switch-committed": EventCode(N_("a switch is done: the version is live"), True),
    "switch-rolled-back": EventCode(N_("a switch failed, and what had changed was undone"), True),
    "switch-failed": EventCode(N_("a switch failed"), True),
    "switch-refused": EventCode(N_("a switch was refused, and nothing was changed"), True),
    "switch-cancelled": EventCode(N_("a switch was cancelled")),
    "switch-interrupted": EventCode(N_("a switch was interrupted by the end of mountd"), True),
    "switch-given-up": EventCode(
        N_("mountd died in several switches to a version: it begins none by itself any more"), True
    ),
    "rollback-committed": EventCode(N_("a rollback is done: the version is live"), True),
    "rollback-rolled-back": EventCode(N_("a rollback failed, and what had changed was undone"), True),
    "rollback-failed": EventCode(N_("a rollback failed"), True),
    "rollback-refused": EventCode(N_("a rollback was refused, and nothing was changed"), True),
    "rollback-cancelled": EventCode(N_("a rollback was cancelled")),
    "rollback-interrupted": EventCode(N_("a rollback was interrupted by the end of mountd"), True),
    "switch-scheduled": EventCode(N_("a person scheduled a switch")),
    "schedule-cancelled": EventCode(N_("a person cancelled a scheduled switch")),
    "schedule-begun": EventCode(N_("a scheduled switch began")),
    "schedule-failed": EventCode(N_("a scheduled switch could not begin"), True),
    "schedule-missed": EventCode(N_("a scheduled switch was too late to begin"), True),
}
_LACKS = {
    "recovered": EventCode(N_("what the machine lacked is there again")),
    "no-descriptors": EventCode(N_("there are no file descriptors left"), True, _EITHER),
    "no-processes": EventCode(N_("no process or thread can be started"), True, _EITHER),
    "no-memory": EventCode(N_("there is no memory left"), True, _EITHER),
    "disk-full": EventCode(N_("a disk is full"), True, _MACHINE),
    "system-error": EventCode(N_("the system refuses something"), True, _EITHER),
    "mount-not-visible": EventCode(N_("the rest of the machine does not see a mount"), True, _MACHINE),
    "secret-missing": EventCode(N_("a secret cannot be read"), True, ("recovered", "desired-read")),
    "secret-readable": EventCode(N_("a file with a secret can be read by every user"), True, _MACHINE),
    "tokens-unusable": EventCode(N_("the file of tokens cannot be used"), True, _MACHINE),
    "tls-unusable": EventCode(N_("the certificate of the TCP port cannot be used"), True, _MACHINE),
}
_RESULTS = {
    "result-uploaded": EventCode(N_("a result is in its bucket; the event says where, with size and digest")),
    "result-lost": EventCode(N_("a finished result went away before it was uploaded"), True),
    "result-refused": EventCode(N_("a result cannot be uploaded because of its name"), True),
    "result-failed": EventCode(N_("a result could not be uploaded as it is"), True),
    "outbox-no-directory": EventCode(N_("the directory of an outbox is not there"), True, _OUTBOX),
    "outbox-directory": EventCode(N_("the directory of an outbox cannot be read"), True, _OUTBOX),
    "outbox-disk-silent": EventCode(N_("the disk of an outbox does not answer"), True, _OUTBOX),
    "outbox-missing": EventCode(N_("results that wait lay in another directory"), True, _OUTBOX),
    "outbox-waiting": EventCode(N_("results wait because their bucket does not take them"), True, _OUTBOX),
    "outbox-late": EventCode(N_("results have waited for their upload for long"), True, _OUTBOX),
    "outbox-disk-full": EventCode(N_("the disk of an outbox is almost full"), True, _OUTBOX),
    "outbox-failed": EventCode(N_("an outbox has results that cannot be uploaded"), True, _OUTBOX),
    "outbox-unreadable": EventCode(N_("a file or directory in an outbox cannot be read"), True, _OUTBOX),
    "outbox-too-many": EventCode(N_("an outbox has more new files than mountd takes up at once"), True, _OUTBOX),
    "outbox-recovered": EventCode(N_("an outbox is well again")),
}
_NOTIFICATIONS = {
    "notify-failing": EventCode(N_("notifications of a target cannot be delivered"), True, ("notify-working",)),
    "notify-working": EventCode(N_("notifications of a target are delivered again")),
    "notifications-dropped": EventCode(N_("notifications of a target were lost: it was away for too long"), True),
}
CODES: Mapping[str, EventCode] = {
    **_RUNS,
    **_CONFIG,
    **_REMOTES,
    **_MOUNTS_AND_APPS,
    **_MODELS,
    **_OPERATIONS,
    **_LACKS,
    **_RESULTS,
    **_NOTIFICATIONS,
}
"""Every code that mountd writes into its journal."""
OF = "of"
"""In an event's data: the code of the alarm that it ends, where one code ends several."""
ABOUT_NOTIFICATIONS = frozenset(_NOTIFICATIONS)
"""Their object is a target; that one is not notified of them."""
MUST_KNOW = tuple(code for code, each in CODES.items() if each.must_know)
HEALING = frozenset(code for each in CODES.values() for code in each.healed_by)


def ends(code: str, of: object, alarm: str) -> bool:
    """Whether an event with this code, on the object of `alarm`, says that it is over; `of`: what its data says."""
    return code in CODES[alarm].healed_by and of in (None, alarm)


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
