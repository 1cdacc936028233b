"""What doctor makes of disks that fill up together, of limits of the kernel, and of apps that run as mountd does."""

from __future__ import annotations

import asyncio
import ctypes
import os
from pathlib import Path

import pytest

from mountd.cli import examine_machine
from mountd.cli.examine_machine import SPARSE_BYTES, Claims
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings

GIB = 1024**3


def settings(root: Path, text: str) -> Settings:
    head = 'remotes: {s: {type: s3, endpoint: "http://x"}}\n'
    return parse(head + text, "x.yaml", Places(root / "state", root / "c", root / "run")).settings


def one_mount(root: Path, more: str = "") -> Settings:
    return settings(root, f"mounts: {{m: {{remote: 's:b', path: {root}/m, cache: {{dir: {root}/cache}}}}}}\n{more}")


def claims(**given: object) -> Claims:
    usual: dict[str, object] = {
        "total": 100 * GIB, "caches": {}, "unlimited": (), "keep": 5 * GIB, "pinned": 0, "places": ("m",),
    }  # fmt: skip
    return Claims(**{**usual, **given})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "result"),
    [
        ({"caches": {"m": 90 * GIB}}, "ok"),
        ({"caches": {"m": 95 * GIB + 1}}, "warn"),
        ({"caches": {"m": 50 * GIB, "n": 50 * GIB}}, "warn"),
        ({"caches": {"m": 50 * GIB}, "pinned": 40 * GIB}, "ok"),
        ({"caches": {"m": 50 * GIB}, "pinned": 50 * GIB}, "warn"),
        ({"unlimited": ("m",)}, "ok"),
        ({"unlimited": ("m",), "pinned": GIB}, "warn"),
        ({"unlimited": ("m", "n")}, "warn"),
        ({"unlimited": ("m",), "caches": {"n": GIB}}, "warn"),
    ],
    ids=str,
)
def test_the_arithmetic_of_a_disk(given: dict[str, object], result: str) -> None:
    check = examine_machine.arithmetic(claims(**given))
    assert (check.result, bool(check.hint)) == (result, result == "warn")


def test_what_lies_on_one_disk_is_counted_together(tmp_path: Path) -> None:
    total = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    each = total * 6 // 10 // 1024**2
    found = settings(
        tmp_path,
        "mounts:\n"
        f"  m: {{remote: 's:b', path: {tmp_path}/m, cache: {{dir: {tmp_path}/c/m, max_size: {each}M}}}}\n"
        f"  n: {{remote: 's:b', path: {tmp_path}/n, cache: {{dir: {tmp_path}/c/n, max_size: {each}M}}}}\n",
    )
    disk, state = examine_machine.disks(found)
    assert (disk.name, disk.result, state.name) == ("disk of m, n", "warn", "disk of state")


def test_pinned_versions_count_each_file_once(tmp_path: Path) -> None:
    pins = tmp_path / "state" / "pins"
    (pins / "store").mkdir(parents=True)
    (pins / "store" / "one").write_bytes(b"x" * 1_000_000)
    os.link(pins / "store" / "one", pins / "again")
    assert 1_000_000 <= examine_machine._taken(pins) < 1_100_000
    names = [check.name for check in examine_machine.disks(one_mount(tmp_path))]
    assert names == ["disk of m, pinned versions", "disk of state"]


# -- sparse files -----------------------------------------------------------------------------------------------------


