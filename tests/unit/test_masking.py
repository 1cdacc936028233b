"""No secret of a command or an environment is shown, and all the rest is shown as it is written."""

from __future__ import annotations

import shlex
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.settings import masking
from mountd.settings.masking import HIDDEN


@pytest.mark.parametrize(
    "words",
    [
        ["app", "-token", "SEEN"],
        ["app", "--skip-token-check", "--password", "SEEN"],
        ["app", "--gradio-auth", "me:SEEN"],
        ["app", "--basic-auth=me:SEEN"],
        ["curl", "--user", "me:SEEN", "http://h"],
        ["curl", "-uroot:SEEN", "http://h"],
        ["curl", "-U", "me:SEEN", "http://h"],
        ["curl", "http://me:SE/SEEN@h"],
        ["curl", "http://me:x@SEEN@h"],
        ["curl", "http://me@corp.example:SEEN@h"],
        ["curl", "http://SEENSEENSEENSEENSEENSEEN@h"],
        ["curl", "http://SEENSEENSEENSEENSEENSEEN:x@h"],
        ["curl", "http://h/?a=b#token=SEEN"],
        ["curl", "-d", '{"password": "SE\\"SEEN", "n": 1}'],
        ["curl", "-d", '{"token":SEEN}'],
        ["echo", 'Cookie: a="SEEN"; b="SEEN"'],
        ["rclone", "ls", "s,bearer_token=SEEN:b"],
        ["x", "Server=h;AccountKey=SEEN;Password=SEEN"],
        ["x;TOKEN=SEEN;y"],
        ["x", "TOKEN=''SEEN"],
        ["x", """TOKEN='a'"b"SEEN"""],
        ["curl", "-d", "{'token':''SEEN}"],
        ["sh", "-c", "app --token SEEN"],
        ["sh", "-c", "cd /x && exec app -token 'SEEN SEEN' --port 1"],
        ["sh", "-c", "bash -c 'app --token \"SEEN\"'"],
        ["sh", "-c", 'bash -c "sh -c \\"app --token SEEN\\""'],
        ["sh", "-c", "(TOKEN=SEEN app)"],
        ["sh", "-c", "app --token 'SEEN"],
        ["sh", "-c", "curl -uroot:SEEN http://h"],
        ["sh", "-c", 'curl -d \'{"api_key": "SEEN"}\' http://h'],
        ["sh", "-c", 'curl -d "{\\"api_key\\": \\"SEEN\\"}" http://h'],
        ["env", "ARGS=--listen --api-auth me:SEEN", "app"],
        ["app", "--extra=--token=SEEN"],
    ],
    ids=" ".join,
)
def test_no_secret_of_a_command_is_shown(words: list[str]) -> None:
    assert "SEEN" not in "\n".join(masking.command(words))
    assert "SEEN" not in masking.variable("COMMANDLINE_ARGS", shlex.join(words))


@pytest.mark.parametrize(
    "words",
    [
        ["python", "web.py", "--port", "7860", "-v", "--model", "/m/a b"],
        ["sh", "-c", "cd '/m/a b' && exec  app --port 7860 | tee \"$LOG\"; echo it's done"],
        ["curl", "-fsS", "http://me@h:80/x", "https://h/a:b"],
        ["docker", "run", "--mount", "type=bind,source=/a,target=/b", "-p", "80:80"],
    ],
    ids=" ".join,
)
def test_what_is_no_secret_is_shown_as_it_is_written(words: list[str]) -> None:
    assert masking.command(words) == words


@pytest.mark.parametrize("value", ["abc", "Bearer abc", ""])
def test_a_header_without_a_name_is_hidden_as_a_whole(value: str) -> None:
    assert masking.command(["curl", "-H", value, "https://h/a"]) == ["curl", "-H", HIDDEN, "https://h/a"]


def test_the_rest_of_a_command_is_shown() -> None:
    script = "cd '/m/a b'; app --token 'a b' --port 1 -H \"X-Key: a\" -uroot:pw"
    assert masking.command(["sh", "-c", script])[2] == (
        f"cd '/m/a b'; app --token '{HIDDEN}' --port 1 -H \"X-Key: {HIDDEN}\" -u{HIDDEN}"
    )


@pytest.mark.parametrize(
    "value",
    ["://a:", "a-", "'", '"', "\\'", '"token":"a",', "token: a\n", "A=-", "-a=", "token=", "(", "sh -c '"],
)
def test_masking_takes_no_time_whatever_it_is_given(value: str) -> None:
    """A file may be 1 MiB; what grows with the square of its size takes minutes for a tenth of that."""
    began = time.process_time()
    masking.command([value * 10_000])
    masking.variable("ARGS", value * 10_000)
    assert time.process_time() - began < 4


pieces = st.sampled_from([*"a u-=:@/?#'\"\\\n;({,", "token", "://", "-u"])


@given(st.lists(st.lists(pieces).map("".join)))
def test_masking_takes_every_command(words: list[str]) -> None:
    assert len(masking.command(words)) == len(words)
    for word in words:
        masking.variable("A", word)
