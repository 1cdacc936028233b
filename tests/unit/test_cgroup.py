"""Where the cgroup of this process is, by what the kernel writes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mountd.process.cgroup import find

UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
HYBRID = "42 32 0:39 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
VERSION_1 = "33 32 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"
OF_A_CONTAINER = "500 490 0:26 /docker/abc /sys/fs/cgroup rw - cgroup2 cgroup rw"
WITHOUT_OPTIONS = "31 23 0:27 / /cgroup2 rw - cgroup2 none rw"


@pytest.mark.parametrize(
    ("cgroup", "mounts", "found"),
    [
        ("0::/system.slice/mountd.service", [UNIFIED], "/sys/fs/cgroup/system.slice/mountd.service"),
        ("0::/", [VERSION_1, HYBRID], "/sys/fs/cgroup/unified"),
        ("0::/", [WITHOUT_OPTIONS], "/cgroup2"),
        ("0::/docker/abc", [OF_A_CONTAINER], "/sys/fs/cgroup"),
        ("0::/docker/abc/x", [OF_A_CONTAINER], "/sys/fs/cgroup/x"),
        ("0::/docker/abcd", [OF_A_CONTAINER], None),
        ("0::/../other", [UNIFIED], None),
        ("9:cpu:/a", [VERSION_1, UNIFIED], None),
        ("0::/a", [VERSION_1], None),
    ],
)
def test_where_it_is(cgroup: str, mounts: list[str], found: str | None) -> None:
    assert find(["4:memory:/m", cgroup], mounts) == (None if found is None else Path(found))
