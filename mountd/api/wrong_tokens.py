"""How many wrong tokens an address may try: ten at once, then one each six seconds. Its table is bounded."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

AT_ONCE = 10
EACH_S = 6.0
ADDRESSES = 1024
"""Remembered at a time; then the one whose last wrong token is oldest is forgotten."""
NETWORK_BITS = 64
"""Of an IPv6 address: a client that has one has all others with this prefix."""


class WrongTokens:
    """Times are seconds of one clock, given by the caller."""

    def __init__(self) -> None:
        self._full_at: OrderedDict[str, float] = OrderedDict()
        """by address: when it may try AT_ONCE again"""

    def wait_s(self, address: str, now: float) -> float:
        """How long until it may try again; 0.0: now."""
        full_at = self._full_at.get(_owner(address), now)
        return max(0.0, full_at - now - (AT_ONCE - 1) * EACH_S)

    def count(self, address: str, now: float) -> None:
        owner = _owner(address)
        self._full_at[owner] = max(self._full_at.get(owner, now), now) + EACH_S
        self._full_at.move_to_end(owner)
        while len(self._full_at) > ADDRESSES:
            self._full_at.popitem(last=False)

    def __len__(self) -> int:
        return len(self._full_at)


def _owner(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), NETWORK_BITS), strict=False))
