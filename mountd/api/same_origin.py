"""Whether a browser sends a request for a page of mountd itself, by headers that a page cannot set or leave out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

SITE, ORIGIN, HOST, FORWARDED_HOST = "Sec-Fetch-Site", "Origin", "Host", "X-Forwarded-Host"


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """False also where neither header says so: every browser sends one of them with what it posts."""
    site, origin = headers.get(SITE), headers.get(ORIGIN)
    if site is None and origin is None:
        return False
    if site is not None and site != "same-origin":
        return False
    # A proxy may ask us by another name, and pass on the one that the browser has asked. No page of another site can
    # add that header: its browser would ask us first whether it may.
    hosts = headers.get(HOST, ""), headers.get(FORWARDED_HOST, "").rpartition(",")[2]
    return origin is None or _host_of(origin) in _plain(hosts)


def _host_of(origin: str) -> str | None:
    """None: it is the origin of no page, such as `null`."""
    try:
        found = urlsplit(origin)
    except ValueError:
        return None
    is_page = found.scheme in ("http", "https") and found.netloc and not (found.path or found.query or found.fragment)
    return _without_port(found.netloc) if is_page else None


def _plain(hosts: Iterable[str]) -> set[str]:
    return {_without_port(each.strip()) for each in hosts if each.strip()}


def _without_port(host: str) -> str:
    """In lower case, without the default port."""
    return host.lower().removesuffix(":80").removesuffix(":443")
