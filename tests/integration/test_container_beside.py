"""A mount that other containers read: it reaches them, and reaches them again after its container was killed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import dies_with_us
from tests.support.process_one import ProcessOne
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = [pytest.mark.fuse, pytest.mark.root, pytest.mark.thorough]

SOON_S = 30.0
RSHARED = ("unshare", "--pid", "--fork", "--mount-proc", "--propagation", "unchanged", "--kill-child", "--")
RSLAVE = ("unshare", "--mount", "--propagation", "slave", "sleep", "600")


@pytest.fixture
def mountd(store: RcloneS3) -> Iterator[ProcessOne]:
    """Without an app, in a container whose directory is shared with the host, as compose's `rshared` does it."""
    with ProcessOne(store.endpoint, store.access_key_id, store.secret_access_key, wrap=RSHARED) as daemon:
        root = str(daemon.root)
        del daemon.config["apps"]
        subprocess.run(["mount", "--bind", root, root], check=True)
        try:
            subprocess.run(["mount", "--make-shared", root], check=True)
            yield daemon
        finally:
            daemon.close()
            subprocess.run(["umount", "-R", "-l", root], check=False)


@pytest.fixture
def reader(mountd: ProcessOne) -> Iterator[Path]:
    """The root of a container that was there before the mount, as its processes see it."""
    process = subprocess.Popen(dies_with_us([*RSLAVE]), cwd="/")
    try:
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", SOON_S, "the reader")
        yield Path(f"/proc/{process.pid}/root")
    finally:
        process.kill()
        process.wait()


def read(reader: Path, mountd: ProcessOne) -> bytes:
    """Through the link, in the reader's container."""
    version = os.readlink(f"{reader}{mountd.link}")
    return Path(f"{reader}{version}/config.yaml").read_bytes()


def is_dead(reader: Path, mountd: ProcessOne) -> bool:
    try:
        read(reader, mountd)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    return False


def test_readers_beside_see_the_mount_and_the_next_one(mountd: ProcessOne, reader: Path) -> None:
    mountd.start_ready()
    content = read(reader, mountd)
    assert content
    assert mountd.process is not None
    mountd.process.send_signal(signal.SIGKILL)
    mountd.wait_exit()
    assert str(mountd.mount) in Path("/proc/self/mountinfo").read_text(), "the host still has it, dead"
    until(lambda: is_dead(reader, mountd), SOON_S, "the last process of its container to be gone")

    mountd.start_ready()
    assert read(reader, mountd) == content
    assert mountd.events("cleared a mount of a previous run")
    assert mountd.stop() == 0
    assert str(mountd.mount) not in Path("/proc/self/mountinfo").read_text()
