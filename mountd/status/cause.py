"""What a reason code says to people: its layer, a sentence, what to do, the next command, and the page about it.

Sentences are templates for the catalogue: `{object}` is the remote, mount, model or app that the reason is of.
"""

from __future__ import annotations

from dataclasses import dataclass

from mountd.i18n import N_

FAULTS, SWITCHING, GITOPS, SECURITY, NOTIFICATIONS, RESULTS = (
    f"docs/{page}.md#" for page in ("faults", "switching", "gitops", "security", "notifications", "results")
)
WAITS = N_("mountd tries again by itself; nothing has to be restarted.")


@dataclass(frozen=True, slots=True)
class Cause:
    """`layer`: bucket, rclone, mount, link, app, outbox, config, journal, machine or mountd.

    `docs`: a page and its heading.
    """

    layer: str
    text: str
    advice: str = ""
    command: str = "mountd status"
    docs: str = "docs/faults.md"
