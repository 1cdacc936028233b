"""People are written to by the real apprise in its real process, which a receiver of its `json://` stands for."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import apprise
import pytest

from mountd.errors import MountdError
from mountd.files import worker_process
from mountd.notify import apprise_worker
from mountd.notify import target as target_module
from mountd.notify.delivery import Advice, Undelivered
from mountd.notify.target import NotifyTarget
from mountd.process.lifecycle import Backoff
from tests.support.notified import SOON_S, Notified, notified
from tests.support.receiver import Receiver, Says
from tests.support.wait import until_async

PAGE = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Notified]:
    async with notified(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as found:
        yield found


def addresses(tmp_path: Path, *lines: str) -> dict[str, str]:
    file = tmp_path / "apprise"
    file.touch(0o600)
    file.write_text("\n".join(["# who is notified", "", *lines]))
    return {"file": str(file)}


def json_address(receiver: Receiver, path: str = "SEEN-PATH-1", login: str = "me:SEEN-WORD@") -> str:
    return f"json://{login}127.0.0.1:{receiver.port}/{path}"


def workers() -> list[int]:
    """Children of this process that run the worker."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                words = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if int(stat[1]) == os.getpid() and b"apprise_worker" in words and stat[0] != "Z":
                found.append(int(entry))
    return found


async def begin(world: Notified, tmp_path: Path, *lines: str, **given: Any) -> NotifyTarget:
    return await world.begin_loaded(apprise=addresses(tmp_path, *lines), **{"after": "0s", "timeout": "60s", **given})


async def test_what_waits_is_one_message_with_its_cause_and_what_to_do(
    world: Notified, tmp_path: Path, receiver: Receiver
) -> None:
    world.advice = Advice("the store refuses the key", "mountd doctor")
    await begin(world, tmp_path, json_address(receiver))
    await world.end()
    await world.happens("switch-committed", "app-failed")
    world.begin(apprise=addresses(tmp_path, json_address(receiver)), after="0s", timeout="60s")
    (message,) = await world.posted(receiver, 1)
    await world.until_status(messages=1, pending=0)
    assert message.path == "/SEEN-PATH-1"
    said = message.json
    assert "gpu-1" in said["title"]
    assert said["type"] == "failure"
    for words in ("hub: switch-committed", "hub: app-failed", "the store refuses the key", "mountd doctor", "gpu-1"):
        assert words in said["message"]
    await world.happens("app-running")
    (_, over) = await world.posted(receiver, 2)
    assert over.json["type"] == "success"
    assert "refuses" not in over.json["message"]
    await until_async(lambda: not workers(), SOON_S, "its process to end")


async def test_only_the_address_that_failed_is_tried_again(world: Notified, tmp_path: Path, receiver: Receiver) -> None:
    with Receiver(Says(500), Says(500)) as failing:
        await begin(world, tmp_path, json_address(receiver), json_address(failing, "SEEN-PATH-2"))
        await world.happens("switch-failed")
        await world.posted(failing, 3)
        await world.until_status(messages=1, last_error=None)
    assert len(receiver.got) == 1


async def test_one_address_that_never_works_does_not_keep_messages_from_the_others(
    world: Notified, tmp_path: Path, receiver: Receiver
) -> None:
    await begin(world, tmp_path, json_address(receiver), "nonsense://x")
    await world.happens("app-failed")
    await world.until_status(failed=1, failing=True)
    await world.happens("app-running")
    await world.posted(receiver, 2)
    assert [each.json["type"] for each in receiver.got] == ["failure", "success"]


async def test_a_message_that_reached_some_counts_for_at_most(
    world: Notified, tmp_path: Path, receiver: Receiver
) -> None:
    target = await begin(world, tmp_path, json_address(receiver), "nonsense://x", at_most="1 in 1h")
    await world.happens("app-failed")
    await world.until_status(failed=1)
    assert len(receiver.got) == 1
    assert target._state is not None
    assert len(target._state.sent) == 1
    await world.happens("switch-failed")
    await world.until_status(pending=1)


