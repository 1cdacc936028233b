"""Reload of a running daemon, by each thing that can change: what restarts, and what goes on with the same pid."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import urllib.request
from pathlib import Path
from urllib.error import URLError

import pytest

from mountd.demo import hub
from tests.support import hold_port
from tests.support.daemon import Daemon
from tests.support.reloading import SOON_S, assert_restarted, journaled, pids, reload, start_with_bystanders
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    return start_with_bystanders(daemon)


def test_a_mount_is_remounted_with_its_app_and_no_other(running: Daemon) -> None:
    before = pids(running)
    running.config["mounts"]["storage"]["options"] = {"vfs-read-ahead": "1M"}
    done = reload(running)
    assert done["changed"] == ["mounts.storage.options.vfs-read-ahead"]
    assert done["restarted"] == ["storage", "webui"]
    assert done["in_place"] == []
    assert_restarted(running, before, "storage", "webui")
    rclone = Path(f"/proc/{pids(running)['storage']}/cmdline").read_bytes().split(b"\0")
    assert b"--vfs-read-ahead=1M" in rclone
    [event] = running.until_events("configuration reloaded")
    assert event["restarted"] == ["storage", "webui"]
    until(lambda: journaled(running, "config-reloaded"), 60, "the event")
    assert "mounts.storage.options.vfs-read-ahead" in journaled(running, "config-reloaded")[0]


@pytest.mark.thorough
def test_an_option_of_the_remote_remounts_what_stands_on_it(running: Daemon) -> None:
    before = pids(running)
    running.config["remotes"]["store"]["upload_cutoff"] = "100M"
    assert reload(running)["restarted"] == ["storage", "second", "webui", "bystander"]
    assert_restarted(running, before, "storage", "second", "webui", "bystander")


@pytest.mark.thorough
def test_an_app_is_restarted_alone(running: Daemon) -> None:
    before = pids(running)
    running.config["apps"]["webui"]["environment"]["NEW"] = "here"
    assert reload(running)["restarted"] == ["webui"]
    assert_restarted(running, before, "webui")
    assert b"NEW=here" in Path(f"/proc/{pids(running)['webui']}/environ").read_bytes().split(b"\0")


def test_what_takes_effect_in_place_restarts_nothing(running: Daemon) -> None:
    before = pids(running)
    webui = running.config["apps"]["webui"]
    webui["ready"]["timeout"] = "50s"
    webui["stop"] = {"signal": "SIGTERM", "grace": "7s"}
    webui["restart"] = {"after": ["crash"], "limit": "9 in 10m"}
    running.config["mounts"]["storage"]["health"] = {"interval": "500ms", "backend": "3s"}
    running.config["models"]["cache_hub"]["required"] = []
    running.config["log"] = {"level": "debug"}
    done = reload(running)
    assert done["restarted"] == []
    assert set(done["changed"]) == set(done["in_place"])
    assert len(done["changed"]) >= 7
    until(lambda: running.status()["ready"], 60, "all to be well")
    assert pids(running) == before
    running.config["log"] = {"level": "warning"}
    reload(running)
    silent = len(running.events("configuration reloaded"))
    assert running.cli("reload").code == 0
    assert len(running.events("configuration reloaded")) == silent, "neither info nor debug is logged any more"


@pytest.mark.thorough
def test_a_restart_policy_holds_for_the_next_crash(running: Daemon) -> None:
    running.config["apps"]["free"]["restart"] = {"after": ["remount"]}
    reload(running)
    pid = pids(running)["free"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: running.status()["apps"]["free"]["state"] == "failed", 60, "the app to be left alone")


@pytest.mark.thorough
def test_the_link_moves_and_the_former_one_goes(running: Daemon) -> None:
    before = pids(running)
    former, target = running.link, os.readlink(running.link)
    moved = running.app / "hub"
    running.config["models"]["cache_hub"]["link"] = str(moved)
    done = reload(running)
    assert (done["restarted"], done["in_place"]) == ([], ["models.cache_hub.link"])
    assert os.readlink(moved) == target
    assert not os.path.lexists(former)
    assert pids(running) == before
    assert running.status()["models"]["cache_hub"]["link"] == str(moved)


@pytest.mark.thorough
def test_a_former_link_that_is_not_ours_any_more_stays(running: Daemon) -> None:
    former = running.link
    assert running.cli("pause").code == 0  # else it would be put right before anybody looks
    former.unlink()
    former.symlink_to("/somewhere/else")
    running.config["models"]["cache_hub"]["link"] = str(running.app / "hub")
    reload(running)
    assert os.readlink(former) == "/somewhere/else"


def test_an_edited_version_asks_for_a_switch(running: Daemon) -> None:
    before = pids(running)
    running.config["models"]["cache_hub"]["version"] = "v22"
    assert reload(running)["in_place"] == ["models.cache_hub.version"]
    assert running.cli("wait", "--for", "version=v22", "--timeout", "60s").code == 0
    now = pids(running)
    assert {name for name in before if now[name] != before[name]} == {"webui"}
    assert running.page()["version"] == "v22" if "version" in running.page() else True
    model = running.status()["models"]["cache_hub"]
    assert (model["current"], model["previous"], model["desired"]) == ("v22", "v23", "v22")


@pytest.mark.thorough
def test_a_model_on_another_mount_starts_there_and_its_app_follows(running: Daemon) -> None:
    before = pids(running)
    running.config["models"]["cache_hub"]["mount"] = "second"
    assert reload(running)["restarted"] == ["webui"]
    assert_restarted(running, before, "webui")
    assert os.readlink(running.link) == f"{running.root}/second/cache_hub_v23"


@pytest.mark.thorough
def test_another_directory_of_a_model_goes_live_before_its_app_restarts(running: Daemon, store: RcloneS3) -> None:
    before = pids(running)
    bucket = store.directory / hub.BUCKET
    subprocess.run(["cp", "-r", bucket / "cache_hub_v23", bucket / "moved_v23"], check=True)
    running.config["models"]["cache_hub"]["directory"] = "moved_{version}"
    assert reload(running)["restarted"] == ["webui"]
    assert_restarted(running, before, "webui")
    assert os.readlink(running.link) == f"{running.mount}/moved_v23"


@pytest.mark.thorough
def test_a_directory_that_is_not_there_leaves_the_app_on_what_it_has(running: Daemon) -> None:
    before, target = pids(running), os.readlink(running.link)
    running.config["models"]["cache_hub"]["directory"] = "nowhere_{version}"
    reload(running)
    running.until_reason("waiting-for-content")
    assert os.readlink(running.link) == target
    assert pids(running) == before
    running.config["models"]["cache_hub"]["directory"] = "cache_hub_{version}"
    reload(running)
    assert_restarted(running, before, "webui")


@pytest.mark.thorough
def test_a_mount_at_another_path(running: Daemon) -> None:
    before = pids(running)
    path = running.root / "elsewhere"
    running.config["mounts"]["storage"]["path"] = str(path)
    assert reload(running)["restarted"] == ["storage", "webui"]
    assert_restarted(running, before, "storage", "webui")
    assert sorted(running.mounts()) == sorted([str(path), str(running.root / "second")])
    assert os.readlink(running.link) == f"{path}/cache_hub_v23"


@pytest.mark.thorough
def test_http_moves_to_another_port(running: Daemon) -> None:
    before = pids(running)
    former = running.http_port
    with contextlib.closing(hold_port()) as held:
        running.http_port = held.getsockname()[1]
        running.config["http"]["listen"] = f"127.0.0.1:{running.http_port}"
        assert reload(running)["in_place"] == ["http.listen"]
        urllib.request.urlopen(f"http://127.0.0.1:{running.http_port}/healthz", timeout=30).close()
        with pytest.raises(URLError, check=lambda error: isinstance(error.reason, ConnectionRefusedError)):
            urllib.request.urlopen(f"http://127.0.0.1:{former}/healthz", timeout=30)
        # The same port, on every address: no two can listen there at once.
        running.config["http"]["listen"] = f"0.0.0.0:{running.http_port}"
        reload(running)
        urllib.request.urlopen(f"http://127.0.0.2:{running.http_port}/healthz", timeout=30).close()
        assert pids(running) == before
        assert running.stop() == 0


# -- added and removed --------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
def test_things_are_removed_and_added(running: Daemon) -> None:
    before = pids(running)
    second = running.config["mounts"].pop("second")
    bystander = running.config["apps"].pop("bystander")
    assert reload(running)["changed"] == ["mounts.second", "apps.bystander"]
    now = pids(running)
    assert now == {name: before[name] for name in ("storage", "webui", "free")}
    assert running.mounts() == [str(running.mount)]
    for name in ("second", "bystander"):
        assert not Path(f"/proc/{before[name]}").exists()
        assert running.cli("logs", name).code == 3

    running.config["mounts"]["third"] = second  # the same path, under another name
    running.config["models"]["more"] = {
        "mount": "third",
        "directory": "cache_hub_{version}",
        "link": str(running.app / "more"),
        "version": "v22",
    }
    running.config["apps"]["bystander"] = {**bystander, "needs": ["more"]}
    reload(running)
    status = running.until_ready()
    assert status["models"]["more"]["current"] == "v22"
    assert status["mounts"]["third"]["state"] == status["apps"]["bystander"]["state"] == "running"
    assert {name: pids(running)[name] for name in now} == now
    assert running.cli("switch", "v23", "--model", "more").code == 0
    assert running.cli("restart", "third").code == 0

    del running.config["models"]["more"]
    running.config["apps"]["bystander"]["needs"] = []
    reload(running)
    assert os.readlink(running.app / "more").endswith("cache_hub_v23"), "a link is never taken away with its model"
    running.until_ready()
    assert running.stop() == 0


@pytest.mark.thorough
def test_a_mount_is_renamed_at_its_path(running: Daemon) -> None:
    before = pids(running)
    running.config["mounts"]["renamed"] = running.config["mounts"].pop("storage")
    running.config["models"]["cache_hub"]["mount"] = "renamed"
    reload(running)
    status = running.until_ready()
    assert "storage" not in status["mounts"]
    assert status["mounts"]["renamed"]["state"] == "running"
    now = pids(running)
    assert now["webui"] not in (None, before["webui"])
    assert (now["second"], now["bystander"], now["free"]) == (before["second"], before["bystander"], before["free"])
    assert os.readlink(running.link) == f"{running.mount}/cache_hub_v23"


# -- secrets ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
@pytest.mark.thorough
def test_new_credentials_reach_rclone_without_a_remount(running: Daemon, store: RcloneS3) -> None:
    before = pids(running)
    store.set_keys("MOUNTDTESTKEY0002", "mountd-test-secret-0002")
    # Its server restarts for them: until it is there it is unreachable.
    until(
        lambda: running.reasons().keys() & {"access-denied", "credentials-expired"},
        60,
        "the store to refuse the old key",
        every_s=0.2,
    )
    running.config["remotes"]["store"]["access_key_id"] = "MOUNTDTESTKEY0002"
    running.secret.write_text("mountd-test-secret-0002")
    done = reload(running)
    assert done["restarted"] == []
    assert "remotes.store.secret_access_key" in done["in_place"] + running.log_text().split()
    until(lambda: running.status()["health"] == "Healthy", SOON_S, "the bucket to answer again")
    assert running.cli("versions").code == 0
    assert pids(running) == before
