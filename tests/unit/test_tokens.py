"""The lines of tokens: who holds which, what cannot be used, and that comparing tells nothing by its time."""

from __future__ import annotations

import hmac

import pytest

from mountd.settings.tokens import BadTokens, Holder, parse

LONG = "0123456789abcdef"


def test_who_holds_which() -> None:
    lines = ["# a comment", f"reader  ann\t{LONG}A\r", "", *(f"  operator ci@x.y-z_1 {LONG}{end}" for end in "BC")]
    found = parse("\n".join(lines))
    assert found.is_configured
    assert found.holder(f"{LONG}A") == Holder("ann", "reader")
    assert found.holder(f"{LONG}B") == found.holder(f"{LONG}C") == Holder("ci@x.y-z_1", "operator")
    for wrong in ("", LONG, f"{LONG}a", f"{LONG}A ", f"{LONG}AA", "\udcff", "声" * 20):
        assert found.holder(wrong) is None


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 0),
        ("# nobody\n", 0),
        (f"reader ann {LONG}\nreader bob", 2),
        (f"admin ann {LONG}", 1),
        (f"Reader ann {LONG}", 1),
        (f"reader {LONG}", 1),
        (f"reader ann smith {LONG}", 1),
        (f"reader -ann {LONG}", 1),
        (f"reader {'a' * 65} {LONG}", 1),
        (f"reader ann {LONG[1:]}", 1),
        (f"reader ann {'a' * 513}", 1),
        (f"reader ann {LONG}é", 1),
        (f"\nreader ann {LONG}\noperator bob {LONG}", 3),
        ("\n".join(f"reader ann {LONG}{number}" for number in range(600)), 501),
    ],
)
def test_lines_that_cannot_be_used(text: str, line: int) -> None:
    with pytest.raises(BadTokens) as refused:
        parse(text)
    said = str(refused.value)
    assert ("line " in said) is bool(line)
    assert said.startswith(f"line {line}" if line else "it")
    assert LONG[1:] not in said


def test_tokens_are_kept_as_digests_and_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are, by digests of one length, wherever the right one stands."""
    found = parse("".join(f"reader ann {LONG}{number}\n" for number in range(5)))
    assert LONG not in repr(found)
    assert not any(LONG.encode() in known for known, _ in found.holders)
    compared: list[tuple[int, int]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare)
    for presented in (f"{LONG}0", f"{LONG}4", "x", "y" * 5000):
        compared.clear()
        found.holder(presented)
        assert compared == [(32, 32)] * 5
