"""A directory that another user can move decides about nothing: mountd makes no link and no mount below it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mountd.model import link
from mountd.model.drift import LinkBlocked
from mountd.process import way
from tests.support.daemon import Daemon

pytestmark = pytest.mark.root
OTHER = 4242


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A home of the app's user, with his directory in it."""
    place = tmp_path / "home" / "app"
    place.mkdir(parents=True)
    for each in (place, place.parent):
        os.chown(each, OTHER, OTHER)
    return place


def opened(path: Path, *, strict: bool) -> str:
    """What is said against it."""
    try:
        os.close(way.open_directory(str(path), strict=strict))
    except way.Unsafe as unsafe:
        return str(unsafe)
    return ""


@pytest.mark.parametrize(
    ("owner", "group", "mode", "entry_owner", "says"),
    [
        (0, 0, 0o755, 0, ""),
        (0, 0, 0o755, OTHER, ""),
        (0, 0, 0o775, OTHER, ""),
        (0, OTHER, 0o755, 0, ""),
        (0, OTHER, 0o775, 0, f"group {OTHER}"),
        (0, 0, 0o777, 0, "every user"),
        (0, 0, 0o1777, 0, ""),
        (0, 0, 0o1777, OTHER, "every user"),
        (OTHER, 0, 0o700, 0, f"uid {OTHER}"),
        (OTHER, 0, 0o1755, 0, f"uid {OTHER}"),
    ],
)
def test_who_can_move_a_directory(
    tmp_path: Path, owner: int, group: int, mode: int, entry_owner: int, says: str
) -> None:
    above = tmp_path / "above"
    (above / "entry").mkdir(parents=True)
    os.chown(above / "entry", entry_owner, 0)
    os.chown(above, owner, group)
    above.chmod(mode)
    said = opened(above / "entry", strict=True)
    assert says in said
    assert (f"{above}/entry" in said) is bool(said) is bool(says)
    assert opened(above / "entry", strict=False) == ""


def test_a_link_is_followed_where_nobody_else_can_change_it(tmp_path: Path, theirs: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "ours").symlink_to("precious")
    (theirs / "made").symlink_to(tmp_path / "precious")
    os.chown(theirs / "made", OTHER, OTHER, follow_symlinks=False)
    found = way.open_directory(str(tmp_path / "ours"), strict=True)
    assert os.path.samestat(os.fstat(found), (tmp_path / "precious").stat())
    os.close(found)
    of_link, of_directory = (opened(theirs / "made", strict=strict) for strict in (False, True))
    assert f"uid {OTHER}" in of_link
    assert f"uid {OTHER}" in of_directory
    assert (f"{theirs}/made" in of_link, f"{theirs}/made" in of_directory) == (True, False), "its directory comes first"


def test_a_link_is_made_and_swept_in_no_place_of_a_strangers_choice(tmp_path: Path, theirs: Path) -> None:
    """He moves his directory away, and puts a link to one of root's in its place."""
    precious = tmp_path / "precious"
    precious.mkdir()
    left = precious / ".mountd-hub-0123abcd"
    left.symlink_to("x")
    (precious / "hub").symlink_to("as it was")
    theirs.rename(theirs.with_name("aside"))
    theirs.symlink_to(precious)
    os.chown(theirs, OTHER, OTHER, follow_symlinks=False)
    path = theirs / "hub"
    link.sweep(path)
    changes: list[Callable[[], object]] = [
        lambda: link.point(path, "/elsewhere"),
        lambda: link.prove(path, "/x"),
        lambda: link.remove(path),
    ]
    for change in changes:
        with pytest.raises(LinkBlocked, match=f"uid {OTHER}"):
            change()
    assert {each.name: os.readlink(each) for each in precious.iterdir()} == {left.name: "x", "hub": "as it was"}


@pytest.mark.fuse
def test_neither_mount_nor_link_below_what_the_apps_user_can_move(
    make_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = make_daemon()
    daemon.config["apps"] = {}
    home = daemon.root / "home"
    (home / "app").mkdir(parents=True)
    for each in (home, home / "app"):
        os.chown(each, OTHER, OTHER)
    daemon.config["mounts"]["storage"]["path"] = str(home / "app" / "mnt")
    daemon.config["models"]["cache_hub"]["link"] = str(home / "app" / "hub")
    checked = daemon.cli("config", "check", "-c", str(daemon.write_config()), "-o", "json")
    assert checked.code == 2, checked
    problems = checked.json["problems"]
    assert {each["path"] for each in problems} == {"mounts.storage.path", "models.cache_hub.link"}
    daemon.start()
    for text in (daemon.until_reason("unsafe-path")["text"], *(each["text"] for each in problems)):
        assert f"uid {OTHER}" in text
        assert f"{home}/app" in text
    assert not (home / "app" / "mnt").exists()
    assert daemon.stop() == 0
    daemon.config["mounts"]["storage"]["path"] = str(daemon.mount)
    daemon.start()
    daemon.until_reason("link-blocked")
    assert not (home / "app" / "hub").is_symlink()
    assert daemon.stop() == 0
    daemon.config["allow_unsafe_paths"] = True
    daemon.start_ready()
    assert (home / "app" / "hub").is_symlink()


def test_doctor_says_who_can_exchange_the_state_directory(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    volume = daemon.root / "volume"
    volume.mkdir()
    os.chown(volume, 0, OTHER)
    volume.chmod(0o2775)
    daemon.config["state"] = str(volume / "state")
    (volume / "state").mkdir()
    checks = daemon.cli("doctor", "-c", str(daemon.write_config()), "-o", "json").json["checks"]
    (found,) = (check for check in checks if check["name"] == "paths")
    assert found["result"] == "warn"
    assert f"group {OTHER}" in found["text"]
    assert f"{volume}/state" in found["text"]
