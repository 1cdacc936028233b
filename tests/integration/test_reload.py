"""Reload of a running daemon: what changes does, what does not goes on with the same pid, what is broken is refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.demo import hub
from tests.support import hold_port
from tests.support.daemon import Daemon, Result
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SOON_S = 10.0
"""A changed file is picked up within this time."""


@pytest.fixture
def running(daemon: Daemon) -> Daemon:
    """Two mounts and three apps, so that there is always something that must be left alone."""
    daemon.config["mounts"]["second"] = {
        "remote": f"store:{hub.BUCKET}",
        "path": str(daemon.root / "second"),
        "cache": {"dir": str(daemon.root / "cache-second"), "min_free": "1%"},
    }
    sleeper = [sys.executable, "-c", "import time; time.sleep(3600)"]
    daemon.config["apps"]["bystander"] = {"command": sleeper, "needs": ["second"]}
    daemon.config["apps"]["free"] = {"command": sleeper}
    daemon.start_ready()
    return daemon


def pids(daemon: Daemon) -> dict[str, int | None]:
    status = daemon.status()
    return {name: thing["pid"] for name, thing in {**status["mounts"], **status["apps"]}.items()}


def reload(daemon: Daemon) -> dict[str, Any]:
    """By the command, which must succeed; what it did."""
    known = len(daemon.events("configuration reloaded"))
    daemon.write_config()
    result = daemon.cli("reload", "-o", "json")
    assert result.code == 0, result
    document: dict[str, Any] = result.json
    assert document.keys() == {"schema", "changed", "restarted", "in_place"}
    if document["changed"]:
        return document
    # On a busy machine mountd may have noticed the file before the command had started.
    return next(iter(daemon.events("configuration reloaded")[known:]), document)


def assert_restarted(daemon: Daemon, before: dict[str, int | None], *names: str) -> None:
    """These come back with other pids, all others keep theirs."""

    def back() -> bool:
        now = pids(daemon)
        return daemon.status()["ready"] and all(now[name] not in (None, before[name]) for name in names)

    until(back, 30, f"{names} to be restarted", every_s=0.1)
    now = pids(daemon)
    assert {name for name in before if now.get(name) != before[name]} == set(names)


def journaled(daemon: Daemon, code: str) -> list[str]:
    with contextlib.closing(sqlite3.connect(daemon.root / "state" / "mountd.db")) as database:
        return [text for (text,) in database.execute("SELECT text FROM events WHERE code = ? ORDER BY id", (code,))]


# -- the table: one row each --------------------------------------------------------------------------------------


def test_a_mount_is_remounted_with_its_app_and_no_other(running: Daemon) -> None:
    before = pids(running)
    running.config["mounts"]["storage"]["options"] = {"vfs-read-ahead": "1M"}
    done = reload(running)
    assert done["changed"] == ["mounts.storage.options.vfs-read-ahead"]
    assert done["restarted"] == ["storage", "webui"]
    assert done["in_place"] == []
    assert_restarted(running, before, "storage", "webui")
    rclone = Path(f"/proc/{pids(running)['storage']}/cmdline").read_bytes().split(b"\0")
    assert b"--vfs-read-ahead=1M" in rclone or b"1M" in rclone
    [event] = running.events("configuration reloaded")
    assert event["restarted"] == ["storage", "webui"]
    until(lambda: journaled(running, "config-reloaded"), 20, "the event")
    assert "mounts.storage.options.vfs-read-ahead" in journaled(running, "config-reloaded")[0]


def test_an_option_of_the_remote_remounts_what_stands_on_it(running: Daemon) -> None:
    before = pids(running)
    running.config["remotes"]["store"]["upload_cutoff"] = "100M"
    assert reload(running)["restarted"] == ["storage", "second", "webui", "bystander"]
    assert_restarted(running, before, "storage", "second", "webui", "bystander")


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
    until(lambda: running.status()["ready"], 20, "all to be well")
    assert pids(running) == before
    running.config["log"] = {"level": "warning"}
    reload(running)
    silent = len(running.events("configuration reloaded"))
    assert running.cli("reload").code == 0
    assert len(running.events("configuration reloaded")) == silent, "neither info nor debug is told any more"


def test_a_restart_policy_holds_for_the_next_crash(running: Daemon) -> None:
    running.config["apps"]["free"]["restart"] = {"after": ["remount"]}
    reload(running)
    pid = pids(running)["free"]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: running.status()["apps"]["free"]["state"] == "failed", 10, "the app to be left alone")


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


def test_a_model_on_another_mount_climbs_there_and_its_app_follows(running: Daemon) -> None:
    before = pids(running)
    running.config["models"]["cache_hub"]["mount"] = "second"
    assert reload(running)["restarted"] == ["webui"]
    assert_restarted(running, before, "webui")
    assert os.readlink(running.link) == f"{running.root}/second/cache_hub_v23"


def test_another_directory_of_a_model_goes_live_before_its_app_restarts(running: Daemon, store: RcloneS3) -> None:
    before = pids(running)
    bucket = store.directory / hub.BUCKET
    subprocess.run(["cp", "-r", bucket / "cache_hub_v23", bucket / "moved_v23"], check=True)
    running.config["models"]["cache_hub"]["directory"] = "moved_{version}"
    assert reload(running)["restarted"] == ["webui"]
    assert_restarted(running, before, "webui")
    assert os.readlink(running.link) == f"{running.mount}/moved_v23"


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


def test_a_mount_at_another_path(running: Daemon) -> None:
    before = pids(running)
    path = running.root / "elsewhere"
    running.config["mounts"]["storage"]["path"] = str(path)
    assert reload(running)["restarted"] == ["storage", "webui"]
    assert_restarted(running, before, "storage", "webui")
    assert sorted(running.mounts()) == sorted([str(path), str(running.root / "second")])
    assert os.readlink(running.link) == f"{path}/cache_hub_v23"


def test_http_moves_to_another_port(running: Daemon) -> None:
    before = pids(running)
    former = running.http_port
    with contextlib.closing(hold_port()) as held:
        running.http_port = held.getsockname()[1]
        running.config["http"]["listen"] = f"127.0.0.1:{running.http_port}"
        assert reload(running)["in_place"] == ["http.listen"]
        urllib.request.urlopen(f"http://127.0.0.1:{running.http_port}/healthz", timeout=10).close()
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{former}/healthz", timeout=10)
        # The same port, on every address: no two can listen there at once.
        running.config["http"]["listen"] = f"0.0.0.0:{running.http_port}"
        reload(running)
        urllib.request.urlopen(f"http://127.0.0.2:{running.http_port}/healthz", timeout=10).close()
        assert pids(running) == before
        assert running.stop() == 0


def test_http_stays_where_it_is_when_the_port_is_taken(running: Daemon) -> None:
    former = running.config["http"]["listen"]
    with contextlib.closing(hold_port()) as held:
        held.listen()
        port = held.getsockname()[1]
        running.config["http"]["listen"] = f"127.0.0.1:{port}"
        running.config["apps"]["webui"]["environment"]["NEW"] = "here"
        before = pids(running)
        result = refused(running)
        assert f"http.listen: cannot listen on 127.0.0.1:{port}: the port is taken by " in result.err
        urllib.request.urlopen(f"http://{former}/healthz", timeout=10).close()
        assert pids(running) == before, "all or nothing"


# -- added and removed --------------------------------------------------------------------------------------------


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


def test_a_secret_of_an_app_restarts_it(daemon: Daemon) -> None:
    token = daemon.root / "token"
    token.write_text("first-token\n")
    daemon.config["apps"]["webui"]["environment"]["HF_TOKEN"] = {"file": str(token)}
    daemon.start_ready()
    before = pids(daemon)
    token.write_text("second-token\n")  # nobody asks
    assert_restarted(daemon, before, "webui")
    assert b"HF_TOKEN=second-token" in Path(f"/proc/{pids(daemon)['webui']}/environ").read_bytes().split(b"\0")
    [event] = daemon.events("configuration reloaded")
    assert event["changed"] == ["apps.webui.environment.HF_TOKEN"]
    assert "second-token" not in daemon.log_text()


def test_new_credentials_reach_rclone_without_a_remount(running: Daemon, store: RcloneS3) -> None:
    before = pids(running)
    store.set_keys("MOUNTDTESTKEY0002", "mountd-test-secret-0002")
    # Its server is started anew for them: until it is there it is unreachable.
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


# -- the file changes by itself -----------------------------------------------------------------------------------


def in_place(file: Path, text: str) -> None:
    file.write_text(text)


def by_rename(file: Path, text: str) -> None:
    """As vim and most others do."""
    other = file.with_name(".mountd.yaml.swp")
    other.write_text(text)
    os.replace(file, file.with_name("mountd.yaml~"))
    os.replace(other, file)


@pytest.mark.parametrize("write", [in_place, by_rename])
def test_a_changed_file_is_noticed(running: Daemon, write: Callable[[Path, str], None]) -> None:
    for number in range(2):
        before = pids(running)
        running.config["apps"]["free"]["environment"] = {"NUMBER": str(number)}
        began = time.monotonic()
        write(running.config_file, yaml.safe_dump(running.config))
        until(lambda: pids(running)["free"] not in (None, before["free"]), SOON_S, "the app to be restarted")  # noqa: B023
        assert time.monotonic() - began < SOON_S
        assert_restarted(running, before, "free")
    assert len(running.events("configuration reloaded")) == 2


@pytest.fixture
def config_map(daemon: Daemon) -> Path:
    """The file and the secret as Kubernetes mounts them: links through `..data`, which is replaced as a whole."""
    root = daemon.root / "config-map"
    root.mkdir()
    return root


def publish(root: Path, generation: str, files: dict[str, str]) -> None:
    directory = root / f"..{generation}"
    directory.mkdir()
    for name, text in files.items():
        (directory / name).write_text(text)
        with contextlib.suppress(FileExistsError):
            (root / name).symlink_to(f"..data/{name}")
    former = (root / "..data").resolve() if (root / "..data").is_symlink() else None
    (root / "..data_tmp").symlink_to(directory.name)
    os.replace(root / "..data_tmp", root / "..data")
    if former is not None:
        for path in former.iterdir():
            path.unlink()
        former.rmdir()


def test_a_config_map_is_swapped(daemon: Daemon, config_map: Path) -> None:
    webui = daemon.config["apps"]["webui"]
    webui["environment"]["HF_TOKEN"] = {"file": str(config_map / "token")}
    webui["environment"]["TURN"] = "0"
    publish(config_map, "0", {"mountd.yaml": yaml.safe_dump(daemon.config), "token": "t0"})
    daemon.config_file.symlink_to(config_map / "mountd.yaml")
    daemon.start_ready()
    for turn in ("1", "2"):
        before = pids(daemon)
        webui["environment"]["TURN"] = turn
        publish(config_map, turn, {"mountd.yaml": yaml.safe_dump(daemon.config), "token": f"t{turn}"})
        until(lambda: pids(daemon)["webui"] not in (None, before["webui"]), SOON_S, "the app to be restarted")  # noqa: B023
        assert_restarted(daemon, before, "webui")
        environment = Path(f"/proc/{pids(daemon)['webui']}/environ").read_bytes().split(b"\0")
        assert {f"TURN={turn}".encode(), f"HF_TOKEN=t{turn}".encode()} <= set(environment)
    changed = [event["changed"] for event in daemon.events("configuration reloaded")]
    assert changed == [["apps.webui.environment.TURN", "apps.webui.environment.HF_TOKEN"]] * 2


def test_a_file_that_was_touched_changes_nothing(running: Daemon) -> None:
    running.config["log"] = {"level": "debug"}
    reload(running)
    known = len(running.events("configuration reloaded"))
    before = pids(running)
    os.utime(running.config_file)
    running.secret.write_text(running.secret_access_key + "\n")  # no other secret
    until(lambda: len(running.events("configuration reloaded")) > known, SOON_S, "the file to be read")
    levels = {event["level"] for event in running.events("configuration reloaded")[known:]}
    assert levels == {"debug"}
    assert pids(running) == before


# -- signals, errors, others --------------------------------------------------------------------------------------


def refused(daemon: Daemon) -> Result:
    """What is in `config` now, asked for by the command, which must refuse it and say so everywhere."""
    daemon.write_config()
    result = daemon.cli("reload")
    assert result.code == 2, result
    assert result.out == ""
    assert str(daemon.config_file) in result.err
    assert "Traceback" not in result.err + daemon.own_log_text()
    status = daemon.status()
    assert status["health"] == "Degraded"
    assert status["ready"], "the former configuration goes on"
    [reason] = [each for each in status["reasons"] if each["code"] == "config-broken"]
    assert (reason["layer"], reason["object"]) == ("config", str(daemon.config_file))
    assert reason["hint"]
    assert status["config"]["problems"]
    for problem in status["config"]["problems"]:
        assert problem["path"] in reason["text"]
        assert f"line {problem['line']}" in result.err
        assert problem["text"] in result.err
    shown = daemon.cli("status")
    assert shown.code == 0
    assert reason["text"] in shown.out
    return result


def test_sighup(running: Daemon) -> None:
    before = pids(running)
    running.config["apps"]["free"]["environment"] = {"NEW": "1"}
    running.write_config()
    assert running.process is not None
    running.process.send_signal(signal.SIGHUP)
    assert_restarted(running, before, "free")


def test_a_broken_file_is_shown_and_heals(running: Daemon) -> None:
    before = pids(running)
    good = running.write_config().read_text()
    running.config["apps"]["webui"]["comand"] = ["x"]
    running.config["mounts"]["storage"]["umask"] = "999"
    running.config["apps"]["free"]["environment"] = {"NEW": "1"}
    result = refused(running)
    assert "apps.webui.comand" in result.err
    assert "did you mean 'command'" in result.err
    assert "mounts.storage.umask" in result.err
    document = running.cli("reload", "-o", "json")
    assert document.code == 2
    assert document.json["error"]["exit"] == 2
    [event] = running.events("configuration broken, the former one goes on")
    assert len(event["problems"]) == 2
    until(lambda: journaled(running, "config-broken"), 20, "the event")
    assert pids(running) == before

    running.config_file.write_text("remotes: [")
    until(
        lambda: (
            "not valid YAML" in json.dumps(running.reasons()) or running.status()["config"]["problems"][0]["path"] == ""
        ),
        SOON_S,
        "the file to be read",
    )
    running.config_file.unlink()
    until(lambda: "no such file" in json.dumps(running.status()["config"]), SOON_S, "the file to be missed")
    running.config_file.write_text(good)
    until(lambda: "config-broken" not in running.reasons(), SOON_S, "the file to be used again")
    assert running.status()["health"] == "Healthy"
    assert pids(running) == before


def test_a_secret_that_cannot_be_read_is_a_broken_file(running: Daemon) -> None:
    before = pids(running)
    running.secret.unlink()
    reason = running.until_reason("config-broken", SOON_S)
    assert "remotes.store.secret_access_key" in reason["text"]
    result = running.cli("reload")
    assert result.code == 2
    assert str(running.secret) in result.err
    running.secret.write_text(running.secret_access_key)
    until(lambda: "config-broken" not in running.reasons(), SOON_S, "the secret to be there again")
    assert pids(running) == before


def test_what_needs_a_restart_of_mountd_is_refused_as_a_whole(running: Daemon) -> None:
    before = pids(running)
    running.config["state"] = str(running.root / "state2")
    running.config["control"]["group"] = "root"
    running.config["log"] = {"format": "json"}
    running.config["apps"]["free"]["environment"] = {"NEW": "1"}
    result = refused(running)
    for path in ("state", "control.group", "log.format"):
        assert f"{path}: needs a restart of mountd" in result.err
    assert "hint: undo this edit, or restart mountd: systemctl restart mountd" in result.err
    assert pids(running) == before
    assert not (running.root / "state2").exists()


def test_a_flag_that_this_rclone_does_not_know_is_refused(running: Daemon) -> None:
    before = pids(running)
    running.config["mounts"]["storage"]["options"] = {"no-such-flag": "1"}
    assert "has no flag --no-such-flag" in refused(running).err
    assert pids(running) == before


def test_a_mount_that_has_failed_comes_back_with_its_cause_gone(daemon: Daemon) -> None:
    daemon.config["mounts"]["storage"]["options"] = {"no-such-flag": "1"}
    daemon.start()
    daemon.until_reason("rclone-usage")
    until(lambda: daemon.status()["mounts"]["storage"]["state"] == "failed", 10, "the mount to be given up")
    daemon.config["mounts"]["storage"]["options"] = {}
    daemon.write_config()
    daemon.until_ready()


def test_a_version_is_edited_before_any_was_live(daemon: Daemon) -> None:
    daemon.config["models"]["cache_hub"]["version"] = "v99"
    daemon.start()
    daemon.until_reason("waiting-for-content")
    daemon.config["models"]["cache_hub"]["version"] = "v22"
    daemon.write_config()
    status = daemon.until_ready()
    assert status["models"]["cache_hub"]["current"] == "v22"
    assert status["operation"] is None
    assert daemon.events("operation step") == [], "there was nothing to switch from"


def test_a_link_that_cannot_be_placed_is_refused(running: Daemon) -> None:
    blocked = running.app / "data"
    blocked.mkdir()
    running.config["models"]["cache_hub"]["link"] = str(blocked)
    assert "a real directory is in its place" in refused(running).err
    assert running.link.is_symlink()


def test_a_file_on_a_mount_of_ours_is_not_touched(running: Daemon) -> None:
    """It would be read by the daemon's own process, which a hung mount must never stop."""
    running.secret.unlink()
    running.secret.symlink_to(running.mount / "cache_hub_v23")
    os.kill(pids(running)["storage"] or 0, signal.SIGSTOP)
    reason = running.until_reason("config-broken", SOON_S)
    assert f"lies on the mount {running.mount}" in reason["text"]
    running.secret.unlink()
    running.secret.write_text(running.secret_access_key)
    until(lambda: "config-broken" not in running.reasons(), SOON_S, "the secret to be there again")


