"""`mountd install` into the image of a machine, with systemd's own tools: what it makes, and what it takes away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mountd.cli.main import main
from mountd.install import carried
from mountd.settings.load import inspect

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="no systemd-sysusers here"),
]
UNIT, DROP_IN = f"{carried.UNITS}/mountd.service", f"{carried.UNITS}/mountd.service.d/10-user.conf"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """With what every machine has."""
    root = tmp_path / "image"
    for directory in ("etc/systemd/system", "usr/local/bin", "usr/local/share", "run", "tmp", "var/lib"):
        (root / directory).mkdir(parents=True)
    for name in ("passwd", "group"):
        (root / "etc" / name).write_text("root:x:0:0:root:/root:/bin/sh\n" if name == "passwd" else "root:x:0:\n")
    for name in ("shadow", "gshadow"):
        (root / "etc" / name).write_text("root:*:19000:0:99999:7:::\n" if name == "shadow" else "root:*::\n")
    return root


def listed(root: Path) -> dict[str, str]:
    """Path → what it holds; but for what sysusers and userdel leave beside the files of users."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if name.startswith(("etc/.pwd", "etc/sub", "run/")) or name.endswith("-"):
            continue
        found[name] = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
    return found


def install(root: Path, *words: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    capsys.readouterr()
    assert main(["install", "--root", str(root), "-o", "json", *words]) == code, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def done(document: Any, action: str) -> set[str]:
    return {step["path"].lstrip("/") for step in document["steps"] if step["action"] == action}


def test_it_makes_what_a_machine_needs_and_a_second_run_nothing(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = install(image, capsys=capsys)
    assert set(first) == {"schema", "dry_run", "steps"}
    assert done(first, "write") == {each.target for each in carried.FILES if not each.user}
    assert {path for path in listed(image) if path.startswith("usr/local/share/man")} == {
        "usr/local/share/man",
        "usr/local/share/man/man8",
        "usr/local/share/man/man8/mountd.8",
    }
    assert os.access(os.readlink(image / "usr/local/bin/mountd"), os.X_OK)
    assert "\nmountd:" in (image / "etc/passwd").read_text()
    assert "\nmountd:" in (image / "etc/group").read_text()
    assert (image / "etc/mountd/secrets").stat().st_mode & 0o777 == 0o700
    assert inspect(image / carried.CONFIGURATION).problems == ()
    before = listed(image)
    again = install(image, capsys=capsys)
    assert done(again, "write") | done(again, "replace") | done(again, "link") | done(again, "remove") == set()
    assert listed(image) == before


@pytest.mark.parametrize("words", [(), ("--user",)], ids=["root", "user"])
def test_uninstall_leaves_nothing(image: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    before = listed(image)
    install(image, *words, capsys=capsys)
    plan = install(image, "--uninstall", "--dry-run", capsys=capsys)
    there = listed(image)
    removed = install(image, "--uninstall", capsys=capsys)
    assert done(plan, "remove") == done(removed, "remove")
    assert there != before
    assert listed(image) == before
    assert install(image, "--uninstall", capsys=capsys)["steps"] == []


def test_a_dry_run_changes_nothing(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = listed(image)
    document = install(image, "--dry-run", "--user", capsys=capsys)
    assert DROP_IN in done(document, "write")
    assert listed(image) == before


def test_what_somebody_changed_is_kept(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(image, capsys=capsys)
    for path in (UNIT, carried.CONFIGURATION):
        with (image / path).open("a") as file:
            file.write("# mine\n")
    (image / "etc/mountd/secrets/key").write_text("secret\n")
    (image / "var/lib/mountd").mkdir()
    (image / "var/lib/mountd/mountd.db").touch()
    assert done(install(image, capsys=capsys), "keep") == {UNIT, carried.CONFIGURATION}
    kept = done(install(image, "--uninstall", capsys=capsys), "keep")
    assert kept >= {UNIT, carried.CONFIGURATION, "var/lib/mountd", "etc/passwd"}
    assert {UNIT, carried.CONFIGURATION, "etc/mountd/secrets/key", "var/lib/mountd/mountd.db"} <= listed(image).keys()
    assert "\nmountd:" in (image / "etc/passwd").read_text(), "its number may own what is left"


def test_units_that_have_only_a_name_like_its_own_stay_enabled(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(image, capsys=capsys)
    others = ["mountd-backup.service", "mountd-backup@a.service"]
    wants = image / carried.UNITS / "multi-user.target.wants"
    wants.mkdir()
    for unit in ("mountd.service", "mountd@gpu1.service", *others):
        file = unit.replace("@a.", "@.").replace("@gpu1.", "@.")
        if unit in others:
            (image / carried.UNITS / file).write_text(
                "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
            )
        (wants / unit).symlink_to(f"/{carried.UNITS}/{file}")
    install(image, "--uninstall", capsys=capsys)
    assert sorted(os.listdir(wants)) == others


def test_purge_takes_it_with_it(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = listed(image)
    install(image, "--user", capsys=capsys)
    (image / "etc/mountd/gpu1.yaml").touch()
    with (image / carried.CONFIGURATION).open("a") as file:
        file.write("# mine\n")
    (image / "etc/mountd/secrets/key").write_text("secret\n")
    for path in ("var/lib/mountd", "var/lib/mountd-gpu1", "var/cache/mountd"):
        (image / path).mkdir(parents=True)
        (image / path / "file").touch()
    install(image, "--uninstall", "--purge", capsys=capsys)
    left = listed(image)
    assert left.pop("var/cache") == ""
    assert left == before


def test_purge_leaves_what_has_only_a_name_like_its_own(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(image, capsys=capsys)
    (image / "etc/mountd/gpu1.yaml").touch()
    mine, others = ["var/lib/mountd-gpu1", "var/cache/mountd-gpu1"], ["var/lib/mountd-node", "var/log/mountd-backup"]
    for path in (*mine, *others):
        (image / path).mkdir(parents=True)
        (image / path / "file").touch()
    document = install(image, "--uninstall", "--purge", capsys=capsys)
    assert done(document, "keep") >= {*others}
    assert {f"{path}/file" for path in others} <= listed(image).keys()
    assert not listed(image).keys() & {*mine, "etc/mountd"}
    assert "mountd:" not in (image / "etc/passwd").read_text()


def test_the_user_stays_while_it_owns_something(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(image, capsys=capsys)
    (line,) = [each for each in (image / "etc/passwd").read_text().splitlines() if each.startswith("mountd:")]
    (image / "var/lib/mountd-old").mkdir()
    os.chown(image / "var/lib/mountd-old", int(line.split(":")[2]), 0)
    assert "etc/passwd" in done(install(image, "--uninstall", "--purge", capsys=capsys), "keep")
    assert line in (image / "etc/passwd").read_text()


@pytest.mark.parametrize("tree", ["var/lib/mountd", "etc/mountd/secrets"])
def test_a_link_in_place_of_a_tree_is_refused_before_anything_changes(
    image: Path, tmp_path: Path, tree: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install(image, capsys=capsys)
    (image / "disk").mkdir()
    (image / "disk/file").touch()
    shutil.rmtree(image / tree, ignore_errors=True)
    (image / tree).symlink_to("/disk")
    before = listed(image)
    assert install(image, "--uninstall", "--purge", capsys=capsys, code=7)["error"]["exit"] == 7
    assert listed(image) == before


def test_something_mounted_in_a_tree_is_refused_before_anything_changes(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(image, capsys=capsys)
    mounted = image / "var/lib/mountd/disk"
    mounted.mkdir(parents=True)
    before = listed(image)
    if subprocess.run(["mount", "-t", "tmpfs", "none", str(mounted)], capture_output=True, check=False).returncode:
        pytest.skip("may not mount here")
    try:
        assert install(image, "--uninstall", "--purge", capsys=capsys, code=7)["error"]["exit"] == 7
        assert listed(image) == before
    finally:
        subprocess.run(["umount", str(mounted)], check=True)
    install(image, "--uninstall", "--purge", capsys=capsys)
    assert not (image / "var/lib/mountd").exists()


def test_an_uninstall_that_failed_is_run_again(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = listed(image)
    install(image, capsys=capsys)
    (image / "etc/mountd/gpu1.yaml").touch()
    (image / "var/lib/mountd-gpu1").mkdir()
    lock = image / "etc/passwd.lock"
    lock.write_text(str(os.getpid()))  # somebody else is changing the users: userdel fails
    assert install(image, "--uninstall", "--purge", capsys=capsys, code=1)["error"]["exit"] == 1
    assert (image / carried.RECORD).exists()
    assert not (image / UNIT).exists()
    lock.unlink()
    install(image, "--uninstall", "--purge", capsys=capsys)
    assert listed(image) == before


def test_a_file_that_is_in_the_way_is_refused_before_anything_changes(
    image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (image / UNIT).write_text("[Service]\nExecStart=/opt/mine\n")
    before = listed(image)
    assert install(image, capsys=capsys, code=7)["error"]["exit"] == 7
    assert listed(image) == before


def test_a_user_of_its_own_stays_chosen(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(image, "--user", capsys=capsys)
    assert (image / DROP_IN).is_file()
    install(image, capsys=capsys)
    assert (image / DROP_IN).is_file(), "an upgrade does not make it root"
    assert DROP_IN in done(install(image, "--no-user", capsys=capsys), "remove")
    assert not (image / DROP_IN).exists()


def test_a_user_that_was_there_before_stays(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (image / "etc/passwd").open("a") as file:
        file.write("mountd:x:990:990::/nonexistent:/bin/false\n")
    with (image / "etc/group").open("a") as file:
        file.write("mountd:x:990:\n")
    install(image, capsys=capsys)
    install(image, "--uninstall", capsys=capsys)
    assert "\nmountd:" in (image / "etc/passwd").read_text()


def test_no_link_leads_out_of_the_image(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "outside").mkdir()
    shutil.rmtree(image / "usr/local/share")
    (image / "usr/local/share").symlink_to(tmp_path / "outside")
    assert install(image, capsys=capsys, code=1)["error"]["exit"] == 1
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_record_that_names_files_elsewhere_is_not_followed(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image / "etc/mountd").mkdir()
    record = {"files": {"../../victim": ""}, "links": {}, "directories": [], "user": False}
    (image / carried.RECORD).write_text(json.dumps(record))
    assert install(image, "--uninstall", capsys=capsys, code=1)["error"]["exit"] == 1


def test_purge_alone_is_a_mistake(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    install(image, "--purge", capsys=capsys, code=2)
