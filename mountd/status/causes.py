"""Every reason code that the status can have, in one table, and what a person sees first of a fault."""

from __future__ import annotations

from mountd.i18n import N_
from mountd.status.cause import Cause
from mountd.status.causes_itself import ITSELF, OUTSIDE
from mountd.status.causes_results import OUTBOX
from mountd.status.causes_service import APP, LINK
from mountd.status.causes_storage import BUCKET, MOUNT, RCLONE

CAUSES: dict[str, Cause] = {**BUCKET, **RCLONE, **MOUNT, **LINK, **APP, **OUTBOX, **ITSELF, **OUTSIDE}
SEEN: dict[str, str] = {
    "not-ready": N_("mountd is not ready."),
    "Degraded": N_("mountd is ready, and its health is Degraded."),
    "Missing": N_("mountd is ready, and its health is Missing."),
    "Progressing": N_("mountd is ready, and its health is Progressing."),
    "Suspended": N_("mountd is ready, and its health is Suspended."),
    "Unknown": N_("mountd is ready, and its health is Unknown."),
    "OutOfSync": N_("mountd is ready, and a model is OutOfSync."),
    "rolled-back": N_("mountd is ready, and the last change was rolled back."),
    "no-daemon": N_("No daemon answers."),
}
"""What a person sees first; the explanation begins with it."""


def cause_of_code(code: str) -> Cause:
    """Also of a code that a newer part of mountd may bring."""
    return CAUSES.get(code, CAUSES["unexplained"])
