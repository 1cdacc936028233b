"""What doctor makes of directories, mount points, links, ports and versions: a line each, and what to do about it."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mountd.cli import examine, examine_config, examine_mount, examine_unit
from mountd.cli.examine import Check, tried
from mountd.cli.examine_bucket import SHOWN_VERSIONS, _versions
from mountd.errors import CannotStart, DiskTimeout
from mountd.files.client import Files
from mountd.fuse import table
from mountd.process.child import User
from mountd.rclone.binary import Binary
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings
from tests.support import hold_port


def settings(root: Path, text: str = "", **mount: Any) -> Settings:
    """One mount `m` at `root`/m."""
    given = {"remote": "s:b", "path": f"{root}/m", "cache": {"dir": f"{root}/cache", "min_free": "1M"}, **mount}
    head = f'remotes: {{s: {{type: s3, endpoint: "http://x"}}}}\nmounts: {{m: {given!r}}}\n'
    return parse(head + text, "x.yaml", Places(root / "state", root / "c", root / "run")).settings


def of(checks: list[Check]) -> dict[str, str]:
    return {check.name: check.result for check in checks}


def test_a_check_is_what_it_raises() -> None:
    def fail() -> None:
        raise CannotStart("cannot mount: x", hint="do y")

    assert tried("fuse", "well", fail) == Check("fuse", "fail", "cannot mount: x", "do y")
    assert tried("fuse", "well", lambda: None) == Check("fuse", "ok", "well")


def test_other_users_are_looked_at_only_where_they_are_let_in(tmp_path: Path) -> None:
    names = [check.name for check in examine.machine(None)]
    assert names == ["fuse", "fusermount", "mtab"]
    for allow_other, also in (("true", ["allow_other"]), ("false", [])):
        found = [check.name for check in examine.machine(settings(tmp_path, allow_other=allow_other))]
        assert found == [*names, *also]


# -- directories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cache", "result"),
    [
        ({}, "ok"),
        ({"max_size": "1M"}, "ok"),
        ({"max_size": "90000000G"}, "warn"),
        ({"min_free": "90000000G"}, "fail"),
        ({"min_free": "90000000G", "max_size": "90000000G"}, "fail"),
    ],
    ids=str,
)
def test_the_room_of_a_cache(tmp_path: Path, cache: dict[str, str], result: str) -> None:
    found = settings(tmp_path, cache={"dir": f"{tmp_path}/cache", "min_free": "1M", **cache})
    *_, check = examine.directories(found)
    assert (check.name, check.result, bool(check.hint)) == ("cache of m", result, result != "ok")
    assert f"{tmp_path}/cache" in check.text


def test_what_a_cache_holds_already_is_room_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = os.statvfs(tmp_path)
    free = usage.f_bavail * usage.f_frsize
    (tmp_path / "cache" / "vfs").mkdir(parents=True)
    with (tmp_path / "cache" / "vfs" / "a").open("wb", buffering=0) as file:
        file.write(b"x" * 100_000)
        os.fsync(file.fileno())  # some file systems count only what is on disk
    (tmp_path / "cache" / "gone").symlink_to("nothing")
    assert 100_000 <= examine._used(tmp_path / "cache") < 1_000_000
    monkeypatch.setattr(os, "statvfs", lambda _: usage)
    for beyond, result in ((0, "ok"), (50_000, "ok"), (2_000_000, "warn")):
        size = {"dir": f"{tmp_path}/cache", "min_free": "1M", "max_size": f"{free + beyond}B"}
        *_, check = examine.directories(settings(tmp_path, cache=size))
        assert check.result == result, beyond


def test_bad_places(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = {"state": f"{tmp_path}/file/s", "runtime": f"{tmp_path}/file/r"}
    text = "".join(f"{key}: {value}\n" for key, value in places.items())
    checks = list(examine.directories(settings(tmp_path, text, cache={"dir": f"{tmp_path}/file/c"})))
    assert of(checks) == {"state": "fail", "runtime": "fail", "cache of m": "fail"}
    assert all(f"{tmp_path}/file" in check.text and check.hint for check in checks)
    (tmp_path / "state").mkdir()
    state, runtime, _ = examine.directories(settings(tmp_path))
    assert (state.result, runtime.result) == ("ok", "ok")
    assert state.text.removeprefix(f"{tmp_path}/state") != runtime.text.removeprefix(f"{tmp_path}/run"), "one is there"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_of_somebody_else() -> None:
    assert examine._writable("state", Path("/usr/x")).result == "fail"


# -- mount points and links -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "result", "text"),
    [
        ("none", "ok", "can be created"),
        ("empty", "ok", "empty"),
        ("full", "fail", "(a)"),
        ("file", "fail", "not a directory"),
        ("link", "fail", "symbolic link"),
        ("below-a-file", "fail", "not a directory"),
    ],
)
def test_mount_points(tmp_path: Path, kind: str, result: str, text: str) -> None:
    point = tmp_path / "m"
    match kind:
        case "empty":
            point.mkdir()
        case "full":
            point.mkdir()
            (point / "a").touch()
        case "file":
            point.touch()
        case "link":
            point.symlink_to(tmp_path)
        case "below-a-file":
            (tmp_path / "f").touch()
            point = tmp_path / "f" / "m"
    before = sorted(os.listdir(tmp_path))
    (check,) = asyncio.run(examine.mount_points(settings(tmp_path, path=str(point))))
    assert (check.name, check.result, bool(check.hint)) == ("mount point of m", result, result == "fail")
    assert text in check.text
    assert sorted(os.listdir(tmp_path)) == before


class Silent(Files):
    """A mount that hangs."""

    async def statfs(self, path: str, *, timeout_s: float) -> None:
        raise DiskTimeout("no answer")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that are started may get no processor for a while."""
    monkeypatch.setattr(examine, "TOUCH_TIMEOUT_S", 60.0)
    monkeypatch.setattr(examine, "ACCESS_TIMEOUT_S", 60.0)
    monkeypatch.setattr(examine_unit, "ASK_S", 60.0)
    monkeypatch.setattr(examine_config, "ASK_S", 60.0)
    monkeypatch.setattr(examine_config, "WAY_S", 60.0)
    monkeypatch.setattr(examine_mount, "KILL_S", 60.0)