def test_two_at_once(running: Daemon) -> None:
    before = pids(running)
    running.config["apps"]["free"]["environment"] = {"NEW": "1"}
    running.write_config()
    command = [sys.executable, "-m", "mountd", "--socket", str(running.socket), "reload", "-o", "json"]
    asking = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [json.loads(each.communicate(timeout=60)[0]) for each in asking]
    assert [each.returncode for each in asking] == [0, 0, 0]
    assert_restarted(running, before, "free")
    assert running.status()["apps"]["free"]["restarts"] == 1
    assert sum(bool(each["changed"]) for each in answers) <= 1
    assert len(running.events("configuration reloaded")) == 1


@pytest.fixture
def slow(make_daemon: Callable[..., Daemon]) -> Daemon:
    """Its app needs some seconds to start, and so does a switch."""
    daemon = make_daemon(webui=("--load-seconds", "4"))
    daemon.start_ready()
    return daemon


@contextlib.contextmanager
def switching(daemon: Daemon, version: str) -> Iterator[None]:
    """While a switch runs, which must succeed."""
    command = [sys.executable, "-m", "mountd", "--socket", str(daemon.socket), "switch", version]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as asking:
        until(lambda: daemon.status()["operation"], 20, "the switch to begin")
        yield
        assert asking.wait(90) == 0


def test_a_switch_is_waited_for(slow: Daemon) -> None:
    with switching(slow, "v22"):
        slow.config["apps"]["webui"]["ready"]["timeout"] = "45s"
        done = reload(slow)
        assert slow.status()["operation"] is None
    assert done["in_place"] == ["apps.webui.ready.timeout"]
    assert slow.until_ready()["models"]["cache_hub"]["current"] == "v22"


@pytest.mark.slow
def test_a_long_switch_makes_the_one_who_asks_go_away(make_daemon: Callable[..., Daemon]) -> None:
    """But not the change: it is made as soon as the switch is over."""
    daemon = make_daemon(webui=("--load-seconds", "18"))
    daemon.start()
    daemon.until_ready(60)
    with switching(daemon, "v22"):
        daemon.config["apps"]["webui"]["ready"]["timeout"] = "45s"
        daemon.write_config()
        result = daemon.cli("reload")
        assert result.code == 6, result
        assert "cannot reload: busy with root (switch cache_hub to v22" in result.err
        assert daemon.events("configuration reloaded") == []
    until(lambda: daemon.events("configuration reloaded"), SOON_S, "the change to be made")
