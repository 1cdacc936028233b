"""What must hold of a target of notifications: its events are ones that there are, its address is no secret."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from mountd import codes
from mountd.settings import masking
from mountd.settings.http import is_loopback
from mountd.settings.notify import NotifySettings
from mountd.settings.source import Place
from mountd.settings.words import Finding, did_you_mean

MOST_MESSAGES = 1000


def check_target(place: Place, target: NotifySettings, *, plain: bool) -> Iterator[Finding]:
    """`plain`: secrets may stand in the file."""
    for index, pattern in enumerate(target.events or ()):
        if not codes.is_pattern(pattern) or not codes.matching(pattern):
            meant = did_you_mean(pattern, codes.CODES) or "; `mountd events` shows those of this machine"
            yield Finding((*place, "events", index), f"no event has the code {pattern[:64]!r}{meant}")
    if target.events is not None and not target.events:
        yield Finding((*place, "events"), "must not be empty: leave it out for what people must know")
    if target.at_most is not None and not 1 <= target.at_most.count <= MOST_MESSAGES:
        yield Finding((*place, "at_most"), f"must be 1 to {MOST_MESSAGES} messages")
    if isinstance(target.webhook, str):
        yield from _address((*place, "webhook"), target.webhook, plain=plain)


def _address(place: Place, url: str, *, plain: bool) -> Iterator[Finding]:
    parts = urlsplit(url)
    if not plain and (parts.query or any(masking.TOKEN_PART.fullmatch(part) for part in parts.path.split("/"))):
        yield Finding(
            place,
            "may hold a secret in plain text: write {env: NAME}, {file: /path} or {credential: NAME} instead, "
            "or set allow_plain_secrets: true",
        )
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield Finding(place, "can be read and changed by anybody on the way: write https://", warning=True)
