"""What `doctor` asks the stores themselves, without keys: how far their clocks are off, and over which network they
are reached.

Whether this machine is in a store's own cloud is found out by a connection to the store's internal address. That costs
nothing, takes two seconds at most, and says what matters: whether the address can be used. A cloud's metadata service
is not asked: it says where the machine is, not whether the way is open, and to those who may ask it also gives keys.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from mountd import clock
from mountd.cli import store_probe
from mountd.cli.examine import Check
from mountd.errors import Unavailable
from mountd.i18n import M_
from mountd.process import tool
from mountd.settings import environment
from mountd.settings.presets import StoreAddress, address_of, host_of
from mountd.settings.remotes import RemoteSettings
from mountd.settings.schema import Settings

CLOCK_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
SPAWN_S = 3.0
"""For the child itself, on a machine that is busy."""
WARN_SKEW_S = 60.0
REFUSED_SKEW_S = 900.0
"""Amazon's, and what the others took over from it."""
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


async def stores(settings: Settings) -> list[Check]:
    """A line for the clock of each store behind a mount or an outbox, and one for the network to it, where that is
    known."""
    found = await asyncio.gather(
        *(each for name, remote in in_use(settings) for each in (_clock(name, remote), _network(name, remote)))
    )
    return [check for check in found if check is not None]


def in_use(settings: Settings) -> Iterator[tuple[str, RemoteSettings]]:
    """The S3 remotes that mounts and outboxes use, each once."""
    named = [each.remote_name for each in settings.mounts.values()]
    named += [each.remote_name for each in settings.outbox.values()]
    used = (each for name in named for each in settings.beneath(name))
    for name in dict.fromkeys(used):
        if settings.remotes[name].type == "s3":
            yield name, settings.remotes[name]


def endpoint_of(remote: RemoteSettings) -> str:
    """As an address with its scheme; empty when it is not known."""
    endpoint, region = remote.options.get("endpoint", ""), remote.options.get("region", "")
    if not isinstance(endpoint, str) or not isinstance(region, str):
        return ""
    if not endpoint:
        return f"https://s3.{region or 'us-east-1'}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
    return endpoint if "://" in endpoint else f"https://{endpoint}"


# -- the clock --------------------------------------------------------------------------------------------------------


async def _clock(name: str, remote: RemoteSettings) -> Check | None:
    """None where the store does not answer, or not with its time: other checks report that."""
    sent = clock.now()
    answer = await _probe("clock", endpoint_of(remote), CLOCK_TIMEOUT_S)
    received = clock.now()
    try:
        date = parsedate_to_datetime(answer)
    except ValueError:
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return clock_check(M_("clock of {name}", name=name), skew_s(sent, received, date))


def skew_s(sent: datetime, received: datetime, date: datetime) -> float:
    """By how many seconds this machine's clock is ahead of the store's, at least; negative: behind. 0: it may be right.

    `date`: of an answer between the other two, without fractions of a second.
    """
    ahead = (sent - date).total_seconds() - 1
    behind = (received - date).total_seconds()
    return ahead if ahead > 0 else behind if behind < 0 else 0.0


def clock_check(where: str, skew: float) -> Check:
    text = M_("this machine and the store have the same time")
    if skew > 0:
        text = M_("this machine's clock is {seconds:.0f} s ahead of the store's", seconds=skew)
    elif skew < 0:
        text = M_("this machine's clock is {seconds:.0f} s behind the store's", seconds=-skew)
    hint = M_("set the clock: timedatectl set-ntp true")
    if abs(skew) >= REFUSED_SKEW_S:
        minutes = REFUSED_SKEW_S / 60
        text = M_("{text}, and stores refuse what is {minutes:.0f} minutes off", text=text, minutes=minutes)
        return Check(where, "fail", text, hint)
    if abs(skew) >= WARN_SKEW_S:
        return Check(where, "warn", text, hint)
    return Check(where, "ok", text)


# -- the network ------------------------------------------------------------------------------------------------------


async def _network(name: str, remote: RemoteSettings) -> Check | None:
    endpoint = endpoint_of(remote)
    address = address_of(endpoint)
    if address is None or goes_through_proxy(os.environ):
        return None
    return await network_check(
        M_("network of {name}", name=name), endpoint, address, by_preset=remote.preset is not None
    )


def goes_through_proxy(given: Mapping[str, str]) -> bool:
    """Whether rclone's requests may: then a connection from here says nothing of them."""
    return any(given.get(each) or given.get(each.upper()) for each in _PROXIES)


async def network_check(where: str, endpoint: str, address: StoreAddress, *, by_preset: bool) -> Check | None:
    """`address` is what `endpoint` comes to; with `by_preset` it was not written, but a preset's."""
    host, preset = host_of(endpoint), address.preset
    if not preset.internal:
        return None
    if address.network == "internal":
        if await _probe("connect", endpoint, CONNECT_TIMEOUT_S):
            return Check(where, "ok", M_("{host} answers: over the store's internal network", host=host))
        text = M_(
            "{host} takes no connection: it is there only inside of {store}'s network in {region}",
            host=host,
            store=preset.title,
            region=address.region,
        )
        other = "network: public" if by_preset else f"endpoint: {preset.address(address.region)}"
        return Check(where, "fail", text, M_("on a machine elsewhere write {setting}", setting=other))
    if not preset.has_own_internal:
        if is_internal(await _probe("connect", endpoint, CONNECT_TIMEOUT_S)):
            return Check(where, "ok", M_("{host} leads over the store's internal network", host=host))
        region = address.region
        text = M_("{host} leads over the internet, as outside of its region {region}", host=host, region=region)
        return Check(where, "ok", text)
    inside = host_of(address.internal)
    if is_internal(await _probe("connect", address.internal, CONNECT_TIMEOUT_S)):
        better = "network: internal" if by_preset else f"endpoint: {address.internal}"
        return Check(
            where,
            "warn",
            M_(
                "{host} leads over the internet, at a cost, and {other} answers from here as well",
                host=host,
                other=inside,
            ),
            M_("write {setting}: over the store's internal network traffic costs nothing", setting=better),
        )
    text = M_("{host} leads over the internet; {other} does not answer from here", host=host, other=inside)
    return Check(where, "ok", text)


def is_internal(peer: str) -> bool:
    """Whether it is an address that the internet does not have, such as 100.64.0.0/10 of clouds."""
    try:
        return not ipaddress.ip_address(peer).is_global
    except ValueError:
        return False


async def _probe(what: str, url: str, timeout_s: float) -> str:
    """What store_probe.py prints; empty when there is no answer in time."""
    argv = [sys.executable, "-I", "-S", store_probe.__file__, what, url, f"{timeout_s:g}"]
    given = environment.of_rclone(os.environ, ())
    try:
        outcome = await tool.run(argv, timeout_s=timeout_s + SPAWN_S, environment=given)
    except Unavailable:
        return ""
    return outcome.output.strip() if outcome.code == 0 else ""