def mounted(path: str, files: type[Files] = Files) -> Check:
    async def look() -> Check:
        made = files("test", {})
        try:
            return await examine._mount_point("p", path, "mountd:abc:m", made)
        finally:
            await made.close()

    return asyncio.run(look())


def test_a_mount_point_that_somebody_else_has_mounted_is_not_touched() -> None:
    check = mounted("/proc", Silent)
    assert (check.result, "already mounted" in check.text, bool(check.hint)) == ("fail", True, True)


def test_a_mount_of_ours_is_well_while_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    ours = table.Entry(1, 0, "0:7", "/", str(tmp_path), "fuse.rclone", "mountd:abc:m")
    monkeypatch.setattr(examine, "read_table", lambda: (ours,))
    check = mounted(str(tmp_path))
    assert (check.result, check.hint) == ("ok", ""), "what lies there is the bucket's"
    check = mounted(str(tmp_path), Silent)
    assert (check.result, "no answer" in check.text) == ("fail", True)
    assert f"umount --lazy {tmp_path}" in check.hint


@pytest.mark.root
def test_a_mount_in_its_place_cannot_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is mounted, the owner of the directory above can put another one there."""
    theirs = tmp_path / "theirs"
    (theirs / "m").mkdir(parents=True)
    os.chown(theirs, 4242, 4242)
    found = settings(tmp_path, path=f"{theirs}/m")
    entry = table.Entry(1, 0, "0:7", "/", f"{theirs}/m", "fuse.rclone", "x")
    for entries, places in (((), ["mounts.m.path"]), ((entry,), [])):
        monkeypatch.setattr(examine_config, "read_table", lambda entries=entries: entries)
        unsafe, unchecked = examine_config._unsafe_or_unchecked(found, {})
        assert ([each.path for each in unsafe], unchecked) == (places, [])
        assert all("uid 4242" in each.text for each in unsafe)
    allowed = settings(tmp_path, "allow_unsafe_paths: true\n", path=f"{theirs}/m")
    assert examine_config._unsafe_or_unchecked(allowed, {}) == ([], [])


MODEL = "models: {{h: {{mount: m, directory: 'h_{{version}}', link: {link}, version: v1}}}}\n"


@pytest.mark.parametrize(
    ("kind", "result", "text"),
    [
        ("none", "ok", "can be made"),
        ("link", "ok", "→ somewhere"),
        ("file", "fail", "not a link"),
        ("directory", "fail", "not a link"),
        ("below-a-file", "fail", "not a directory"),
    ],
)
def test_links(tmp_path: Path, kind: str, result: str, text: str) -> None:
    link = tmp_path / "hub"
    match kind:
        case "link":
            link.symlink_to("somewhere")
        case "file":
            link.write_text("precious")
        case "directory":
            link.mkdir()
        case "below-a-file":
            (tmp_path / "f").touch()
            link = tmp_path / "f" / "hub"
    (check,) = examine.links(settings(tmp_path, MODEL.format(link=link)))
    assert (check.name, check.result, bool(check.hint)) == ("link of h", result, result == "fail")
    assert text in check.text


# -- ports and apps ---------------------------------------------------------------------------------------------------


def test_ports_of_the_api_and_of_apps(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken, hold_port() as held:
        port = taken.getsockname()[1]
        text = (
            f"http: {{listen: '127.0.0.1:{held.getsockname()[1]}'}}\n"
            f"apps: {{a: {{command: [x], ready: {{http: 'http://127.0.0.1:{port}/x'}}}}, b: {{command: [x]}},\n"
            " c: {command: [x], ready: {command: [y]}}}\n"
        )
        http, app = examine.ports(settings(tmp_path, text))
    assert (http.name, http.result) == ("http", "ok")
    assert (app.name, app.result, str(port) in app.text, str(port) in app.hint) == ("port of a", "fail", True, True)


def test_which_ways_an_app_has_to_go(tmp_path: Path) -> None:
    link = tmp_path / "hub"
    app = f"apps: {{a: {{command: [x], directory: {tmp_path}/app, needs: [h, m]}}}}\n"
    found = settings(tmp_path, MODEL.format(link=link) + app)
    above = [str(each) for each in reversed(tmp_path.parents)] + [str(tmp_path)]

    def ways(*, running: bool) -> list[list[str]]:
        return examine._ways(found, found.apps["a"], running=running)

    own = [*above, f"{tmp_path}/app"]
    assert ways(running=False) == [own, above, above, above], "what is mounted later cannot be tried"
    assert ways(running=True) == [own, [*above, f"{tmp_path}/m"], above, [*above, f"{tmp_path}/m"]]
    link.symlink_to("m/h_v1")
    assert ways(running=False) == [own, above, above, above]
    assert ways(running=True)[2] == [*above, str(link)]


@pytest.mark.root
def test_what_a_user_cannot_enter_is_named(tmp_path: Path) -> None:
    """tmp_path is root's alone; of a shallower place the whole way is open."""
    nobody = User("nobody", 65534, 65534, (65534,), "/")
    place = tmp_path / "a"
    place.mkdir()

    async def access(*ways: list[str]) -> Check:
        return await examine._access("webui", nobody, ways)

    check = asyncio.run(access(["/", "/usr"], ["/", str(place)]))
    assert (check.name, check.result, bool(check.hint)) == ("access of webui", "fail", True)
    assert str(place) in check.text
    assert "nobody" in check.text
    check = asyncio.run(access(["/", "/usr"], ["/", "/proc"]))
    assert (check.result, check.text.endswith(" /usr, /proc")) == ("ok", True)


