"""A line of rclone's log becomes an event; what is no such line is not lost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.rclone.log import (
    CUT,
    MASK,
    MAX_DUMP_BYTES,
    MAX_JSON_CHARACTERS,
    MAX_TEXT_BYTES,
    DumpCapture,
    LogEvent,
    _patterns,
    mask,
    parse,
)

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
        ("2026/11/21 01:32:41 DEBUG : x: read", LogEvent("debug", "x: read")),
        ("2026/11/21 01:32:42.123456 NOTICE: x: read", LogEvent("info", "x: read")),
        ("2026/11/21 01:32:43 WARNING: x: read", LogEvent("warning", "x: read")),
        ('{"level":"fatal","msg":"x"}', LogEvent("error", "x")),
        ('{"level":"alert","msg":"x"}', LogEvent("error", "x")),
        ('{"level":"WARN","msg":"x"}', LogEvent("warning", "x")),
        ('{"level":"trace","msg":"x","n":7,"list":[1]}', LogEvent("debug", "x", {"n": "7"})),
        ('{"level":"of another rclone","msg":"x"}', LogEvent("info", "x")),
        ('{"msg":"x"}', LogEvent("info", "x")),
        ("fatal error: all goroutines are asleep", LogEvent("error", "fatal error: all goroutines are asleep")),
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


def test_which_parts_of_a_secret_are_hidden() -> None:
    key = "-----BEGIN-----\nshort\nlong-enough-line\n"
    assert mask("a long-enough-line and a short one", [key]) == f"a {MASK} and a short one", "a word is no secret"
    assert mask(key, [key]) == MASK
    assert mask(json.dumps("ключ-секрет"), ["ключ-секрет"]) == f'"{MASK}"', "as JSON writes it"
    assert mask(json.dumps('ü"x', ensure_ascii=False), ['ü"x']) == f'"{MASK}"'
    assert mask("a b", [""]) == "a b"


def test_what_is_too_large_for_a_record_is_only_text() -> None:
    long = json.dumps({"level": "error", "msg": "x" * MAX_JSON_CHARACTERS})
    assert parse(long).level == "info"
    assert parse(long).text.endswith(CUT)


def test_what_is_hidden_is_worked_out_once_for_many_lines() -> None:
    before = _patterns.cache_info().misses
    secrets = tuple(f"a/secret+number={number:03}" for number in range(200))
    for number in range(100):
        assert parse(f"line {number}: a%2Fsecret%2Bnumber%3D{number:03}", secrets).text == f"line {number}: {MASK}"
    assert mask(f"{secrets[7]}!", [*secrets]) == f"{MASK}!"
    assert _patterns.cache_info().misses == before + 1


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


# -- what the Go runtime prints ---------------------------------------------------------------------------------------

STACK = [
    "PC=0x498941 m=0 sigcode=0",
    "",
    "goroutine 1 gp=0x2e3bf82621e0 m=nil [chan receive, 2 minutes]:",
    "runtime.gopark(0x2e3bf8683a28?, 0x4164a5?, 0x65?, 0xbe?, 0x8?)",
    "\truntime/proc.go:462 +0xce fp=0x2e3bf8683a00 sp=0x2e3bf86839e0 pc=0x45b52e",
    "created by github.com/rclone/rclone/cmd/mount.mount in goroutine 1",
    "rax    0xca",
]


def taken(capture: DumpCapture, *lines: str) -> list[bool]:
    return [capture.feed(line) for line in lines]


@pytest.mark.parametrize(
    "head",
    [
        "SIGQUIT: quit",
        "SIGABRT: abort",
        "goroutine 11 [syscall]:",
        "goroutine 0 gp=0x55bf120 m=0 mp=0x55c11e0 [idle]:",
        "\tbazil.org/fuse@v0.0.0-20230120002735-62a210ff1fd5/fs/serve.go:511 +0x3fd fp=0x2 sp=0x2e pc=0x26429",
        "\truntime/asm_amd64.s:1771 +0x1 fp=0x2e3bf8a0dfe8",
    ],
)
def test_a_dump_is_taken_from_its_head_on(head: str) -> None:
    capture = DumpCapture()
    assert taken(capture, "before", NEW, head, *STACK, NEW, "2026/11/21 01:31:00 INFO  : Exiting...") == [
        *(False, False, True),
        *[True] * len(STACK),
        *(False, False),
    ]
    assert capture.text == "\n".join([head, *STACK, ""])
    assert capture.cause == (head if head.startswith("SIG") else "")


@pytest.mark.parametrize("cause", ["panic: runtime error: index out of range", "fatal error: concurrent map writes"])
def test_what_it_died_of_is_for_the_log_too(cause: str) -> None:
    capture = DumpCapture()
    assert taken(capture, cause, *STACK) == [False, *[True] * len(STACK)]
    assert capture.text.startswith(f"{cause}\n")
    assert capture.cause == cause
    assert parse(cause).level == "error"


def test_what_is_no_dump_is_left_alone() -> None:
    capture = DumpCapture()
    lines = ["Fatal error: unknown flag: --x", "Usage:", "  rclone mount [flags]", "goroutines are fine", NEW, OLD, ""]
    assert not any(taken(capture, *lines))
    assert capture.text == ""


def test_an_expected_dump_needs_no_head() -> None:
    capture = DumpCapture(expected=True)
    assert taken(capture, NEW, "… 600 lines left out: too many at once", *STACK) == [False, *[True] * (1 + len(STACK))]


def test_a_dump_is_bounded_by_whole_lines() -> None:
    capture = DumpCapture()
    capture.feed("SIGQUIT: quit")
    assert all(capture.feed("声" * 1000) for _ in range(1000))
    assert MAX_DUMP_BYTES - 4000 < len(capture.text.encode()) <= MAX_DUMP_BYTES
    assert capture.text.endswith("声\n")
    assert capture.feed("short"), "still no line for the log"
    assert "short" not in capture.text


@given(st.lists(st.text(max_size=40), max_size=50), st.booleans(), st.integers(0, 200))
def test_a_dump_never_raises_nor_grows(lines: list[str], expected: bool, limit: int) -> None:
    capture = DumpCapture(expected=expected, limit_bytes=limit)
    for line in lines:
        capture.feed(line)
    assert len(capture.text.encode("utf-8", "replace")) <= limit
