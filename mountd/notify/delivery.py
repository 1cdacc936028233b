"""What a message is made of, and how it can fail to be delivered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from mountd.errors import Unavailable
from mountd.notify.rules import Notification
from mountd.settings.secret import ReadSecrets


@dataclass(frozen=True, slots=True)
class Advice:
    """Why mountd is not well at this moment, what to do, and the next command; for people, in their language."""

    cause: str
    hint: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """`id` is the same in each try; `source`: which mountd it is."""

    id: str
    source: str
    notification: Notification
    advice: Advice | None = None


class Undelivered(Unavailable):
    """A try to deliver a message failed. `is_refusal`: the receiver refused it, and another try will hardly help. A
    mistake that a person can correct here, such as an address, is no refusal.

    `retry_after_s`: it asked to be left alone for so long. `is_partial`: some of several receivers have the message,
    and must not wait for the others for ever.
    """

    code = "notify-failing"

    def __init__(
        self,
        text: str,
        *,
        hint: str = "",
        is_refusal: bool = False,
        is_partial: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(text, hint=hint)
        self.is_refusal = is_refusal
        self.is_partial = is_partial
        self.retry_after_s = retry_after_s


class Sender(Protocol):
    """Delivers to one target."""

    async def send(self, message: OutgoingMessage) -> None:
        """Once, within the target's timeout. Raises Undelivered, CannotStart (a secret cannot be read)."""


@dataclass(frozen=True, slots=True)
class SenderDeps:
    """What senders use. `host`: the name of this machine; `marks`: target → variables that identify a child."""

    host: str
    read_secrets: ReadSecrets
    marks: Callable[[str], Mapping[str, str]]
