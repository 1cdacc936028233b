"""Work of the product that blocks the event loop is an error in each test that runs one, but for what stands here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from blockbuster import blockbuster_ctx

# Looks at what lies on local disk cost microseconds, descriptors of pipes and sockets do not block, and the locks are
# those of libraries, held for as long.
NOT_WATCHED = (
    *("os.stat", "os.readlink", "os.access", "os.getcwd", "os.path.abspath", "os.path.islink"),
    *("os.path.samestat", "os.path.sameopenfile", "os.read", "os.write"),
    *("threading.Lock.acquire", "threading.Lock.acquire_lock"),
)
MAY_BLOCK = {
    # A link lies on local disk, and moves in one step: nothing may come between the check of its path and the move.
    "mountd/model/link.py": {"point", "remove", "sweep", "prove", "check", "_directory", "_readable"},
    "mountd/process/way.py": {"open_directory"},
    # Before the loop has anything else to do, and after it.
    "mountd/process/directories.py": {"make", "open_private"},
    "mountd/api/server.py": {"listen_unix", "close"},
    "mountd/api/sockets.py": {"bind_unix"},
    "mountd/daemon/watch_files.py": {"close"},
    "mountd/rclone/binary.py": {"find"},
    "mountd/process/notify.py": {"__init__", "close"},
    # An app that is to stop gets its signal at once; what belongs to it has to be known before.
    "mountd/app/app.py": {"prepare_end"},
    # The kernel's own files: the table of mounts, and the cgroup of one app.
    "mountd/process/cgroup.py": {"make", "end"},
    # Files of the runtime directory, which lies in memory.
    "mountd/mount/engine.py": {"_address"},
    "mountd/rclone/rc.py": {"save_listing"},
    "mountd/model/surveyor.py": {"__exit__"},
    "mountd/model/wanted.py": {"wanted_batches"},
    # Files of /proc, bounded in number.
    "mountd/fuse/rights.py": {"_read"},
    "mountd/process/family.py": {"of"},
    "mountd/mount/evidence.py": {"_threads"},
    "mountd/api/peer.py": {"_login_uid"},
    # A short run of the command line does nothing else meanwhile.
    "mountd/publish/record.py": {"open_record", "add", "_add", "close", "forget"},
    "mountd/publish/hashing.py": {"scan", "digests"},
    # Tests load a configuration where the daemon has a thread for it.
    "mountd/settings/plain_file.py": {"read_plain"},
}


@contextmanager
def forbidden() -> Iterator[None]:
    with blockbuster_ctx("mountd") as watch:
        for name, function in watch.functions.items():
            if name in NOT_WATCHED:
                function.deactivate()
            for file, functions in MAY_BLOCK.items():
                function.can_block_in(file, functions)
        yield
