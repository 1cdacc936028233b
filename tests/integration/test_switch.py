"""Switches as transactions: bad versions one by one, cancelling, several at once, retries, and what a plan promises."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mountd.client.api import get, post
from mountd.demo import hub
from mountd.errors import Busy, MountdError, NotFound, UsageError
from tests.support import hold_port
from tests.support.daemon import ANSWER_S, Daemon
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.stage import SOON_S, Stage, says
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SCALE = 1 / 10_000
STEPS = ["preflight", "warm", "verify", "stop", "flip", "start", "ready", "gates", "watch", "commit"]
BACK = ["stop-new", "flip-back", "start-old"]


@pytest.fixture
def port() -> Iterator[int]:
    with hold_port() as held:
        yield held.getsockname()[1]


def build(store: RcloneS3, *versions: str) -> None:
    hub.build(store.directory, versions=versions, scale=SCALE)


def directory(store: RcloneS3, version: str) -> Path:
    return store.directory / hub.BUCKET / f"cache_hub_{version}"


def reported(daemon: Daemon, id_: int) -> dict[str, Any]:
    found: dict[str, Any] = get(str(daemon.socket), f"/api/v1/operations/{id_}", timeout_s=ANSWER_S)
    return found


def ask(daemon: Daemon, version: str, **body: Any) -> int:
    """Begins a switch and returns its id."""
    answer = post(str(daemon.socket), "/api/v1/switch", {"version": version, **body}, timeout_s=ANSWER_S)
    id_: int = answer["operation"]["id"]
    return id_


def ended(daemon: Daemon, id_: int, limit_s: float = SOON_S) -> dict[str, Any]:
    found = until(
        lambda: reported(daemon, id_)["finished"] and reported(daemon, id_), limit_s, f"the result of operation {id_}"
    )
    assert isinstance(found, dict)
    return found


def refused(daemon: Daemon, path: str, exit_code: int, **body: Any) -> MountdError:
    with pytest.raises(MountdError) as error:
        post(str(daemon.socket), f"/api/v1/{path}", body, timeout_s=ANSWER_S)
    assert error.value.exit_code == exit_code
    return error.value


def holder(daemon: Daemon, path: str, **body: Any) -> str:
    """Who keeps a request from being taken."""
    busy = refused(daemon, path, Busy.exit_code, **body)
    assert isinstance(busy, Busy)
    return busy.holder


def cancel(daemon: Daemon, **body: Any) -> None:
    post(str(daemon.socket), "/api/v1/cancel", body, timeout_s=ANSWER_S)


def is_quarantined(daemon: Daemon, version: str) -> bool:
    listed = get(str(daemon.socket), "/api/v1/versions", timeout_s=ANSWER_S)["versions"]
    (found,) = [each["quarantined"] for each in listed if each["version"] == version]
    return bool(found)


def assert_steps(daemon: Daemon, id_: int, *steps: str) -> None:
    """As the log reports them, in their order."""
    logged = daemon.until_events("operation step", len(steps), operation=id_)
    assert [event["step"] for event in logged] == list(steps)


def until_served(store: RcloneS3, key: str) -> None:
    """A file that was changed behind the server is what it gives a moment later: it keeps listings for 100 ms."""
    content = (store.directory / hub.BUCKET / key).read_bytes()
    until(
        lambda: store.client.get_object(Bucket=hub.BUCKET, Key=key)["Body"].read() == content,
        60,
        "the server to see it",
    )


# -- bad versions -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_bad_versions_leave_the_old_one_serving(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    build(store, "lost", "short", "torn", "flipped", "bare", "crashes", "dies", "hangs", "mute", "good")
    (directory(store, "lost") / "models/gpt.pth").unlink()
    short = directory(store, "short") / "models/s2mel.pth"
    short.write_bytes(short.read_bytes()[:-1])
    torn = directory(store, "torn") / "MANIFEST.json"
    torn.write_bytes(torn.read_bytes()[:400])
    flipped = directory(store, "flipped") / "models/gpt.pth"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    (directory(store, "bare") / "MANIFEST.json").unlink()

    stage = Stage(make_daemon(), ready="15s")
    daemon = stage.daemon
    daemon.config["models"]["cache_hub"]["watch"] = {"for": "5s"}
    stage.gate()
    for version, behaviour in [("crashes", "crash"), ("dies", "dies"), ("hangs", "hang"), ("mute", "mute")]:
        stage.behave(version, behaviour)
    daemon.start_ready()
    pid = stage.pid()

    # Refused before anything was changed.
    for version, flags, step, cause, quarantined in [
        ("lost", {}, "preflight", "models/gpt.pth", False),
        ("short", {}, "preflight", "models/s2mel.pth", False),
        ("torn", {}, "preflight", "JSONDecodeError", False),
        ("bare", {}, "preflight", "v23", False),
        ("bare", {"digests": True, "force": True}, "preflight", "MANIFEST.json", False),
        ("flipped", {"digests": True}, "verify", "models/gpt.pth", True),
    ]:
        operation = ended(daemon, ask(daemon, version, **flags))
        assert (operation["result"], operation["error"]["exit"], operation["step"]) == ("refused", 7, step)
        assert cause in operation["cause"]
        assert is_quarantined(daemon, version) is quarantined
        assert stage.pid() == pid
    stage.check_serves("v23")
    says(daemon.cli("switch", "flipped"), 7, "flipped", "models/gpt.pth")

    # Undone.
    for version, step, cause in [
        ("crashes", "ready", "RuntimeError: CUDA out of memory"),
        ("dies", "watch", "RuntimeError: device-side assert triggered"),
        ("hangs", "ready", "15 s"),
        ("mute", "gates", f"http://127.0.0.1:{daemon.web_port}/synthesis"),
        ("bare", "ready", "FileNotFoundError"),
    ]:
        id_ = ask(daemon, version, force=version == "bare")
        if version == "dies":
            stage.until_step("watch")
            stage.die(version)
        operation = ended(daemon, id_)
        assert (operation["result"], operation["error"]["exit"]) == ("rolled-back", 5)
        assert cause in operation["cause"]
        assert bool(re.search(r"\b\d+ s\b", operation["cause"])) is (version in ("dies", "hangs")), "how late it was"
        stage.check_serves("v23")
        assert daemon.status()["ready"]
        wanted = STEPS[: STEPS.index(step) + 1]
        assert_steps(daemon, operation["id"], *wanted, *BACK)
        assert is_quarantined(daemon, version)
        assert stage.model()["previous"] is None

    # Refused again, until what it holds changes, or by force.
    pid = stage.pid()
    says(daemon.cli("switch", "dies"), 7, "dies", "device-side assert triggered", "--force")
    assert stage.pid() == pid
    stage.behave("dies", "")
    assert daemon.cli("switch", "dies", "--force").code == 0
    stage.check_serves("dies")
    assert not is_quarantined(daemon, "dies"), "it has proven itself"
    (directory(store, "mute") / "config.yaml").write_text("version: 2.1\n")
    (directory(store, "mute") / "MANIFEST.json").write_bytes(hub.manifest(directory(store, "mute"), "mute"))
    until_served(store, "cache_hub_mute/MANIFEST.json")
    stage.behave("mute", "")
    assert ended(daemon, ask(daemon, "mute"))["result"] == "committed"
    stage.check_serves("mute")


def test_a_good_version_with_its_digests_and_a_dry_run(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    stage = Stage(make_daemon())
    daemon = stage.daemon
    daemon.config["models"]["cache_hub"]["watch"] = {"for": "5s", "crashes": 2}
    stage.gate()
    stage.behave("v22", "dies")
    daemon.start_ready()
    pid = stage.pid()

    shown = daemon.cli("switch", "v22", "--dry-run", "--digests")
    assert shown.code == 0, shown
    dry = daemon.cli("switch", "v22", "--dry-run", "--digests", "-o", "json").json
    assert shown.out.splitlines() == dry["plan"]["text"]
    asked = dry["plan"]["link"], dry["plan"]["target"], dry["plan"]["apps"], dry["plan"]["digests"]
    assert asked == (str(daemon.link), f"{daemon.mount}/cache_hub_v22", ["webui"], True)
    assert (dry["schema"], dry["dry_run"], dry["plan"]["from"], dry["plan"]["to"]) == (1, True, "v23", "v22")
    says(daemon.cli("switch", "v99", "--dry-run"), 3, "v99")
    assert daemon.cli("switch", "v23", "--dry-run", "-o", "json").json["plan"]["steps"] == []
    assert (stage.pid(), stage.model()["desired"]) == (pid, "v23")
    with pytest.raises(NotFound):
        reported(daemon, 1)

    # One crash is allowed: the app is started again, by the operation, and the version stays.
    with ThreadPoolExecutor() as pool:
        switching = pool.submit(daemon.cli, "switch", "v22", "--digests", "-o", "json")
        stage.until_step("watch")
        stage.die("v22")
        done = switching.result()
    assert done.code == 0, done
    stage.check_serves("v22")
    assert [step["step"] for step in dry["plan"]["steps"]] == STEPS
    assert_steps(daemon, 1, *STEPS)
    assert [event["crashes"] for event in daemon.until_events("app crashed while it was watched")] == [1]
    assert done.json["duration_s"] >= 5, "it returns after the watch"
    plan = daemon.cli("rollback", "--dry-run", "-o", "json").json["plan"]
    assert (plan["kind"], plan["model"], plan["from"], plan["to"]) == ("rollback", "cache_hub", "v22", "v23")


# -- cancelled --------------------------------------------------------------------------------------------------------


def test_cancel(make_daemon: Callable[..., Daemon], proxy: Proxy) -> None:
    stage = Stage(make_daemon(endpoint=proxy.endpoint), ready="120s")
    daemon = stage.daemon
    daemon.start_ready()
    pid = stage.pid()
    refused(daemon, "cancel", NotFound.exit_code)

    proxy.faults.black_hole = True  # the listing of preflight waits
    first = ask(daemon, "v22")
    cancel(daemon)
    cancelled = ended(daemon, first)
    proxy.faults.clear()
    assert (cancelled["result"], cancelled["error"]["exit"]) == ("cancelled", 1)
    assert_steps(daemon, first, "preflight")
    assert stage.pid() == pid
    stage.check_serves("v23")

    stage.hold("v22")
    second = ask(daemon, "v22")
    stage.until_held("v22")
    cancel(daemon)
    cancelled = ended(daemon, second)
    assert (cancelled["result"], cancelled["error"]["exit"]) == ("rolled-back", 5)
    ready, stop_new = get(str(daemon.socket), f"/api/v1/history/{second}", timeout_s=ANSWER_S)["steps"][-4:-2]
    assert (ready["step"], ready["outcome"], stop_new["step"]) == ("ready", "cancelled", "stop-new")
    stage.check_serves("v23")
    assert not is_quarantined(daemon, "v22")
    stage.let_go("v22")
    assert ended(daemon, ask(daemon, "v22"))["result"] == "committed"
    stage.check_serves("v22")


# -- several at once --------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_one_operation_a_model_and_a_shared_app(make_daemon: Callable[..., Daemon], port: int) -> None:
    stage = Stage(make_daemon(), ready="120s")
    daemon = stage.daemon
    models = daemon.config["models"]
    models["voices"] = {**models["cache_hub"], "link": str(daemon.root / "voices")}
    models["spare"] = {**models["cache_hub"], "link": str(daemon.root / "spare")}
    stage.add_app("api", "voices", daemon.root / "voices", port)["needs"] = ["voices", "spare"]
    daemon.start_ready()
    stage.hold("v22")

    first = ask(daemon, "v22", model="cache_hub")
    stage.until_step("ready")
    assert ended(daemon, ask(daemon, "v22", model="voices"))["result"] == "committed"
    stage.hold("v22", "api")
    second = ask(daemon, "v22", model="spare")
    until(lambda: len(daemon.status()["operations"]) == 2, SOON_S, "two operations at once")
    status = daemon.status()
    assert [each["model"] for each in status["operations"]] == ["cache_hub", "spare"]
    assert status["operation"]["id"] == first
    assert "switch spare" in holder(daemon, "switch", version="v23", model="voices"), "they share an app"
    assert "switch cache_hub" in holder(daemon, "switch", version="v23", model="cache_hub")
    assert "switch cache_hub" in holder(daemon, "drill", kind="kill")
    assert "cache_hub, spare" in refused(daemon, "cancel", UsageError.exit_code).text
    stage.until_held("v22", "api")
    cancel(daemon, model="spare")
    stage.let_go("v22", "api")
    assert ended(daemon, second)["result"] == "rolled-back"
    assert daemon.status()["operation"]["id"] == first, "the other one goes on"
    cancel(daemon, model="cache_hub")
    assert ended(daemon, first)["result"] == "rolled-back"
    currents = {name: model["current"] for name, model in daemon.status()["models"].items()}
    assert currents == {"cache_hub": "v23", "voices": "v22", "spare": "v23"}


# -- tried again ------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_declared_switch_is_tried_again_for_causes_that_can_pass(
    make_daemon: Callable[..., Daemon], proxy: Proxy, store: RcloneS3
) -> None:
    build(store, "bad")
    (directory(store, "bad") / "models/gpt.pth").unlink()
    stage = Stage(make_daemon(endpoint=proxy.endpoint))
    daemon = stage.daemon
    model = daemon.config["models"]["cache_hub"]
    model["sync"] = {"retry": {"limit": 100, "initial": "300ms", "factor": 1, "max": "300ms"}}
    daemon.config["mounts"]["storage"]["options"] = {"low-level-retries": "1"}
    daemon.start_ready()
    proxy.down()
    model["version"] = "v22"
    daemon.write_config()
    until(lambda: daemon.events("switch is tried again"), SOON_S, "a second try")
    proxy.up()
    until(lambda: stage.model()["current"] == "v22", SOON_S, "the version of the file")
    tries = len(daemon.events("switch is tried again"))
    until(lambda: ended(daemon, tries + 1)["result"] == "committed", SOON_S, "the end")
    assert {reported(daemon, number)["result"] for number in range(1, tries + 1)} == {"failed"}
    assert {reported(daemon, number)["source"] for number in range(1, tries + 2)} == {"config"}
    stage.check_serves("v22")

    model["version"] = "bad"
    daemon.write_config()
    assert ended(daemon, tries + 2)["result"] == "refused"
    assert (stage.model()["desired"], stage.model()["sync"]) == ("bad", "OutOfSync")
    assert len(daemon.events("switch is tried again")) == tries, "nothing that passes by itself"


# -- a journal that fails ---------------------------------------------------------------------------------------------

JOURNAL_THAT_FAILS = """
import asyncio, os, sys
from mountd.daemon import run
from mountd.errors import Busy, MountdError, NotFound, UsageError
from mountd.journal.journal import Journal

