"""The control socket takes nobody's place: only a socket that nobody serves is replaced, only our own removed."""

from __future__ import annotations

import grp
import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mountd.api import sockets
from mountd.api.sockets import bind_unix
from mountd.errors import Busy, MountdError
from mountd.settings.schema import ControlSettings
from tests.support.shelf import shelf


@pytest.fixture
def place() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))  # tmp_path would not fit into a Unix socket's address
    yield root / "s"
    shutil.rmtree(root)


@pytest.mark.parametrize("kind", ["file", "link", "directory", "fifo", "datagrams"])
def test_what_is_no_socket_of_ours_stays(place: Path, kind: str) -> None:
    precious = place.with_name("precious")
    precious.write_text("as it was")
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other:
        match kind:
            case "file":
                place.write_text("as it was")
            case "link":
                place.symlink_to(precious)
            case "directory":
                place.mkdir()
            case "fifo":
                os.mkfifo(place)
            case _:
                other.bind(str(place))
        before = place.lstat()
        with pytest.raises(MountdError, match=str(place)) as refused:
            bind_unix(place)
    assert not isinstance(refused.value, Busy)
    assert refused.value.hint
    assert place.lstat() == before
    assert precious.read_text() == "as it was"


def test_a_socket_that_somebody_serves_stays_also_when_he_is_too_busy(place: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as other:
        other.bind(str(place))
        other.listen(0)  # the first look fills its queue
        for _ in range(2):
            with pytest.raises(Busy):
                bind_unix(place)
    assert stat.S_ISSOCK(place.lstat().st_mode)


@pytest.mark.parametrize("mask", [0, 0o077])
def test_a_socket_that_was_left_is_replaced_whatever_the_umask_is(place: Path, mask: int) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(place))
    before = os.umask(mask)
    try:
        for path in (place, place.parent / "below" / "s"):
            bind_unix(path).close()
            assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    finally:
        os.umask(before)
    assert stat.S_IMODE((place.parent / "below").stat().st_mode) == 0o755


@pytest.mark.parametrize("stranger", [False, True])
async def test_at_its_end_only_what_it_made_is_removed(place: Path, stranger: bool) -> None:
    async with shelf(place.parent) as hub, hub.running(), hub.serving() as path:
        if stranger:
            path.unlink()
            path.write_text("somebody's")
    assert path.exists() == stranger


async def test_the_group_is_looked_up_outside_of_the_daemon_and_not_for_ever(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory service that hangs would hold the event loop."""
    mine = grp.getgrgid(os.getegid())

    def hang(_: str) -> Any:
        raise AssertionError("looked up in the daemon's process")

    monkeypatch.setattr(grp, "getgrnam", hang)
    assert await sockets.find_group(ControlSettings(socket=place)) is None
    assert await sockets.find_group(ControlSettings(socket=place, group=mine.gr_name)) == mine.gr_gid
    with pytest.raises(MountdError, match=str(place)) as refused:
        await sockets.find_group(ControlSettings(socket=place, group="mountd-t-nobody"))
    assert "groupadd --system mountd-t-nobody" in refused.value.hint
    monkeypatch.setattr(sockets, "GROUP_LIMIT_S", 0.0)
    with pytest.raises(MountdError, match=str(place)) as refused:
        await sockets.find_group(ControlSettings(socket=place, group="x"))
    assert "getent group x" in refused.value.hint


@pytest.mark.root
def test_the_socket_belongs_to_the_group(place: Path) -> None:
    bind_unix(place, 54321).close()
    assert (place.stat().st_gid, stat.S_IMODE(place.stat().st_mode)) == (54321, 0o660)


@pytest.mark.root
async def test_the_api_listens_for_the_group_of_the_configuration(place: Path) -> None:
    name = grp.getgrgid(1).gr_name
    async with shelf(place.parent) as hub:
        found = hub.server()
        await found.listen_unix(ControlSettings(socket=place, group=name))
        try:
            assert (place.stat().st_gid, stat.S_IMODE(place.stat().st_mode)) == (1, 0o660)
        finally:
            await found.close()
    assert not place.exists()
