"""Chinese punctuation where YAML's own was meant: the wording that names it; where it is text, it is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.settings.load import Places, inspect_text

PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))
COLON = "'：' is a full-width colon: write ':' (全角标点)"
COMMA = "'，' is a full-width comma: write ',' (全角标点)"
GOOD = """\
remotes:
  compshare:
    type: s3
    endpoint: "http://x"   # 说明：你好，“世界”
  two: {type: s3, endpoint: "http://x"}
mounts:
  storage: {remote: "compshare:data", path: /mnt/x}
apps:
  webui:
    command: [echo, 你好，世界：“好”, "［一］"]
    environment: {REASON: "测试：一，二"}
"""


def problems(text: str) -> list[str]:
    return [str(problem) for problem in inspect_text(text, PLACES).problems]


def changed(*pairs: tuple[str, str]) -> str:
    text = GOOD
    for old, new in pairs:
        assert text.count(old) >= 1
        text = text.replace(old, new, 1)
    return text


def test_chinese_text_is_fine() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("compshare:", "compshare：", [f"line 2: {COLON}"]),
        ("endpoint:", "endpoint：", [f"line 4: {COLON}"]),
        ("two: {type: s3,", "two: {type: s3，", [f"line 5: {COMMA}"]),
        ('two: {type: s3, endpoint: "', 'two: {type: s3, endpoint： "', [f"line 5: {COLON}"]),
        (
            'endpoint: "http://x"',
            "endpoint: “http://x”",
            [f"line 4: '{each}' is a full-width quote: write '\"' (全角标点)" for each in "“”"],
        ),
        (
            '[echo, 你好，世界：“好”, "［一］"]',
            '［echo, 你好，世界：“好”, "［一］"］',
            [
                f"line 10: '{wrong}' is a full-width bracket: write '{right}' (全角标点)"
                for wrong, right in ("［[", "］]")
            ],
        ),
        ("command: [", "command： [", [f"line 10: {COLON}"]),
        ("path: /mnt/x", "path：/mnt/x", ["line 7: '：' is a full-width colon: write ': ' (全角标点)"]),
        ('REASON: "测试：一，二"', "REASON：测试", ["line 11: '：' is a full-width colon: write ': ' (全角标点)"]),
        ("[echo, 你好", "［echo, 你好", ["line 10: '［' is a full-width bracket: write '[' (全角标点)"]),
        ('{REASON: "测试：一，二"}', "{TITLE: 声音，LANG: zh}", [f"line 11: {COMMA}"]),
        ('"测试：一，二"}', "声音｝", ["line 11: '｝' is a full-width brace: write '}' (全角标点)"]),
        ('"测试：一，二"', '"声音”', ["line 11: '”' is a full-width quote: write '\"' (全角标点)"]),
        ('"compshare:data"', "compshare：data", [f"line 7: {COLON}"]),
        ("type: s3", "type:\u3000s3", ["line 3: U+3000 is a full-width space: write ' ' (全角标点)"]),
        ("    type: s3", "\u3000\u3000type: s3", ["line 3: U+3000 is a full-width space: write ' ' (全角标点)"]),
        # something else is wrong, and the Chinese text has no part in it
        ("path: /mnt/x", "path: mnt/x", ["line 7: mounts.storage.path: 'mnt/x' must be an absolute path"]),
        ("    environment:", "   environment:", None),
    ],
)
def test_one(old: str, new: str, expected: list[str] | None) -> None:
    found = problems(changed((old, new)))
    if expected is None:
        assert found
        assert not any("全角" in each for each in found)
    else:
        assert found == expected


def test_several_and_what_else_is_wrong() -> None:
    text = changed(("compshare:", "compshare："), ("mounts:", "mounts："), ("/mnt/x", "mnt/x"), ("apps:", "apps："))
    assert problems(text) == [
        f"line 2: {COLON}",
        f"line 6: {COLON}",
        "line 7: mounts.storage.path: 'mnt/x' must be an absolute path",
        f"line 8: {COLON}",
    ]


@pytest.mark.parametrize("lines", [3, 30, 300])
def test_only_so_much_is_tried(lines: int) -> None:
    """Each try is the reading of the whole."""
    text = GOOD + "".join(f"x{number}： {{}}{' ' * 300}\n" for number in range(lines))
    named = sum("全角" in each for each in problems(text))
    assert named == min(lines, named)
    assert (named == lines) is (lines == 3)


def test_a_valid_line_is_left_alone_whatever_else_is_wrong() -> None:
    title = ("environment: {", "environment: {TITLE: “IndexTTS” 演示, ")
    assert problems(changed(title)) == []
    assert problems(changed(title, ("compshare:", "compshare："))) == [f"line 2: {COLON}"]
    assert problems(changed(title, ("path: /mnt/x", "path：/mnt/x"))) == [
        "line 7: '：' is a full-width colon: write ': ' (全角标点)"
    ]


def test_what_does_not_help_is_not_named() -> None:
    text = changed(("/mnt/x", "mnt/x"), ("[echo, 你好", "[echo, GPU：0, a，b, 你好"))
    assert problems(text) == ["line 7: mounts.storage.path: 'mnt/x' must be an absolute path"]


@given(st.text(alphabet=st.sampled_from(list("ab: ,-[]{}\"'#\n：，“”‘’［］【】｛｝\u3000")), max_size=60))
def test_any_text_is_judged(text: str) -> None:
    problems(text)
    problems(GOOD + text)
