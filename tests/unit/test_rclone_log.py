from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.rclone.log import MASK, MAX_TEXT_BYTES, LogEvent, mask, parse

NEW = (
    '{"time":"2026-11-21T01:26:18.251049755Z","level":"info","msg":"poll-interval is not supported by this remote",'
    '"object":"S3 bucket bkt","objectType":"*s3.Fs","source":"vfs/vfs.go:258"}'
)
OLD = (
    '{"level":"warning","msg":"Serving remote control on http://127.0.0.1:5599/","source":"rcserver/rcserver.go:141",'
    '"time":"2026-11-21T01:26:16.640633+00:00"}'
)


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            NEW,
            LogEvent(
                "info",
                "poll-interval is not supported by this remote",
                {"object": "S3 bucket bkt", "objectType": "*s3.Fs", "source": "vfs/vfs.go:258"},
            ),
        ),
        (
            OLD,
            LogEvent(
                "warning", "Serving remote control on http://127.0.0.1:5599/", {"source": "rcserver/rcserver.go:141"}
            ),
        ),
        ('{"level":"critical","msg":"Failed"}', LogEvent("error", "Failed")),
        ('{"level":"emergency","msg":"x"}', LogEvent("error", "x")),
        ('{"level":"notice","msg":"x"}', LogEvent("info", "x")),
        ('{"level":"error","msg":"a failed\\ncaused by: b"}', LogEvent("error", "a failed caused by: b")),
        (
            "2026/11/21 01:30:35 ERROR : /tmp/m: Unmounted rclone mount",
            LogEvent("error", "/tmp/m: Unmounted rclone mount"),
        ),
        ("2026/11/21 01:31:00 INFO  : Exiting...", LogEvent("info", "Exiting...")),
        (
            "2026/11/21 01:31:40 Fatal error: unknown flag: --x",
            LogEvent("error", "Fatal error: unknown flag: --x"),
        ),
        (
            "2026/11/21 01:32:50 NOTICE: Fatal error: unknown flag: --x",
            LogEvent("error", "Fatal error: unknown flag: --x"),
        ),
        (
            '2026/11/21 01:19:08 Failed to create file system for "a:": gone',
            LogEvent("error", 'Failed to create file system for "a:": gone'),
        ),
        (
            "2026/11/21 01:32:40 CRITICAL: Can't set -v and --log-level",
            LogEvent("error", "Can't set -v and --log-level"),
        ),
        ("HTTP: something", LogEvent("info", "HTTP: something")),
        ("panic: runtime error", LogEvent("error", "panic: runtime error")),
        ("", LogEvent("info", "")),
        ("{not json", LogEvent("info", "{not json")),
        ("{}", LogEvent("info", "{}")),
        ("\x1b[31mred\x07", LogEvent("info", "?[31mred?")),
        (b"\xff\xfe", LogEvent("info", "\ufffd\ufffd")),
    ],
)
def test_lines_of_both_versions(line: str | bytes, event: LogEvent) -> None:
    assert parse(line) == event


@pytest.mark.parametrize("line", ["[" * 100_000, '{"msg":' + "[" * 100_000, '{"msg":' + "1" * 10_000 + "}"])
def test_hostile_json_is_only_text(line: str) -> None:
    assert len(parse(line).text.encode()) <= MAX_TEXT_BYTES


def test_secrets_are_masked_in_every_form_before_the_cut() -> None:
    secret = 'a"b/c+d\\e'
    shown = parse(json.dumps({"level": "info", "msg": f"key {secret}", "object": secret}), [secret])
    assert shown == LogEvent("info", f"key {MASK}", {"object": MASK})
    assert secret not in parse(f"?key=a%22b%2Fc%2Bd%5Ce {json.dumps(secret)}", [secret]).text
    assert mask("one one-two", ["one", "one-two"]) == f"{MASK} {MASK}"
    assert "TAIL" not in mask("x SECRETLINE-TAIL y", ["-----BEGIN\nSECRETLINE-TAIL\n"])
    long = parse("x" * (MAX_TEXT_BYTES - 10) + secret * 3, [secret])
    assert 'a"b' not in long.text


@given(st.one_of(st.text(), st.binary()), st.lists(st.text(), max_size=3))
def test_never_raises(line: str | bytes, secrets: list[str]) -> None:
    event = parse(line, secrets)
    assert event.level in ("error", "warning", "info", "debug")
    assert len(event.text.encode()) <= MAX_TEXT_BYTES
    assert "\n" not in event.text


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(st.dictionaries(st.sampled_from(["msg", "level", "time", "object", "x"]), _json), st.text(min_size=1))
def test_never_raises_on_json(record: dict[str, object], secret: str) -> None:
    event = parse(json.dumps(record), [secret])
    assert all(isinstance(each, str) for pair in event.keys.items() for each in pair)


@given(st.text(min_size=9), st.text(alphabet="abcdef", min_size=9))
def test_no_secret_is_left(around: str, secret: str) -> None:
    assert secret not in parse(json.dumps({"msg": around + secret + around}), [secret]).text