# -- rclone, its mount and the unit -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "found", "result", "text"),
    [
        ("v2", ["v1", "v2"], "ok", "v1, v2"),
        ("v3", ["v1", "v2"], "warn", "v1, v2"),
        ("v1", [], "fail", "none"),
        ("v1", [f"v{number}" for number in range(SHOWN_VERSIONS)], "ok", f"v{SHOWN_VERSIONS - 1}"),
        ("v1", [f"v{number}" for number in range(SHOWN_VERSIONS + 2)], "ok", "and 2 more"),
    ],
)
def test_the_versions_of_a_bucket(wanted: str, found: list[str], result: str, text: str) -> None:
    check = _versions("hub", wanted, found)
    assert (check.name, check.result, bool(check.hint)) == ("versions of hub", result, result != "ok")
    assert check.text.endswith(text) or result == "fail"
    assert f"v{SHOWN_VERSIONS}" not in check.text


def binary(path: Path) -> Binary:
    return Binary(path, (1, 75, 0), frozenset())


@pytest.mark.parametrize("wrong", ["none", "failed"])
def test_no_mount_is_tried_where_it_must_fail(tmp_path: Path, wrong: str) -> None:
    before = [Check("fuse", "fail" if wrong == "failed" else "ok", "")]
    found = None if wrong == "none" else binary(Path("/nonexistent"))
    assert asyncio.run(examine_mount.checks(found, before, settings(tmp_path))) == []


