"""A webhook to a real receiver: signed, in order, tried again, given up, repeated after a crash with the same id."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from mountd.errors import MountdError
from mountd.journal import journal as journal_module
from mountd.journal.journal import Journal
from mountd.notify import target as target_module
from mountd.notify import webhook
from mountd.notify.delivery import OutgoingMessage, Undelivered
from tests.support.notified import SOON_S, Notified, notified
from tests.support.receiver import Receiver, Says
from tests.support.tls import make_certificate
from tests.support.wait import until_async

SECRET = "a secret that only two know"


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Notified]:
    async with notified(tmp_path, monkeypatch) as found:
        yield found


async def test_each_event_arrives_once_in_order_signed_and_as_a_cloud_event(
    world: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    with Receiver() as receiver:
        await world.begin_loaded(webhook=f"{receiver.url}/hook?x=1", secret={"env": "HOOK_SECRET"})
        await world.happens("switch-refused", "switch-committed", "not-ready", "ready")
        got = await world.posted(receiver, 4)
        await world.until_status(messages=4, pending=0, last_error=None, failing=False)
    assert receiver.types == ["mountd.switch-refused", "mountd.switch-committed", "mountd.not-ready", "mountd.ready"]
    assert len(set(receiver.ids)) == 4
    for each in got:
        found = from_http_event(HTTPMessage(dict(each.headers), each.body))
        assert found.get_id() == each.headers["webhook-id"]
        assert each.json["data"]["number"] == 7
        assert each.path == "/hook?x=1"
        signed = f"{each.headers['webhook-id']}.{each.headers['webhook-timestamp']}.".encode() + each.body
        wanted = b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
        assert each.headers["webhook-signature"] == f"v1,{wanted}"
        assert abs(time.time() - int(each.headers["webhook-timestamp"])) < 300
        assert SECRET.encode() not in each.body
    assert (await world.cursor()).cursor == await world.journal.last_event()


@pytest.mark.parametrize(
    "answer",
    [Says(500), Says(503), Says(429), Says(408), Says(425), Says(closes=True), Says(slow_s=30.0)],
    ids=["500", "503", "429", "408", "425", "closes", "slow"],
)
async def test_what_may_pass_is_tried_again_with_the_same_id(world: Notified, answer: Says) -> None:
    tries = 2 if answer.slow_s else 4  # more than what is refused gets
    with Receiver(*[answer] * tries) as receiver:
        await world.begin_loaded(webhook=receiver.url, timeout="2s" if answer.slow_s else "10s")
        await world.happens("not-ready", "switch-failed")
        await world.posted(receiver, tries + 2)
        status = await world.until_status(messages=2, failed=0, last_error=None)
    assert status.last_delivered is not None
    first, *others = receiver.ids
    assert others[:tries] == [first] * tries
    assert receiver.types == ["mountd.not-ready"] * (tries + 1) + ["mountd.switch-failed"]


@pytest.mark.parametrize("status", [400, 401, 404, 410, 301, 307])
async def test_what_is_refused_is_given_up_after_a_few_tries_and_reported(world: Notified, status: int) -> None:
    refusal = Says(status, {"Location": "http://127.0.0.1:1/elsewhere"})
    with Receiver(*[refusal] * 3) as receiver:
        await world.begin_loaded(webhook=receiver.url)
        await world.happens("not-ready", "switch-failed")
        await world.posted(receiver, 4)
        await world.until_status(messages=1, failed=1, failing=False)
    assert receiver.types == ["mountd.not-ready"] * 3 + ["mountd.switch-failed"], "and nothing went elsewhere"
    await world.until_event("notify-working")
    found = [each for each in await world.events() if each.code.startswith("notify-")]
    assert [(each.code, each.object) for each in found] == [("notify-failing", "ops"), ("notify-working", "ops")]
    assert str(status) in found[0].text


async def test_the_end_of_an_alarm_that_was_given_up_is_not_sent(world: Notified) -> None:
    with Receiver(*[Says(404)] * 3) as receiver:
        await world.begin_loaded(webhook=receiver.url, events=["not-ready", "switch-*"])
        await world.happens("not-ready", "ready", "switch-failed")
        await world.posted(receiver, 4)
    assert receiver.types[3:] == ["mountd.switch-failed"]


async def test_a_receiver_that_asks_to_be_left_alone_is(world: Notified) -> None:
    with Receiver(Says(503, {"Retry-After": "2"})) as receiver:
        await world.begin_loaded(webhook=receiver.url)
        await world.happens("not-ready")
        first, second = (await world.posted(receiver, 2))[:2]
    assert second.at - first.at >= 1.9


@pytest.mark.parametrize(("year", "asks"), [("99999999999999999999", False), ("99999", False), ("9999", True)])
async def test_a_time_that_no_clock_shows_asks_for_nothing(world: Notified, year: str, asks: bool) -> None:
    with Receiver(Says(503, {"Retry-After": f"Mon, 1 Jan {year} 12:00:00 GMT"})) as receiver:
        target = await world.begin_loaded(webhook=receiver.url)
        with pytest.raises(Undelivered) as caught:
            await target.test("a test")
    assert "it answers 503" in caught.value.text
    assert caught.value.retry_after_s == (webhook.LONGEST_RETRY_AFTER_S if asks else 0.0)


async def test_what_nobody_foresaw_of_an_answer_is_a_failed_try(
    world: Notified, capsys: pytest.CaptureFixture[str]
) -> None:
    class Odd:
        async def send(self, _: OutgoingMessage) -> None:
            raise OverflowError("http://SEEN/")

    target = await world.begin_loaded(webhook="http://127.0.0.1:9")
    target._sender = Odd()
    await world.happens("switch-committed")
    status = await world.until_status(failing=True)
    assert "OverflowError" in str(status.last_error)
    assert "SEEN" not in f"{status} {capsys.readouterr()}"
    with Receiver() as receiver:
        target.reconfigure(world.settings(webhook=receiver.url))
        await world.posted(receiver, 1)


async def test_while_nobody_listens_events_wait_and_then_all_arrive_in_order(world: Notified) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        await world.begin_loaded(webhook=url)
        await world.happens(*["switch-failed"] * 30)
        status = await world.until_status(failing=True, messages=0)
        assert "refuses connections" in str(status.last_error)
    with Receiver() as receiver:
        assert world.target is not None
        world.target.reconfigure(world.settings(webhook=receiver.url))  # as a reload does
        # `notify-failing` of the target itself stands in the journal, and is not sent to it.
        await world.posted(receiver, 30)
        await world.until_status(failing=False, messages=30)
    numbers = [int(id_.rpartition("-")[2]) for id_ in receiver.ids]
    assert numbers == sorted(numbers)
    assert set(receiver.types) == {"mountd.switch-failed"}


async def test_what_was_delivered_when_it_died_comes_again_with_the_same_id(
    world: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(Exception):
        pass

    async def die(_: object) -> None:
        raise Died

    with Receiver() as receiver:
        await world.begin_loaded(webhook=receiver.url)
        with monkeypatch.context() as patched:
            patched.setattr(world.journal, "keep_notify_cursor", die)
            await world.happens("switch-committed")
            with pytest.raises(Died):
                await world.died()
        assert len(receiver.got) == 1
        world.begin(webhook=receiver.url)
        await world.posted(receiver, 2)
        await world.until_status(messages=1)
        await world.happens("switch-refused")
        await world.posted(receiver, 3)
    assert receiver.ids[0] == receiver.ids[1] != receiver.ids[2]
    assert receiver.got[0].json == receiver.got[1].json


async def test_a_new_journal_repeats_no_id(world: Notified, tmp_path: Path) -> None:
    with Receiver() as receiver:
        await world.begin_loaded(webhook=receiver.url)
        await world.happens("switch-committed")
        await world.posted(receiver, 1)
        await world.end()
        await world.journal.close()
        (tmp_path / "mountd.db").unlink()
        world.journal = Journal(tmp_path / "mountd.db")
        await world.journal.open()
        await world.journal.event("mountd-started", "mountd", "the same number as before")
        await world.journal.event("journal-replaced", "mountd", "all of a new journal is news")
        world.begin(webhook=receiver.url)
        await world.posted(receiver, 3)
    assert len(set(receiver.ids)) == 3
    assert receiver.types[1:] == ["mountd.mountd-started", "mountd.journal-replaced"]
    assert {int(id_.rpartition("-")[2]) for id_ in receiver.ids} == {1, 2}


async def test_a_new_target_begins_with_what_comes_next(world: Notified) -> None:
    await world.happens(*["switch-failed"] * 5)
    with Receiver() as receiver:
        await world.begin_loaded(webhook=receiver.url)
        await world.end()
        await world.happens("switch-committed")  # while mountd does not run
        world.begin(webhook=receiver.url)
        await world.posted(receiver, 1)
        await world.until_status(messages=1, pending=0)
    assert receiver.types == ["mountd.switch-committed"]


async def test_what_left_the_journal_is_counted_and_reported_once(
    world: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "EVENTS_KEPT", 20)
    with Receiver() as receiver:
        await world.begin_loaded(webhook=receiver.url)
        await world.end()
        await world.happens(*["switch-failed"] * 50)
        world.begin(webhook=receiver.url)
        await world.until_status(dropped=30, pending=0)
        await world.posted(receiver, 19)
        dropped = [each for each in await world.events() if each.code == "notifications-dropped"]
        assert [(each.object, each.data) for each in dropped] == [("ops", '{"count": 30}')]
        await world.happens("ready")
        await until_async(lambda: receiver.types[-1] == "mountd.ready", SOON_S, "what came later")
    assert (await world.cursor()).dropped == 30


async def test_uploads_that_left_the_journal_between_other_events_are_counted(
    world: Notified, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "EVENTS_KEPT", 20)
    with Receiver() as receiver:
        given = {"webhook": receiver.url, "events": ["result-*", "app-failed"]}
        await world.begin_loaded(**given)
        await world.end()
        await world.happens("switch-failed")
        await world.happens(*["result-uploaded"] * 30, "app-failed")
        world.begin(**given)
        await world.posted(receiver, 21)
        await world.until_status(dropped=10, messages=21, pending=0)
    assert (await world.cursor()).messages == 21


async def test_a_page_of_events_that_nobody_wants_is_no_end(world: Notified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "PAGE", 5)
    with Receiver() as receiver:
        await world.begin_loaded(webhook=receiver.url, events=["app-failed"])
        await world.end()
        await world.happens(*["result-uploaded"] * 20, "app-failed")
        world.begin(webhook=receiver.url, events=["app-failed"])
        await world.posted(receiver, 1)


async def test_at_most_so_many_messages_and_the_last_one_counts_the_others(world: Notified) -> None:
    with Receiver() as receiver:
        await world.begin_loaded(webhook=receiver.url, at_most="3 in 1h")
        # Written before it can look: what it finds then is what waits.
        await world.end()
        await world.happens(*["switch-failed"] * 9, "app-failed")
        world.begin(webhook=receiver.url, at_most="3 in 1h")
        await world.posted(receiver, 3)
        await world.until_status(messages=3, pending=0)
        await world.happens("ready")
        await world.until_status(pending=1)
        assert len(receiver.got) == 3
    assert receiver.types[-1] == "mountd.app-failed"
    assert receiver.got[-1].json["data"]["held_back"] == {"count": 7, "codes": {"switch-failed": 7}}


async def test_an_alarm_that_passes_makes_no_message(world: Notified) -> None:
    with Receiver() as receiver:
        await world.begin_loaded(webhook=receiver.url, after="5s", events=["not-ready", "switch-*"])
        await world.happens("not-ready")
        await world.until_status(pending=1)
        await world.happens("ready", "switch-committed")
        await world.posted(receiver, 1)
        await world.happens("not-ready")
        await world.posted(receiver, 2)
        await world.happens("ready")
        await world.posted(receiver, 3)
    assert receiver.types == ["mountd.switch-committed", "mountd.not-ready", "mountd.ready"]


async def test_by_tls_with_the_authorities_of_this_machine_alone(
    world: Notified, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path, "hook")
    with Receiver(tls=(str(certificate), str(key))) as receiver:
        await world.begin_loaded(webhook=receiver.url)
        await world.happens("switch-committed")
        status = await world.until_status(failing=True)
        assert "TLS" in str(status.last_error)
        assert receiver.got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        await world.posted(receiver, 1)
        await world.until_status(failing=False)


async def test_by_the_proxy_of_the_environment(world: Notified, monkeypatch: pytest.MonkeyPatch) -> None:
    with Receiver() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        await world.begin_loaded(webhook="http://hooks.example.invalid/x")
        await world.happens("switch-committed")
        (request,) = await world.posted(proxy, 1)
        assert request.headers["Host"] == "hooks.example.invalid"
        await world.until_status(messages=1)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with Receiver() as receiver:
            assert world.target is not None
            world.target.reconfigure(world.settings(webhook=receiver.url))
            await world.happens("switch-refused")
            await world.posted(receiver, 1)
        assert len(proxy.got) == 1


async def test_the_address_may_be_a_secret_and_is_in_no_error(
    world: Notified, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "url"
    file.touch(0o600)
    with Receiver(otherwise=Says(500)) as receiver:
        file.write_text(f"{receiver.url}/SEEN/path?token=SEEN\n")
        target = await world.begin_loaded(webhook={"file": str(file)})
        await world.happens("switch-committed")
        status = await world.until_status(failing=True)
        assert receiver.got[0].path == "/SEEN/path?token=SEEN"
        assert "SEEN" not in f"{status} {await world.events()}"
        assert f"127.0.0.1:{receiver.port}" in str(status.last_error)
        for wrong in ("ftp://SEEN/x", "SEEN", "http://SEEN SEEN/", "http://[SEEN/", ""):
            file.write_text(wrong)
            with pytest.raises(MountdError) as caught:
                await target.test("a test")
            assert "SEEN" not in f"{caught.value.text} {caught.value.hint}"


async def test_a_test_message_is_tried_once_and_says_why_not(world: Notified) -> None:
    with Receiver(Says(500)) as receiver:
        target = await world.begin_loaded(webhook=receiver.url, events=["ready"])
        with pytest.raises(Undelivered) as caught:
            await target.test("tina sends a test")
        assert "500" in caught.value.text
        await target.test("tina sends a test")
        await target.test("tina sends a test")
    assert receiver.types == ["mountd.test"] * 3
    assert len(set(receiver.ids)) == 3
    assert receiver.got[1].json["data"]["text"] == "tina sends a test"
    assert world.status.messages == 0


async def test_a_try_that_never_ends_is_cancelled(world: Notified, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_module, "GRACE_S", 0.1)

    class Stuck:
        async def send(self, _: OutgoingMessage) -> None:
            await asyncio.sleep(3600)

    target = await world.begin_loaded(webhook="http://127.0.0.1:9", timeout="100ms")
    target._sender = Stuck()
    await world.happens("switch-committed")
    status = await world.until_status(failing=True)
    assert "no end" in str(status.last_error)
