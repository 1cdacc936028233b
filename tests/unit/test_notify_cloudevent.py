"""What a webhook sends is a CloudEvent, as the `cloudevents` package judges it, signed as Standard Webhooks says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cloudevents.core.v1.event import CloudEvent as JudgedEvent

from mountd.codes import CODES
from mountd.i18n import translation
from mountd.journal.records import EventRecord
from mountd.notify import signature, texts
from mountd.notify.cloudevent import CONTENT_TYPE, cloud_event, event_id, source_of
from mountd.notify.delivery import Advice, OutgoingMessage
from mountd.notify.rules import Notification
from mountd.notify.signature import BadSigningSecret
from mountd.text import dumps

DATA = {"bucket": "outputs", "key": "a/b.wav", "size": 12, "digest": "sha256:1", "time": "2026-01-02T03:04:05Z"}
EVENT = EventRecord(42, "2026-01-02T03:04:05.678Z", "switch-committed", "hub", "hub is at v2 · 完成", json.dumps(DATA))
SOURCE = source_of("gpu-1", "3f2a")
PAGE = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()


def judged(body: bytes) -> JudgedEvent:
    """Raises when it is no CloudEvent."""
    found = from_http_event(HTTPMessage({"Content-Type": CONTENT_TYPE}, body))
    assert isinstance(found, JudgedEvent)
    return found


def sent(notification: Notification, id_: str = "j-42") -> bytes:
    return dumps(cloud_event(notification, id_=id_, source=SOURCE)).encode()


def test_an_event_is_a_cloud_event() -> None:
    found = judged(sent(Notification((EVENT,))))
    assert (found.get_id(), found.get_source(), found.get_type()) == ("j-42", SOURCE, "mountd.switch-committed")
    assert (found.get_subject(), found.get_specversion()) == ("hub", "1.0")
    assert found.get_time() == datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)
    assert found.get_datacontenttype() == "application/json"
    assert found.get_data() == {**DATA, "text": "hub is at v2 · 完成", "object": "hub"}


def test_one_without_an_object_has_no_subject() -> None:
    assert judged(sent(Notification((EventRecord(1, EVENT.time, "ready", "", "all is"),)))).get_subject() is None


@pytest.mark.parametrize("data", ["", "[1]", "{", '{"text": "forged", "object": "forged"}'])
def test_what_an_event_says_itself_never_hides_its_text(data: str) -> None:
    found = judged(sent(Notification((EventRecord(1, EVENT.time, "ready", "hub", "all is", data),)))).get_data()
    assert found == {"text": "all is", "object": "hub"}


def test_what_was_held_back_is_counted() -> None:
    found = judged(sent(Notification((EVENT,), {"app-backoff": 11, "not-ready": 1}))).get_data()
    assert isinstance(found, dict)
    assert found["held_back"] == {"count": 12, "codes": {"app-backoff": 11, "not-ready": 1}}


@pytest.mark.parametrize("host", ["gpu-1", "机器", "a b/c?d#e"])
def test_each_host_makes_a_valid_source(host: str) -> None:
    assert re.fullmatch(r"mountd://[A-Za-z0-9.%_~-]+/3f2a", source_of(host, "3f2a"))


def test_the_id_is_of_the_event_and_its_journal() -> None:
    assert event_id("aa", EVENT) == event_id("aa", EVENT) == "aa-20260102030405678-42"
    assert event_id("bb", EVENT) != event_id("aa", EVENT)
    assert event_id("aa", replace(EVENT, time="2026-01-02T03:04:05.679Z")) != event_id("aa", EVENT), "of a backup"


def test_every_code_makes_a_valid_event() -> None:
    for code in CODES:
        found = judged(sent(Notification((EventRecord(1, EVENT.time, code, "x", "y"),))))
        assert found.get_type() == f"mountd.{code}"


# -- the signature ----------------------------------------------------------------------------------------------------


def test_the_signature_is_that_of_the_standard() -> None:
    """By its own example: https://github.com/standard-webhooks/standard-webhooks, its reference tests."""
    secret, body = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", b'{"test": 2432232314}'
    headers = signature.signed(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_another_secret_is_taken_as_it_is() -> None:
    content = b"id.7.body"
    wanted = base64.b64encode(hmac.new("sécret".encode(), content, hashlib.sha256).digest()).decode()
    assert signature.signed("sécret", "id", 7, b"body")["webhook-signature"] == f"v1,{wanted}"
    assert "webhook-signature" not in signature.signed(None, "id", 7, b"body")


def test_a_secret_that_is_no_base64_is_not_repeated() -> None:
    with pytest.raises(BadSigningSecret) as caught:
        signature.signed("whsec_SEEN!", "id", 7, b"")
    assert "SEEN" not in str(caught.value)


def test_the_lines_of_the_page_check_it(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    is_from_mountd = names["is_from_mountd"]
    assert callable(is_from_mountd)
    now = int(datetime.now(UTC).timestamp())
    headers, body = signature.signed("a secret", "id", now, b"body"), b"body"
    assert is_from_mountd(headers, body, "a secret")
    assert not is_from_mountd(headers, body, "another")
    assert not is_from_mountd(headers, b"forged", "a secret")
    assert not is_from_mountd(signature.signed("a secret", "id", now - 1000, body), body, "a secret")


# -- for people -------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    return text


def message(*events: EventRecord, left_out: dict[str, int] | None = None) -> OutgoingMessage:
    advice = Advice("the bucket is away", "look at it", "mountd doctor")
    return OutgoingMessage("j-1", SOURCE, Notification(events, left_out or {}), advice)


ALARM = EventRecord(1, "2026-01-02T03:04:05.678Z", "app-failed", "webui", "webui is failed: exit code 1")
END = EventRecord(2, "2026-01-02T03:05:05.678Z", "app-running", "webui", "webui is running")


def test_an_alarm_says_where_what_why_and_what_next() -> None:
    title, body = texts.title(message(ALARM), "gpu-1", plain), texts.body(message(ALARM), "gpu-1", plain)
    assert title == f"gpu-1: {CODES['app-failed'].meaning}"
    for words in ("webui is failed: exit code 1", "2026-01-02 03:04:05 UTC", "the bucket is away", "mountd doctor"):
        assert words in body
    assert texts.tone(message(ALARM).notification) == "failure"


def test_what_is_over_has_no_cause_any_more() -> None:
    body = texts.body(message(ALARM, END), "gpu-1", plain)
    assert "the bucket is away" not in body
    assert texts.tone(message(ALARM, END).notification) == "success"
    assert texts.tone(message(EVENT).notification) == "info"


def test_what_is_left_out_is_counted() -> None:
    found = message(ALARM, END, left_out={"app-backoff": 12})
    assert "14" in texts.title(found, "gpu-1", plain)
    assert "12 × app-backoff" in texts.body(found, "gpu-1", plain)


def test_a_message_has_bounds_and_no_control_characters() -> None:
    long = EventRecord(1, EVENT.time, "app-failed", "webui", "x\x1b[31m\u202e\n" * 10_000)
    found = message(*[long] * 20)
    for text in (texts.title(found, "gpu-1", plain), texts.body(found, "gpu-1", plain)):
        assert len(text) <= texts.LONGEST_BODY
        assert not set(text) & {"\x1b", "\u202e"}


def test_chinese_readers_read_what_it_means_first() -> None:
    chinese = translation("zh_CN").text
    found = message(ALARM, END, left_out={"app-backoff": 12})
    title, body = texts.title(found, "gpu-1", chinese), texts.body(found, "gpu-1", chinese)
    assert (title, "应用失败" in body, "exit code 1" in body) == ("gpu-1：mountd 的 14 条事件", True, True)
    assert all(chinese(each.meaning) != each.meaning for each in CODES.values())
