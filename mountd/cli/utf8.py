"""Text is UTF-8 whatever the locale: names of files, the configuration, what is printed, as in rclone and git.

Python takes the encoding of a locale (GBK, Latin-1) for the names of files, and only its start decides that. Variables
would be inherited by the apps, which must get the locale as it is; so the interpreter is started again with a flag.
"""

from __future__ import annotations

import os
import sys

FLAG = ("-X", "utf8")


def insist() -> None:
    """Returns when this process speaks UTF-8; else it is replaced, under its process id, by one that does."""
    if sys.flags.utf8_mode or sys.getfilesystemencoding().lower().replace("-", "") == "utf8":
        return
    if not sys.executable or getattr(sys, "frozen", False):
        return  # embedded somewhere: nobody knows how it is started
    try:
        with open("/proc/self/cmdline", "rb") as file:  # as bytes, since the locale's encoding may not give them back
            words = file.read().split(b"\0")[1:-1]
    except OSError:
        words = [os.fsencode(word) for word in sys.orig_argv[1:]]
    os.execv(sys.executable, [os.fsencode(sys.executable), *map(os.fsencode, FLAG), *words])  # noqa: S606 (no shell)