async def test_a_reload_that_changes_nothing_of_it_repeats_no_message(
    world: Notified, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target_module, "AGAIN", Backoff(SOON_S * 10, 2.0, SOON_S * 10))
    with Receiver(Says(500)) as failing:
        lines = json_address(receiver), json_address(failing, "SEEN-PATH-2")
        target = await begin(world, tmp_path, *lines)
        await world.happens("switch-failed")
        await world.until_status(pending=1, failing=False, messages=0)
        await until_async(lambda: world.status.last_error, SOON_S, "the failure")
        target.reconfigure(
            world.settings(apprise={"file": str(tmp_path / "apprise")}, after="0s", timeout="60s")
        )  # as a reload does, and tries again at once
        await world.until_status(messages=1)
        assert len(failing.got) == 2
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    "line",
    ['{"failed": {"7": "x"}}', '{"failed": {"-1": "x"}}', '{"failed": {"one": "x"}}', '{"failed": []}', "[" * 60_000],
    ids=["too high", "negative", "no number", "no object", "deep"],
)
async def test_an_answer_of_its_process_that_is_none_is_a_failure(
    world: Notified, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    script = tmp_path / "worker.py"
    script.write_text(f"import sys\nsys.stdin.readline()\nprint({line!r}, flush=True)\n")
    monkeypatch.setattr(apprise_worker, "__file__", str(script))
    target = await begin(world, tmp_path, "json://127.0.0.1:9/x")
    with pytest.raises(Undelivered) as caught:
        await target.test("a test")
    assert "no answer" in caught.value.text


async def test_no_secret_is_in_an_error_an_argv_or_an_environment(
    world: Notified, tmp_path: Path, receiver: Receiver, capfd: pytest.CaptureFixture[str]
) -> None:
    receiver.otherwise = Says(403, slow_s=0.3)
    await begin(world, tmp_path, json_address(receiver), "nonsense://SEEN-WORD/SEEN-PATH")
    await world.happens("switch-failed")
    seen: list[bytes] = []

    def is_failing() -> bool:
        for pid in workers():
            for name in ("cmdline", "environ"):
                try:
                    seen.append(Path(f"/proc/{pid}/{name}").read_bytes())
                except OSError:
                    continue
        return world.status.last_error is not None

    await until_async(is_failing, SOON_S, "the failure")
    assert seen, "no look at the process while it runs"
    assert b"SEEN" not in b"".join(seen)
    assert receiver.got[0].path == "/SEEN-PATH-1"
    status = world.status
    assert "SEEN" not in f"{status} {await world.events()}"
    assert "json://" in str(status.last_error)
    assert "SEEN" not in "".join(capfd.readouterr())
    assert "SEEN" not in repr(world.settings(apprise={"file": "/x"}))


async def test_a_service_that_never_answers_is_given_up_and_its_process_killed(
    world: Notified, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.otherwise = Says(slow_s=3600.0)
    target = await begin(world, tmp_path, f"{json_address(receiver)}?rto=600&cto=600", timeout="3s")
    began = time.monotonic()
    with pytest.raises(Undelivered) as caught:
        await target.test("a test")
    assert "3 s" in caught.value.text
    assert time.monotonic() - began < 30.0
    await until_async(lambda: not workers(), SOON_S, "its process to end")


@pytest.mark.thorough
async def test_a_process_that_is_killed_is_a_failure_that_is_tried_again(
    world: Notified, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answers.append(Says(slow_s=30.0))
    target = await begin(world, tmp_path, f"{json_address(receiver)}?rto=60")
    sending = asyncio.create_task(target.test("a test"))
    await world.posted(receiver, 1)
    for pid in workers():
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(Undelivered):
        await sending
    await target.test("a test")


@pytest.mark.thorough
async def test_a_stop_ends_its_process(world: Notified, tmp_path: Path, receiver: Receiver) -> None:
    receiver.otherwise = Says(slow_s=3600.0)
    await begin(world, tmp_path, f"{json_address(receiver)}?rto=600")
    await world.happens("switch-failed")
    await world.posted(receiver, 1)
    await world.end()
    await until_async(lambda: not workers(), SOON_S, "its process to end")


@pytest.mark.parametrize("lines", [[], ["dingtalk://"]])
async def test_addresses_that_cannot_be_used_are_named_by_their_number(
    world: Notified, tmp_path: Path, lines: list[str]
) -> None:
    target = await begin(world, tmp_path, *lines)
    with pytest.raises(MountdError) as caught:
        await target.test("a test")
    assert ("address 1 of 1" in caught.value.text) is bool(lines)


async def test_without_apprise_it_says_what_to_install(
    world: Notified, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the extra is not installed: the process sees no packages."""
    spawn = worker_process._spawn
    monkeypatch.setattr(worker_process, "_spawn", lambda *words, packages: spawn(*words, packages=False))
    target = await begin(world, tmp_path, json_address(receiver))
    with pytest.raises(Undelivered) as caught:
        await target.test("a test")
    assert "mountd[notify]" in caught.value.hint


def test_every_address_of_the_page_is_one() -> None:
    (block,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    found = [line for line in block.splitlines() if line and not line.startswith("#")]
    assert {line.partition(":")[0] for line in found} >= {"mailtos", "dingtalk", "feishu", "wecombot", "slack"}
    for line in found:
        assert apprise.Apprise().add(line), line


def test_what_apprise_complains_of_is_shown_without_parts_of_the_address() -> None:
    url = "dingtalk://SECRET99@TOKEN4567/?to=0123456789"
    said = "Failed to send SECRET99 to https://oapi.dingtalk.com/robot?access_token=TOKEN4567 0123456789, error=404."
    shown = apprise_worker.without_secrets(said, url)
    assert not re.search("SECRET99|TOKEN4567|0123456789", shown)
    assert "error=404" in shown


@pytest.mark.parametrize("shown", ["p@ss/word", "p%40ss%2Fword", "p%40ss%2fword"])
def test_a_part_of_the_address_that_is_quoted_in_another_way_is_not_shown_either(shown: str) -> None:
    said = apprise_worker.without_secrets(f"cannot log in with {shown}", "mailtos://me:p%40ss%2fword@smtp.example.com")
    assert said == "cannot log in with ***"


def test_the_worker_is_for_itself() -> None:
    """It runs without mountd on its path."""
    spec = importlib.util.find_spec("mountd.notify.apprise_worker")
    assert spec is not None
    assert spec.origin is not None
    assert "mountd" not in re.findall(r"^\s*(?:from|import) (\w+)", Path(spec.origin).read_text(), re.MULTILINE)
