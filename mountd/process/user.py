"""Looks a user or a group up: `user.py NAME` prints a user as a line of JSON, `user.py --group NAME` a group's id.

Both print null when there is none of that name.

A process of its own because a directory service may be asked, and may not answer: a thread that waits for it could not
be ended, and each further try would cost another one.
"""

import grp
import json
import os
import pwd
import sys


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
    print(json.dumps(find_group(sys.argv[2]) if sys.argv[1] == "--group" else find(sys.argv[1])))