def test_an_rclone_that_does_not_mount_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, script = tmp_path / "room", tmp_path / "rclone"
    room.mkdir()
    monkeypatch.setattr(examine_mount, "TEMPORARY", str(room))
    ticks = itertools.count(0.0, 20.0)  # its time is over a few looks after it runs
    now = SimpleNamespace(monotonic=lambda: next(ticks) if (tmp_path / "running").exists() else 0.0)
    monkeypatch.setattr(examine_mount, "time", now)
    for says, limit_s, text in (
        ("echo 'CRITICAL: no such thing' >&2; exit 1", 60.0, "no such thing"),
        (f'echo "$@" >{tmp_path}/words; touch {tmp_path}/running; exec sleep 600', 60.0, "60 s"),
        (None, 60.0, ""),
    ):
        monkeypatch.setattr(examine_mount, "LIMIT_S", limit_s)
        script.unlink(missing_ok=True)
        (tmp_path / "running").unlink(missing_ok=True)
        if says is not None:
            script.write_text(f"#!/bin/sh\n{says}\n")
            script.chmod(0o755)
        (check,) = asyncio.run(examine_mount.checks(binary(script), [], settings(tmp_path, allow_other="true")))
        assert (check.name, check.result, bool(check.hint)) == ("mounting", "fail", True)
        assert text in check.text
        assert os.listdir(room) == []
    words = (tmp_path / "words").read_text().split()
    assert {"mount", ":memory:", "--read-only", "--allow-other", "--config="} <= set(words)


SYSTEMCTL = """#!/bin/sh
case "$*" in
  "cat --no-pager mountd.service") printf '%s\\n' '[Service]' "ExecStart=mountd run -c $FILE"; exit $CODE ;;
  "is-active mountd.service") echo failed; exit 3 ;;
esac
"""


@pytest.mark.parametrize(("named", "code", "found"), [("{file}", 0, True), ("/b.yaml", 0, False), ("{file}", 1, False)])
def test_the_unit_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, code: int, found: bool
) -> None:
    file = tmp_path / "m.yaml"
    script = SYSTEMCTL.replace("$FILE", named.format(file=file)).replace("$CODE", str(code))
    (tmp_path / "systemctl").write_text(script)
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    unit = asyncio.run(examine_unit.find(file))
    assert (unit is not None) is found
    if unit is not None:
        assert (unit.state, replace(unit, text="").names(file)) == ("failed", False)


def test_without_systemd_there_is_no_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("systemctl") is None
    assert asyncio.run(examine_unit.find(tmp_path / "m.yaml")) is None
