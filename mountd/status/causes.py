"""Every reason code that the status can have, in one table, and what a person sees first of a fault."""

from __future__ import annotations

from mountd.status.cause import Cause, _
from mountd.status.causes_itself import ITSELF, OUTSIDE
from mountd.status.causes_service import APP, LINK
from mountd.status.causes_storage import BUCKET, MOUNT, RCLONE

CAUSES: dict[str, Cause] = {**BUCKET, **RCLONE, **MOUNT, **LINK, **APP, **ITSELF, **OUTSIDE}
SEEN: dict[str, str] = {
    "not-ready": _("mountd is not ready."),
    "Degraded": _("mountd is ready, and its health is Degraded."),
    "Missing": _("mountd is ready, and its health is Missing."),
    "Progressing": _("mountd is ready, and its health is Progressing."),
    "Suspended": _("mountd is ready, and its health is Suspended."),
    "Unknown": _("mountd is ready, and its health is Unknown."),
    "OutOfSync": _("mountd is ready, and a model is OutOfSync."),
    "rolled-back": _("mountd is ready, and the last change was rolled back."),
    "no-daemon": _("No daemon answers."),
}
"""What a person sees first; the explanation begins with it."""


def cause_of_code(code: str) -> Cause:
    """Also of a code that a newer part of mountd may bring."""
    return CAUSES.get(code, CAUSES["unexplained"])
