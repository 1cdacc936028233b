"""Looks a user or a group up: `user.py NAME` prints a user as JSON, `user.py --group NAME` a group's id.

Both print null when there is none of that name, and before it a line of BEGINS: the dynamic linker, or a module of the
name service, may have written something as well. Each group of a user has a line of its own: there may be 65,536, and
of a line 8 KiB are kept.

A process of its own because a directory service may be asked, and may not answer: a thread that waits for it could not
be ended, and each further try would cost another one.
"""

import grp
import json
import os
import pwd
import sys

BEGINS = "="


def find(name: str) -> dict[str, object] | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = os.getgrouplist(name, entry.pw_gid)
    return {"name": name, "uid": entry.pw_uid, "gid": entry.pw_gid, "groups": groups, "home": entry.pw_dir}


def find_group(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


if __name__ == "__main__":
    found = find_group(sys.argv[2]) if sys.argv[1] == "--group" else find(sys.argv[1])
    print(f"\n{BEGINS}\n{json.dumps(found, indent=0)}")
