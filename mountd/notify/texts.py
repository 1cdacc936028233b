"""Events as people read them: a title, and a line for each with what to do next."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from mountd.codes import CODES, HEALING
from mountd.journal.records import EventRecord
from mountd.notify.delivery import OutgoingMessage
from mountd.notify.rules import Notification, is_alarm
from mountd.text import printable

LONGEST_LINE = 600
"""Characters of an event: a chat service takes a few thousand in all."""
LONGEST_BODY = 3800

Translate = Callable[[str], str]


class Tone(StrEnum):
    """What apprise calls the kind of a message; services show it by a colour or a sign."""

    ALARM = "failure"
    OVER = "success"
    NEWS = "info"


def tone(notification: Notification) -> Tone:
    if notification.is_alarm:
        return Tone.ALARM
    return Tone.OVER if notification.last.code in HEALING else Tone.NEWS


def title(message: OutgoingMessage, host: str, _: Translate) -> str:
    events, left_out = message.notification.events, sum(message.notification.left_out.values())
    if len(events) + left_out == 1:
        return _line(f"{host}: {meaning(events[0], _)}")
    return _line(_("{host}: {count} events of mountd").format(host=host, count=len(events) + left_out))


def body(message: OutgoingMessage, host: str, _: Translate) -> str:
    notification = message.notification
    lines = [_event(each, _) for each in notification.events]
    if notification.left_out:
        codes = ", ".join(f"{count} × {code}" for code, count in sorted(notification.left_out.items()))
        lines.insert(
            0, _("and {count} more before: {codes}").format(count=sum(notification.left_out.values()), codes=codes)
        )
    if message.advice is not None and notification.is_alarm:
        lines.append("")
        lines.append(_line(_("Cause: {cause}").format(cause=message.advice.cause)))
        if message.advice.hint:
            lines.append(_line(_("Next: {hint}").format(hint=message.advice.hint)))
        if message.advice.command:
            lines.append(_line(f"$ {message.advice.command}"))
    lines.append("")
    lines.append(_("mountd on {host}; `mountd status` shows how it is now").format(host=host))
    text = "\n".join(lines)
    return text if len(text) <= LONGEST_BODY else text[: LONGEST_BODY - 1] + "…"


def meaning(event: EventRecord, _: Translate) -> str:
    """What its code means, in one line."""
    known = CODES.get(event.code)
    return _(known.meaning) if known else event.text


def _event(event: EventRecord, _: Translate) -> str:
    time = f"{event.time[:10]} {event.time[11:19]} UTC"
    sign = "●" if is_alarm(event) else "✓" if event.code in HEALING else "·"
    of = "" if event.object in ("", "mountd") or event.text.startswith(event.object) else f"{event.object}: "
    # The text of an event is English, as it stands in the journal: in another language its meaning comes first.
    known = CODES.get(event.code)
    first = f"{_(known.meaning)}: " if known and _(known.meaning) != known.meaning else ""
    return _line(f"{sign} {time}  {first}{of}{event.text}")


def _line(text: str) -> str:
    text = printable(" ".join(text.split()))
    return text if len(text) <= LONGEST_LINE else text[: LONGEST_LINE - 1] + "…"
