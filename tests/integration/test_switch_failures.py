"""Switches that fail, one way at a time: what is reported, what is undone, and what nobody noticed."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mountd.demo import hub
from tests.support import hold_port
from tests.support.bad_versions import ODD_NAMES, build_bad
from tests.support.daemon import Daemon
from tests.support.explained import until_explained
from tests.support.machine import replace_link_by_directory
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.stage import SOON_S, Stage, says
from tests.support.wait import until

pytestmark = pytest.mark.fuse

Staged = Callable[..., Stage]


@pytest.fixture
def port() -> Iterator[int]:
    with hold_port() as held:
        yield held.getsockname()[1]


@pytest.fixture
def staged(make_daemon: Callable[..., Daemon]) -> Staged:
    def make(*, ready: str = "20s", grace: str = "3s", **changes: Any) -> Stage:
        return Stage(make_daemon(**changes), ready=ready, grace=grace)

    return make


# -- refused ----------------------------------------------------------------------------------------------------------


def test_what_is_refused_changes_nothing(staged: Staged, store: RcloneS3) -> None:
    stage = staged()
    daemon = stage.daemon
    model = daemon.config["models"]["cache_hub"]
    model["directory"] = "./cache_hub_{version}/"
    model["required"] = ["./config.yaml", "models//gpt.pth", "models/./s2mel.pth/"]
    daemon.config["mounts"]["storage"]["remote"] += "/./"
    daemon.start_ready()
    pid = stage.pid()
    build_bad(store.directory)
    model["required"].append("models/gtp.pth")
    daemon.write_config()
    assert daemon.cli("reload").code == 0
    says(
        daemon.cli("switch", "v22"),
        7,
        "models/gtp.pth",
        "'models/gpt.pth'",
    )
    model["required"].pop()
    daemon.write_config()
    assert daemon.cli("reload").code == 0

    refused = daemon.cli("switch", "bad", "-o", "json")
    says(refused, 7, "campplus_cn_common.bin", "models/s2mel.pth")
    bad = stage.operation(refused.json["id"])
    assert (bad["result"], bad["error"]["exit"], bad["to"], bad["step"]) == ("refused", 7, "bad", "preflight")
    says(daemon.cli("switch", "v99"), 3, "v99", "mountd versions")
    for name in ("latest", "../v22", "", "v 22", "v22/models"):
        says(daemon.cli("switch", name), 2, "version")
    says(daemon.cli("rollback"), 3, "cache_hub")
    assert daemon.cli("switch", "v23", "-o", "json").json["unchanged"] is True
    assert stage.pid() == pid
    stage.check_serves("v23")

    replace_link_by_directory(daemon.link, "precious", "data")
    says(daemon.cli("switch", "v22"), 7, f"mv {daemon.link}")
    assert os.listdir(daemon.link) == ["precious"]
    assert stage.pid() == pid
    assert stage.model()["desired"] == "v23"


@pytest.mark.thorough
def test_unusual_versions_and_a_link_that_was_removed_by_hand(staged: Staged, store: RcloneS3) -> None:
    stage = staged()
    daemon = stage.daemon
    build_bad(store.directory)
    daemon.start_ready()
    daemon.link.unlink()
    assert daemon.cli("switch", "v22").code == 0
    stage.check_serves("v22")
    assert daemon.cli("switch", "odd").code == 0
    stage.check_serves("odd")
    assert stage.model()["verified"] is True
    for name in ODD_NAMES:
        bucket = store.directory / hub.BUCKET / "cache_hub_odd" / name
        assert (daemon.link / name).read_bytes() == bucket.read_bytes()

    daemon.config["apps"] = {}  # the app reads the manifest, which this one lacks
    assert daemon.stop() == 0
    daemon.start_ready()
    says(daemon.cli("switch", "bare"), 7, "MANIFEST.json")
    assert daemon.cli("switch", "bare", "--force").code == 0
    model = stage.model()
    directory = store.directory / hub.BUCKET / "cache_hub_bare"
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    lines = sorted(f"{path.relative_to(directory)}\t{path.stat().st_size}\n" for path in files)
    assert (model["current"], model["verified"]) == ("bare", False)
    assert model["digest"] == hashlib.sha256("".join(lines).encode()).hexdigest()


# -- rolled back ------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(240)
def test_a_version_that_does_not_come_up_is_rolled_back(staged: Staged) -> None:
    stage = staged(ready="15s")
    daemon = stage.daemon
    daemon.start_ready()
    for behaviour, cause in [
        ("crash", "RuntimeError: CUDA out of memory"),
        ("exit", "exit code 0"),
        ("hang", "15 s"),
    ]:
        stage.behave("v22", behaviour)
        before = stage.pid()
        failed = daemon.cli("switch", "v22", "--force", "-o", "json")
        says(failed, 5, cause, "mountd logs webui")
        explained = until_explained(daemon, "rolled-back")
        assert any(cause in fact for fact in explained["root"]["evidence"])
        stage.check_serves("v23")
        assert stage.pid() != before
        assert daemon.status()["ready"]
        assert stage.model()["previous"] is None
        operation = stage.operation(failed.json["id"])
        shown = (
            operation["result"],
            operation["error"]["exit"],
            operation["from"],
            operation["to"],
            operation["source"],
        )
        assert shown == ("rolled-back", 5, "v23", "v22", "cli")
        assert cause in operation["cause"]
        assert operation["operator"]
        assert operation["duration_s"] > 0

        says(daemon.cli("switch", "v22"), 7, cause, "--force")

    stage.behave("v22", "")
    assert daemon.cli("switch", "v22", "--force").code == 0
    stage.check_serves("v22")
    stage.behave("v23", "crash")
    says(daemon.cli("rollback"), 5)
    stage.check_serves("v22")
    assert stage.model()["previous"] == "v23"


@pytest.mark.thorough
def test_when_going_back_fails_too_both_causes_are_reported_and_it_is_tried_on(staged: Staged) -> None:
    stage = staged()
    daemon = stage.daemon
    daemon.start_ready()
    for version in ("v22", "v23"):
        stage.behave(version, "crash")
    says(daemon.cli("switch", "v22"), 1, "CUDA out of memory", "v23")
    assert stage.link() == "v23"
    assert stage.operation(1)["result"] == "failed"
    assert not daemon.status()["ready"]
    rows = {row["version"]: row for row in daemon.cli("versions", "-o", "json").json["versions"]}
    assert rows["v22"]["quarantined"] is False, "when both fail it is the machine"
    stage.behave("v23", "")
    daemon.until_ready()
    stage.check_serves("v23")


# -- one at a time ----------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_caller_whose_patience_ends_and_one_who_comes_second(staged: Staged) -> None:
    stage = staged(ready="120s")
    daemon = stage.daemon
    daemon.start_ready()
    stage.hold("v22")
    left = daemon.cli("switch", "v22", "--timeout", "1s")
    says(left, 4, "`mountd wait --for operation=1`")
    busy = daemon.cli("switch", "v23")
    says(busy, 6, "switch cache_hub", str(stage.operation(1)["operator"]))
    says(daemon.cli("rollback"), 3)
    stage.let_go("v22")
    assert daemon.cli("wait", "--for", "version=v22", "--timeout", "60s").code == 0
    stage.check_serves("v22")
    assert stage.operation(1)["result"] == "committed"


# -- the bucket or the mount goes away --------------------------------------------------------------------------------


@pytest.mark.thorough
def test_an_outage_before_anything_was_changed(staged: Staged, proxy: Proxy) -> None:
    stage = staged(endpoint=proxy.endpoint)
    daemon = stage.daemon
    daemon.config["mounts"]["storage"]["options"] = {"low-level-retries": "2"}  # else it gives up after 7 s
    daemon.start_ready()
    pid = stage.pid()
    proxy.down()
    failed = daemon.cli("switch", "v22")
    assert failed.code == 1, failed
    assert stage.operation(1)["result"] == "failed"
    assert (stage.pid(), stage.link()) == (pid, "v23")
    assert daemon.status()["ready"], "an app that runs stays ready"
    proxy.up()
    assert daemon.cli("switch", "v22").code == 0
    stage.check_serves("v22")


@pytest.mark.thorough
def test_a_mount_that_dies_in_the_middle(staged: Staged) -> None:
    """What was loading from it is started again on the new one, and the switch goes on."""
    stage = staged()
    daemon = stage.daemon
    daemon.start_ready()
    stage.hold("v22")
    stage.begin("v22")
    stage.until_held("v22")
    before = daemon.status()
    os.kill(before["mounts"]["storage"]["pid"], signal.SIGKILL)

    def is_loading_again() -> bool:
        now = daemon.status()
        mount, app = now["mounts"]["storage"], now["apps"]["webui"]
        new = app["pid"] not in (None, before["apps"]["webui"]["pid"])
        return mount["restarts"] == 1 and mount["state"] == "running" and new

    until(is_loading_again, SOON_S, "the mount to be back")
    assert stage.operation(1)["finished"] is None
    stage.let_go("v22")
    until(lambda: stage.operation(1)["finished"], SOON_S, "the switch to finish")
    daemon.until_ready()
    operation = stage.operation(1)
    assert (operation["result"], operation["cause"]) == ("committed", ""), operation
    stage.check_serves("v22")


# -- mountd itself ends -----------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_mountd_that_ends_in_the_middle_serves_what_was_committed(staged: Staged) -> None:
    stage = staged(ready="120s")
    daemon = stage.daemon
    daemon.start_ready()
    stage.hold("v22")

    stage.begin("v22")
    stage.until_held("v22")
    assert stage.link() == "v22"
    assert daemon.stop() == 0
    assert stage.link() == "v23", "also while nobody is there to put it right"
    assert (daemon.mounts(), daemon.processes()) == ([], [])
    daemon.start_ready()
    stage.check_serves("v23")
    stopped = stage.operation(1)
    assert (stopped["result"], stopped["error"]["exit"], stopped["finished"] is not None) == ("rolled-back", 5, True)

    daemon.log.write_text("")
    stage.begin("v22")
    stage.until_held("v22")
    pid = daemon.status()["pid"]
    assert daemon.process is not None
    os.kill(pid, signal.SIGKILL)
    daemon.wait_exit()
    assert stage.link() == "v22"
    daemon.start_ready()
    stage.check_serves("v23")
    ended = stage.operation(2)
    assert (ended["result"], ended["error"]["exit"]) == ("rolled-back", 5)
    assert "ready" in ended["cause"], "the step that was cut off"
    stage.let_go("v22")
    assert daemon.cli("switch", "v22").code == 0
    stage.check_serves("v22")


@pytest.mark.thorough
def test_mountd_that_is_stopped_while_it_undoes(staged: Staged, port: int) -> None:
    stage = staged(grace="6s")
    daemon = stage.daemon
    stage.add_app("api", "cache_hub", daemon.link, port)
    daemon.start_ready()
    stage.behave("v22", "crash")
    stage.behave("v22", "deaf", "api")  # comes up, and takes its time to go
    stage.begin("v22")
    stage.until_step("stop-new")
    assert stage.link() == "v22"
    assert daemon.stop() == 0
    assert stage.link() == "v23"
    daemon.start_ready()
    stage.check_serves("v23")
    assert stage.operation(1)["result"] == "rolled-back"


# -- several models and apps ------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_switch_touches_only_the_apps_of_its_model(staged: Staged, store: RcloneS3, port: int) -> None:
    stage = staged()
    daemon = stage.daemon
    models = daemon.config["models"]
    for name in ("voices", "spare"):
        models[name] = {**models["cache_hub"], "link": str(daemon.root / name), "version": "v22"}
    stage.add_app("api", "voices", daemon.root / "voices", port)
    # One that reads the link again for each job, say, and so need not be restarted by a switch.
    daemon.config["apps"]["batch"] = {
        "command": ["sleep", "600"],
        "needs": ["spare"],
        "restart": {"after": ["crash", "remount"]},
    }
    build_bad(store.directory)
    daemon.start_ready()

    def pids() -> dict[str, int]:
        return {name: app["pid"] for name, app in daemon.status()["apps"].items()}

    def currents() -> dict[str, str]:
        return {name: model["current"] for name, model in daemon.status()["models"].items()}

    before = pids()
    says(daemon.cli("switch", "v23"), 2, "--model", "cache_hub, voices, spare")
    says(daemon.cli("switch", "v23", "--model", "nothing"), 3, "cache_hub, voices, spare")
    says(daemon.cli("switch", "bad", "--model", "spare"), 7)
    assert pids() == before
    assert currents() == {"cache_hub": "v23", "voices": "v22", "spare": "v22"}

    assert daemon.cli("switch", "v23", "--model", "spare").code == 0
    assert pids() == before, "nobody had asked to be restarted"
    assert os.readlink(daemon.root / "spare") == f"{daemon.mount}/cache_hub_v23"

    assert daemon.cli("switch", "v23", "--model", "voices").code == 0
    after = pids()
    assert {name for name in after if after[name] != before[name]} == {"api"}
    assert currents() == {"cache_hub": "v23", "voices": "v23", "spare": "v23"}
    assert daemon.cli("rollback", "--model", "spare").code == 0
    assert currents()["spare"] == "v22"
    assert daemon.cli("wait", "--for", "version=v22", "--model", "spare", "--timeout", "30s").code == 0
    assert pids() == after

    stage.behave("v22", "crash", "api")
    says(daemon.cli("rollback", "--model", "voices"), 5, "RuntimeError: CUDA out of memory")
    assert currents()["voices"] == "v23"
    assert {name for name, pid in pids().items() if pid != after[name]} == {"api"}


@pytest.mark.thorough
def test_models_without_apps(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    daemon = make_daemon()
    daemon.config["apps"] = {}
    build_bad(store.directory)
    daemon.start_ready()
    assert daemon.cli("switch", "v22").code == 0
    assert (daemon.link / "MANIFEST.json").read_bytes().find(b'"v22"') > 0
    assert daemon.cli("switch", "bad").code == 7
    assert daemon.cli("rollback").code == 0
    model = daemon.status()["models"]["cache_hub"]
    assert (model["current"], model["previous"], model["desired"]) == ("v23", "v22", "v23")
    assert daemon.status()["ready"]

    # A version that loses a file between the listing and the flip is nothing to mount; one that is gone is not found.
    shutil.rmtree(store.directory / hub.BUCKET / "cache_hub_v22")
    assert daemon.cli("rollback").code == 3
    assert daemon.status()["models"]["cache_hub"]["current"] == "v23"
