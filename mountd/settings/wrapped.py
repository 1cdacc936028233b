"""Which remotes a remote wraps."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMED = re.compile(r"(?<![A-Za-z0-9_.+@-])([a-z0-9][a-z0-9_-]*)[:,]")


def beneath(remotes: Mapping[str, Mapping[str, object]], name: str) -> tuple[str, ...]:
    """The remote itself and each one that it wraps (crypt, union, alias, …), at whatever depth.

    By what its options say: `remote = a:b`, `upstreams = "a:b:ro c=d:"`. A word too many does no harm.
    """
    found = [name]
    for each in found:  # grows meanwhile
        for value in remotes.get(each, {}).values():
            if isinstance(value, str):
                found += [word for word in _NAMED.findall(value) if word in remotes and word not in found]
    return tuple(dict.fromkeys(found))
