"""What doctor makes of an outbox's directory, as its user sees it, without touching it itself."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mountd.cli import examine_outbox, outbox_probe
from mountd.cli.examine import Check
from mountd.fuse import table
from mountd.settings.load import Places, parse
from mountd.settings.outbox import OutboxSettings
from mountd.settings.schema import Settings

STRANGER = 65533
PATTERNS = {"include": ["*"], "exclude": [".*", "*.part"]}
MOUNTINFO = """31 1 8:1 / / rw - ext4 /dev/sda1 rw
32 31 0:50 / /nfs rw - nfs4 server:/x rw
33 31 0:51 / /fuse rw - fuse.rclone mountd:1:storage rw
34 31 8:2 / /ntfs rw - fuseblk /dev/sda2 rw
"""


def settings(directory: Path | str, **outbox: Any) -> Settings:
    given = {"directory": str(directory), "remote": "s:b/p", "min_free": "1M", **outbox}
    text = f"""
remotes: {{s: {{type: s3, endpoint: "http://x"}}}}
mounts: {{m: {{remote: "s:b", path: /mnt/m}}}}
outbox: {{results: {json.dumps(given)}}}
"""
    return parse(text, "x.yaml", Places(Path("/state"), Path("/cache"), Path("/run"))).settings


def looked(directory: Path | str, **outbox: Any) -> dict[str, Check]:
    found = asyncio.run(examine_outbox.directories(settings(directory, **outbox)))
    return {check.name: check for check in found}


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child may get no processor for a while."""
    monkeypatch.setattr(examine_outbox, "LOOK_S", 60.0)


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory that other users can reach."""
    directory = Path(tempfile.mkdtemp(prefix="mountd-t-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def as_stranger(directory: Path) -> dict[str, Any]:
    """What another user finds. Not in a process of its own: that user may not be able to run this Python."""
    os.setegid(STRANGER)
    os.seteuid(STRANGER)
    try:
        return outbox_probe.main(str(directory), json.dumps(PATTERNS))
    finally:
        os.seteuid(0)
        os.setegid(0)


def judged(found: dict[str, Any], **outbox: Any) -> Check:
    given = OutboxSettings.model_validate({"directory": "/out", "remote": "s:b", **outbox})
    return examine_outbox._rights("directory of results", given, found, can_go=outbox.get("keep") != "forever")


# -- the directory itself ---------------------------------------------------------------------------------------------


def test_a_directory_that_is_well(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.wav").touch()
    for keep in ("7d", "forever"):
        checks = looked(tmp_path, keep=keep)
        assert {name: check.result for name, check in checks.items()} == {
            "directory of results": "ok",
            "disk of results": "ok",
        }
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["a.wav", "d"], "nothing was made or removed"


def test_one_that_the_app_makes_later(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "way").symlink_to("real")
    for place in (tmp_path / "out", tmp_path / "a" / "b", tmp_path / "way" / "out"):
        checks = looked(place)
        assert [check.result for check in checks.values()] == ["ok", "ok"], place
        assert not place.exists()


@pytest.mark.parametrize(
    ("kind", "named"),
    [("file", "out"), ("link", "out"), ("dangling", "out"), ("below a file", "file"), ("below nothing", "nothing")],
)
def test_what_is_no_directory_is_named(tmp_path: Path, kind: str, named: str) -> None:
    place = tmp_path / "out"
    match kind:
        case "file":
            place.touch()
        case "link":
            place.symlink_to("/srv")
        case "dangling":
            place.symlink_to("nowhere")
        case "below a file":
            (tmp_path / "file").touch()
            place = tmp_path / "file" / "out"
        case "below nothing":
            (tmp_path / "nothing").symlink_to("nowhere")
            place = tmp_path / "nothing" / "out"
    (check,) = looked(place).values()
    assert (check.name, check.result, bool(check.hint)) == ("directory of results", "fail", True)
    assert check.text.startswith(f"{tmp_path}/{named} ")


@pytest.mark.root
def test_a_link_of_another_user_on_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "real" / "out").mkdir(parents=True)
    (tmp_path / "way").symlink_to("real")
    assert looked(tmp_path / "way" / "out")["directory of results"].result == "ok"
    os.lchown(tmp_path / "way", STRANGER, STRANGER)
    (check,) = looked(tmp_path / "way" / "out").values()
    assert (check.result, check.text.startswith(f"{tmp_path}/way ")) == ("fail", True)


# -- rights -----------------------------------------------------------------------------------------------------------


@pytest.mark.root
def test_another_user_reads_and_removes_what_it_may(passable: Path) -> None:
    out = passable / "out"
    (out / "day").mkdir(parents=True)
    for name in ("a.wav", "day/b.wav", "day/c.part", ".hidden"):
        (out / name).touch()
    found = as_stranger(out)
    assert (found["enters"], found["removes"], found["unread"], bool(found["stays"])) == (True, False, "", True)
    assert (judged(found).result, judged(found, keep="forever").result) == ("fail", "ok")

    out.chmod(0o777)
    found = as_stranger(out)
    assert (found["removes"], found["stays"]) == (True, "day/b.wav")
    assert (judged(found).result, judged(found, keep="forever").result) == ("warn", "ok")
    (out / "day").chmod(0o777)
    found = as_stranger(out)
    assert (found["stays"], judged(found).result) == ("", "ok")

    out.chmod(0o1777)
    assert as_stranger(out)["stays"] == "a.wav", "a sticky directory lets only the owner remove it"
    os.chown(out / "a.wav", STRANGER, STRANGER)
    assert as_stranger(out)["stays"] == ""
    (out / "day" / "b.wav").chmod(0o600)
    found = as_stranger(out)
    assert (found["unread"], judged(found).result, judged(found, keep="forever").result) == (
        "day/b.wav",
        "warn",
        "warn",
    )
    (out / "day").chmod(0o700)
    assert as_stranger(out)["unread"] == "day"
    shutil.rmtree(out / "day")
    (out / "day.part").touch(0o600)
    assert as_stranger(out)["unread"] == "", "what is excluded is not uploaded"
    out.chmod(0o744)
    found = as_stranger(out)
    assert (found["enters"], judged(found).result) == (False, "fail")
    out.chmod(0o700)
    assert as_stranger(out)["error"]["place"] == str(out)
    passable.chmod(0o711)
    assert as_stranger(out)["error"]["place"] == str(passable)


@pytest.mark.root
def test_another_user_cannot_make_a_directory_everywhere(passable: Path) -> None:
    found = as_stranger(passable / "a" / "out")
    assert (found["missing"], found["nearest"], found["makes"]) == (True, str(passable), False)
    check = examine_outbox._missing("directory of results", f"{passable}/a/out", found)
    assert (check.result, bool(check.hint)) == ("warn", True)
    passable.chmod(0o777)
    assert as_stranger(passable / "out")["makes"]


def test_a_look_at_many_files_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_probe, "MOST_ENTRIES", 2)
    looked_at: list[str] = []

    def can_read(_: int, path: str) -> bool:
        looked_at.append(path)
        return True

    monkeypatch.setattr(outbox_probe, "_can_read", can_read)
    for number in range(9):
        (tmp_path / f"{number}").touch()
    outbox_probe.look(str(tmp_path), ["*"], [])
    assert len(looked_at) == 2


# -- the disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mount", "least", "results"),
    [
        (31, "5%", ["ok"]),
        (31, "50%", ["warn"]),
        (31, "2G", ["warn"]),
        (32, "5%", ["warn", "ok"]),
        (33, "50%", ["warn", "warn"]),
        (34, "5%", ["ok"]),
        (99, "5%", ["ok"]),
    ],
)
def test_what_it_lies_on(mount: int, least: str, results: list[str]) -> None:
    outbox = settings("/out", min_free=least).outbox["results"]
    found = {"mount": mount, "free": 1 << 30, "total": 10 << 30}
    checks = list(examine_outbox.disk("results", outbox, found, table.parse(MOUNTINFO)))
    assert [check.result for check in checks] == results
    assert {check.name for check in checks} == {"disk of results"}
    assert all(bool(check.hint) is (check.result != "ok") for check in checks)


def test_only_the_child_touches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that does not answer is not waited for: a child that sleeps stands for one that hangs."""
    paths: list[str] = []

    def noting(real: Callable[..., Any]) -> Callable[..., Any]:
        def note(path: Any, *words: Any, **keys: Any) -> Any:
            paths.append(str(path))
            return real(path, *words, **keys)

        return note

    for name in ("stat", "lstat", "access", "listdir", "scandir", "open"):
        monkeypatch.setattr(os, name, noting(getattr(os, name)))
    assert looked(tmp_path / "out")["directory of results"].result == "ok"
    assert not [path for path in paths if path.startswith(str(tmp_path))]
    sleeping = tmp_path / "sleeps.py"
    sleeping.write_text("import time; time.sleep(600)")
    monkeypatch.setattr(outbox_probe, "__file__", str(sleeping))
    monkeypatch.setattr(examine_outbox, "LOOK_S", 0.3)
    (check,) = looked(tmp_path / "out").values()
    assert (check.result, "0.3 s" in check.text, bool(check.hint)) == ("fail", True, True)
    sleeping.write_text("raise SystemExit('no module')")
    monkeypatch.setattr(examine_outbox, "LOOK_S", 60.0)
    (check,) = looked(tmp_path / "out").values()
    assert (check.result, "no module" in check.text) == ("warn", True)
