"""Looks a user up: `user.py NAME` prints a line of JSON, null when there is none of that name.

A process of its own because a directory service may be asked, and may not answer: a thread that waits for it could not
be ended, and each further try would cost another one.
"""

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


if __name__ == "__main__":
    print(json.dumps(find(sys.argv[1])))
