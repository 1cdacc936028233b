"""Versions that are not there or can never be, and a link whose place holds somebody's data: refused, all kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.not_ready import assert_app_never_started, assert_refused, assert_silent, until_not_ready
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

REPAIRED_S = 60.0
"""Content and link are looked at again every 10 s."""


def live(daemon: Daemon) -> tuple[Any, ...]:
    """What a refused command must not change."""
    status = daemon.status()
    model, app = status["models"]["cache_hub"], status["apps"]["webui"]
    return (
        *(status["ready"], status["operation"], os.readlink(daemon.link)),
        *(model["current"], model["previous"], model["desired"], model["sync"]),
        *(app["state"], app["pid"], app["restarts"]),
    )


@pytest.mark.thorough
def test_versions_that_cannot_be_switched_to(daemon: Daemon) -> None:
    daemon.start_ready()
    before = live(daemon)
    for name in ("../x", "a/b", "..", "/etc", "v23 ", "v23\n", "声", "", "latest", "LATEST"):
        quoted = repr(name) if name else ""
        assert_refused(daemon.cli("switch", "--", name), 2, quoted, "`mountd versions`")
        assert live(daemon) == before, name
    assert_refused(daemon.cli("switch", "v99"), 3, "v99", "`mountd versions`")
    assert_refused(daemon.cli("switch", "v22", "--model", "nope"), 3, "nope", "cache_hub")
    assert_refused(daemon.cli("rollback"), 3, "cache_hub", "v23")
    assert live(daemon) == before
    assert daemon.page()["version"] == "v23"
    assert_silent(daemon)


def test_a_version_that_is_not_complete(daemon: Daemon, store: RcloneS3) -> None:
    daemon.start_ready()
    before = live(daemon)
    shutil.rmtree(store.directory / hub.BUCKET / "cache_hub_v22" / "models")
    assert_refused(daemon.cli("switch", "v22"), 7, "v22", "models/gpt.pth")
    assert live(daemon) == before


@pytest.mark.thorough
@pytest.mark.slow
def test_a_first_version_that_is_not_there_yet(daemon: Daemon, store: RcloneS3) -> None:
    daemon.config["models"]["cache_hub"]["version"] = "v99"
    daemon.start()
    reason = until_not_ready(daemon, "waiting-for-content", "cache_hub_v99")
    assert (reason["layer"], reason["object"]) == ("link", "cache_hub")
    assert_app_never_started(daemon)
    assert not os.path.lexists(daemon.link)
    hub.build(store.directory, versions=("v99",), scale=1 / 10_000)
    daemon.until_ready(REPAIRED_S)
    assert daemon.page()["version"] == "v99"


@pytest.mark.thorough
def test_a_first_version_that_is_not_there_and_another_is_chosen(daemon: Daemon) -> None:
    daemon.config["models"]["cache_hub"]["version"] = "v99"
    daemon.start()
    until_not_ready(daemon, "waiting-for-content", "v99")
    assert daemon.cli("switch", "v22").code == 0
    daemon.until_ready()
    assert daemon.page()["version"] == "v22"


def _directory(link: Path) -> None:
    link.mkdir()
    (link / "gpt.pth").write_text("precious")


def _file(link: Path) -> None:
    link.write_text("precious")


@pytest.mark.shown_by("directory")
@pytest.mark.parametrize(("kind", "make"), [("directory", _directory), ("file", _file)])
@pytest.mark.slow
def test_a_link_path_that_holds_data(daemon: Daemon, kind: str, make: Any) -> None:
    make(daemon.link)
    before = daemon.link.lstat()
    daemon.start()
    reason = until_not_ready(daemon, "link-blocked", str(daemon.link))
    assert f"mv {daemon.link} {daemon.link}.old" in reason["hint"]
    assert_app_never_started(daemon)
    assert_refused(daemon.cli("switch", "v22"), 7, f"mv {daemon.link} {daemon.link}.old")
    after = daemon.link.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)

    old = daemon.link.rename(f"{daemon.link}.old")
    daemon.until_ready(REPAIRED_S)
    assert daemon.link.is_symlink()
    kept = old / "gpt.pth" if kind == "directory" else old
    assert kept.read_text() == "precious"
    assert sorted(os.listdir(daemon.app)) == ["cache_hub", "cache_hub.old"]


@pytest.mark.thorough
def test_a_link_in_a_directory_that_does_not_exist(daemon: Daemon) -> None:
    missing = daemon.root / "nowhere"
    daemon.config["models"]["cache_hub"]["link"] = str(missing / "cache_hub")
    daemon.start()
    reason = until_not_ready(daemon, "link-blocked", str(missing))
    assert f"mkdir -p {missing}" in reason["hint"]
    assert_app_never_started(daemon)
    assert not missing.exists()


@pytest.mark.thorough
def test_a_link_of_somebody_else_is_taken_over_and_its_target_left_alone(daemon: Daemon) -> None:
    theirs = daemon.root / "checkpoints"
    theirs.mkdir()
    (theirs / "gpt.pth").write_text("precious")
    daemon.link.symlink_to(theirs)
    daemon.start_ready()
    assert os.readlink(daemon.link) == f"{daemon.mount}/cache_hub_v23"
    assert daemon.stop() == 0
    assert (theirs / "gpt.pth").read_text() == "precious"
    until(lambda: os.listdir(theirs) == ["gpt.pth"], 60, "nothing added there")
