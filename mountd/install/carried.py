"""The files in the package for a machine with systemd, and where each of them belongs."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import mountd
from mountd.errors import MountdError, cause_of
from mountd.i18n import M_

SHARE = Path(mountd.__file__).parent / "share"
"""In a checkout it has links to `config/` and `systemd/`; a wheel contains their files."""
PROGRAM = "/usr/local/bin/mountd"
"""As the units name it; where mountd is installed elsewhere, it becomes a link."""
CONFIGURATION = "etc/mountd/mountd.yaml"
RECORD = "etc/mountd/installed.json"
UNITS = "etc/systemd/system"
SYSUSERS, TMPFILES = "etc/sysusers.d/mountd.conf", "etc/tmpfiles.d/mountd.conf"
USER_TMPFILES = "etc/tmpfiles.d/mountd-user.conf"
DIRECTORIES = ("etc/mountd/secrets", "srv/mountd")
"""Directories that tmpfiles creates, besides those of the files above."""
OWN_DIRECTORIES = ("etc/mountd/secrets", "etc/mountd")
"""They hold only files of mountd: if install created them, --purge removes them with everything in them."""
DATA = ("var/lib/mountd", "var/cache/mountd", "var/log/mountd")
"""Directories that the units create, also those of mountd@NAME, with `-NAME` at the end, where there is
`etc/mountd/NAME.yaml`: other programs use such names, too. Only --purge removes them."""


@dataclass(frozen=True, slots=True)
class Carried:
    """`source` below SHARE, `target` below the root of the machine. `user`: only where mountd runs as its own user."""

    source: str
    target: str
    user: bool = False


FILES = (
    Carried("systemd/mountd.service", f"{UNITS}/mountd.service"),
    Carried("systemd/mountd@.service", f"{UNITS}/mountd@.service"),
    Carried("systemd/mountd-ready.service", f"{UNITS}/mountd-ready.service"),
    Carried("systemd/mountd-ready@.service", f"{UNITS}/mountd-ready@.service"),
    Carried("systemd/mountd.sysusers", SYSUSERS),
    Carried("systemd/mountd.tmpfiles", TMPFILES),
    Carried("systemd/user.conf", f"{UNITS}/mountd.service.d/10-user.conf", user=True),
    Carried("systemd/user.conf", f"{UNITS}/mountd@.service.d/10-user.conf", user=True),
    Carried("systemd/user.tmpfiles", USER_TMPFILES, user=True),
    Carried("config/mountd.yaml", CONFIGURATION),
    Carried("config/mountd.schema.json", "etc/mountd/mountd.schema.json"),
    Carried("completion/mountd.bash", "usr/local/share/bash-completion/completions/mountd"),
    Carried("completion/mountd.zsh", "usr/local/share/zsh/site-functions/_mountd"),
    Carried("completion/mountd.fish", "usr/local/share/fish/vendor_completions.d/mountd.fish"),
    Carried("man/mountd.8", "usr/local/share/man/man8/mountd.8"),
)


def files(*, user: bool) -> dict[str, bytes]:
    """Target → content. Raises MountdError where the package lacks one."""
    found = {}
    for each in FILES:
        if each.user and not user:
            continue
        try:
            found[each.target] = (SHARE / each.source).read_bytes()
        except OSError as error:
            raise MountdError(
                M_("cannot read {file}, a file of mountd: {cause}", file=SHARE / each.source, cause=cause_of(error)),
                hint=M_("install mountd again: pip install --force-reinstall mountd"),
            ) from None
    return found


def program(executable: str) -> str:
    """The `mountd` beside this Python. Raises MountdError where there is none."""
    found = os.path.join(os.path.dirname(os.path.abspath(executable)), "mountd")
    if not os.access(found, os.X_OK):
        raise MountdError(
            M_("cannot find the program that the unit is to start: there is no {file}", file=shlex.quote(found)),
            hint=M_("install mountd with pip into an environment of its own, and run its `mountd install`"),
        )
    return found
