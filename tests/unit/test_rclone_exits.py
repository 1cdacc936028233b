"""How rclone ended, in words that tell the ways apart."""

from __future__ import annotations

import pytest

from mountd.rclone.exits import explain


@pytest.mark.parametrize(
    ("code", "said", "found", "text", "hint", "permanent"),
    [
        (0, "x", "rclone-exited", "rclone ended by itself, without an error (…)", "unmounts it", False),
        (1, "no bucket", "rclone-exited", "rclone ended with …: no bucket", "config render", False),
        (1, "", "rclone-exited", "rclone ended with …", "mountd logs hub", False),
        (1, "Fatal error: unknown flag: --x", "rclone-usage", "rclone refuses its command line (…): ", "reload", True),
        (2, "Fatal error: bad", "rclone-usage", "(…): Fatal error: bad", "mountd restart hub", True),
        (127, "rclone: error while loading shared libraries: libc", "rclone-cannot-start", "libraries", "anew", False),
        (127, "", "rclone-cannot-start", "cannot start rclone", "library", False),
        (143, "x", "rclone-exited", "rclone was told to end by somebody else (SIGTERM, …)", "mountd logs hub", False),
        (-9, "x", "rclone-killed", "rclone was killed (…)", "memory ran out", False),
        (-11, "x", "rclone-killed", "rclone crashed or was killed (…)", "mountd logs hub", False),
    ],
)
def test_exits(code: int, said: str, found: str, text: str, hint: str, permanent: bool) -> None:
    explained = explain(code, "…", said, "hub")
    assert (explained.code, explained.permanent) == (found, permanent)
    assert text in explained.text
    assert hint in explained.hint


def test_one_that_never_ran() -> None:
    explained = explain(127, "…", "of a former life", "hub", not_started="cannot execute /x/rclone: permission denied")
    assert explained.code == "rclone-cannot-start"
    assert explained.text == "cannot start rclone: cannot execute /x/rclone: permission denied"
    assert "install it" in explained.hint