def test_a_file_with_a_hole_is_tried_beside_the_cache_and_nothing_is_left(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (check,) = asyncio.run(examine_machine.sparse(one_mount(tmp_path)))
    assert (check.name, check.result) == ("holes of cache of m", "ok")
    assert str(cache) in check.text
    assert list(cache.iterdir()) == []


def test_a_file_without_a_hole_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system without sparse files: the child writes every byte."""
    written = examine_machine._TRY_SPARSE.replace('b"x" * 4096, size - 4096', 'b"x" * size, 0')
    assert written != examine_machine._TRY_SPARSE
    monkeypatch.setattr(examine_machine, "_TRY_SPARSE", written)
    (check,) = asyncio.run(examine_machine.sparse(one_mount(tmp_path)))
    assert (check.result, bool(check.hint)) == ("warn", True)


@pytest.mark.parametrize(
    ("taken", "hole", "result", "reports"),
    [(4096, 0, "ok", True), (4096, SPARSE_BYTES, "ok", False), (SPARSE_BYTES, SPARSE_BYTES, "warn", False)],
)
def test_what_is_made_of_a_file_with_a_hole(taken: int, hole: int, result: str, reports: bool) -> None:
    check = examine_machine.sparse_check("x", "/c", taken, hole)
    assert check.result == result
    assert ("and reports" in check.text) is reports


# -- users ------------------------------------------------------------------------------------------------------------


def test_an_app_that_runs_as_mountd_does_is_pointed_out(tmp_path: Path) -> None:
    apps = "apps: {own: {command: [x], user: nobody}, same: {command: [x]}}\n"
    found = {check.name: check for check in examine_machine.users(one_mount(tmp_path, apps))}
    assert {name: check.result for name, check in found.items()} == {"user of own": "ok", "user of same": "warn"}
    assert "apps.same.user" in found["user of same"].hint


# -- limits -----------------------------------------------------------------------------------------------------------


def test_instances_and_watches_of_this_user_are_counted(tmp_path: Path) -> None:
    before = examine_machine._inotify_used(os.geteuid())
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    try:
        assert libc.inotify_add_watch(descriptor, os.fsencode(tmp_path), 0x100) > 0
        mine = [
            line
            for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
            if line.startswith("inotify wd:")
        ]
        assert len(mine) == 1
        after = examine_machine._inotify_used(os.geteuid())
    finally:
        os.close(descriptor)
    assert after[0] >= 1
    assert after[1] >= 1
    assert before != (0, 0) or after == (1, 1)
    assert {check.name for check in examine_machine.inotify()} == {"inotify instances", "inotify watches"}


@pytest.mark.parametrize(
    ("used", "limit", "result"), [(4, 128, "ok"), (120, 128, "ok"), (121, 128, "warn"), (200, 128, "warn")]
)
def test_the_limits_of_inotify(used: int, limit: int, result: str) -> None:
    check = examine_machine.inotify_check("instances", used, limit, 8)
    assert (check.result, "sysctl" in check.hint) == (result, result == "warn")


@pytest.mark.parametrize(
    ("found", "result"),
    [
        ({"MemAvailable": 8 * GIB, "MemTotal": 16 * GIB}, "ok"),
        ({"MemAvailable": GIB // 8, "MemTotal": 16 * GIB}, "warn"),
        ({"MemAvailable": 8 * GIB, "MemTotal": 16 * GIB, "SwapTotal": GIB, "SwapFree": GIB // 2}, "ok"),
        ({"MemAvailable": 8 * GIB, "MemTotal": 16 * GIB, "SwapTotal": GIB, "SwapFree": GIB // 20}, "warn"),
    ],
)
def test_memory_and_swap(found: dict[str, int], result: str) -> None:
    assert examine_machine.memory_check(found).result == result


@pytest.mark.parametrize(
    ("text", "mounts", "result"),
    [("", 10, "ok"), ("", 999, "warn"), ("mount_max = 12 # few\n", 10, "ok"), ("mount_max=12\n", 11, "warn")],
)
def test_mounts_of_users(tmp_path: Path, text: str, mounts: int, result: str) -> None:
    conf = tmp_path / "fuse.conf"
    conf.write_text(text)
    assert [check.result for check in examine_machine.fuse_conf(1000, conf, mounts)] == [result]
    assert list(examine_machine.fuse_conf(0, conf, mounts)) == []


def test_on_this_machine_each_line_has_a_result(tmp_path: Path) -> None:
    found = asyncio.run(examine_machine.checks(one_mount(tmp_path)))
    names = [check.name for check in found]
    assert {"disk of m", "disk of state", "descriptors", "memory", "overcommit"} <= set(names)
    assert all(check.hint for check in found if check.result != "ok")
