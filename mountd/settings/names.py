"""Names: what may be a version, and what may name a remote, a mount, a model or an app."""

from __future__ import annotations

import re

from mountd.errors import BadVersionName

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
MUTABLE = frozenset(
    {"latest", "current", "previous", "stable", "main", "master", "head", "tip", "newest", "edge", "nightly"}
)
"""Names that mean something else tomorrow; a version must mean the same bytes for ever."""


def check_version(name: str) -> str:
    """The name itself when it can be a version; raises BadVersionName with the reason when it never can."""
    hint = "name a version, such as v23; `mountd versions` lists them"
    if not name:
        raise BadVersionName("cannot use an empty version name", hint=hint)
    if name.lower() in MUTABLE:
        raise BadVersionName(
            f"cannot use {name!r} as a version: such a name can mean other files tomorrow",
            hint="name a version that never changes, such as v23; `mountd versions` lists them",
        )
    if not VERSION.fullmatch(name) or ".." in name:
        raise BadVersionName(
            f"cannot use {name!r} as a version: a version is up to 64 letters, digits, '.', '_' and '-', "
            "with a letter or digit first and no '..'",
            hint=hint,
        )
    return name
