"""The reasons of outboxes: what each says to people."""

from __future__ import annotations

from mountd.i18n import N_
from mountd.status.cause import RESULTS as PAGE
from mountd.status.cause import WAITS, Cause

_HAPPENS = PAGE + "what-happens-to-it"
_FAR = PAGE + "how-far-it-is"
_EVENTS = "mountd events --object {object}"

OUTBOX: dict[str, Cause] = {
    "outbox-no-directory": Cause(
        "outbox",
        N_("The directory of outbox {object} is not there."),
        N_("Let the app create it, or mount its disk; mountd notices by itself."),
        "mountd doctor",
        _HAPPENS,
    ),
    "outbox-directory": Cause(
        "outbox",
        N_("mountd cannot read the directory of outbox {object}."),
        N_("Let mountd's user read and enter it."),
        "mountd doctor",
        _HAPPENS,
    ),
    "outbox-disk-silent": Cause(
        "outbox",
        N_("The disk with the results of outbox {object} does not answer."),
        N_("See that disk, and the network to it; mountd tries again by itself."),
        "mountd doctor",
        _HAPPENS,
    ),
    "outbox-missing": Cause(
        "outbox",
        N_("Results of outbox {object} that wait lay on another disk than the one that is mounted now."),
        N_("Mount that disk again."),
        _EVENTS,
        _HAPPENS,
    ),
    "outbox-waiting": Cause(
        "outbox",
        N_("The bucket for the results of outbox {object} does not take them."),
        WAITS,
        "mountd doctor",
        _HAPPENS,
    ),
    "outbox-late": Cause(
        "outbox",
        N_("Results of outbox {object} wait for long: the upload is slower than what the app makes."),
        N_("See the network to the store, and limit and parallel of the outbox."),
        "mountd status",
        _FAR,
    ),
    "outbox-disk-full": Cause(
        "outbox",
        N_("The disk with the results of outbox {object} is almost full."),
        N_("Shorten keep of the outbox, or remove files that are uploaded."),
        "mountd status",
        _FAR,
    ),
    "outbox-failed": Cause(
        "outbox",
        N_("A result of outbox {object} cannot be uploaded as it is."),
        N_("Rename or remove the file that the evidence names."),
        _EVENTS,
        _HAPPENS,
    ),
    "outbox-unreadable": Cause(
        "outbox",
        N_("mountd cannot read a file of outbox {object}."),
        N_("Let mountd's user read it."),
        "mountd status",
        _HAPPENS,
    ),
    "outbox-too-many": Cause(
        "outbox",
        N_("Outbox {object} has more new files than mountd takes up at once."),
        N_("Wait: mountd takes up the others after these. If it stays so, see what writes there."),
        "mountd status",
        _FAR,
    ),
}