class Failing(Journal):
    def __getattribute__(self, name):
        asked = ("begin", "begin_step", "end_step", "commit", "finish", "event", "quarantine", "record_content")
        if name in asked and os.path.exists(os.environ["JOURNAL_FAILS"]):
            async def fail(*_, **__):
                raise MountdError("cannot use the journal: database or disk is full")
            return fail
        return super().__getattribute__(name)

sys.exit(run.main(sys.argv[sys.argv.index("-c") + 1], journal=Failing))
"""


@pytest.mark.thorough
def test_a_journal_that_cannot_be_written_keeps_nobody_from_undoing(make_daemon: Callable[..., Daemon]) -> None:
    stage = Stage(make_daemon(), ready="120s")
    daemon = stage.daemon
    script, fails = daemon.root / "failing.py", daemon.root / "journal-fails"
    script.write_text(JOURNAL_THAT_FAILS)
    daemon.program = (sys.executable, str(script))
    daemon.environment = {"JOURNAL_FAILS": str(fails), "PYTHONPATH": os.getcwd()}
    stage.hold("v22")
    daemon.start_ready()
    pid = stage.pid()
    ask(daemon, "v22")
    stage.until_held("v22")
    assert stage.link() == "v22"
    fails.touch()
    stage.let_go("v22")
    until(lambda: stage.link() == "v23" and daemon.page()["version"] == "v23", SOON_S, "the old version again")
    until(lambda: daemon.status()["operation"] is None, SOON_S, "the operation to finish")
    assert stage.pid() != pid
    assert (stage.model()["current"], daemon.page()["version"]) == ("v23", "v23")
    refused(daemon, "switch", MountdError.exit_code, version="v22")
    assert daemon.status()["operation"] is None
    assert daemon.cli("wait", "--for", "operation=1").code == 5, "its end is known, and nobody waits for ever"
    fails.unlink()
    assert ended(daemon, ask(daemon, "v22"))["result"] == "committed"
    results = [each["result"] for each in get(str(daemon.socket), "/api/v1/history")["history"]]
    assert results == ["committed", "rolled-back"]
    stage.check_serves("v22")
