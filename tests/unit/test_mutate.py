"""What `./dev mutate` makes of what mutmut leaves: which faults count, and where they are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests import mutate

ORIGINAL = '''\
"""Waits."""


class Wait:
    def left_s(self, now: float) -> float:
        # Never less than nothing.
        return max(0.0, self.end - now)


def hint(code: str) -> str:
    return "wait a minute" if code == "busy" else ""
'''
MUTATED = '''\
"""Waits."""
from mutmut.mutation.trampoline import wrap_in_trampoline as _mutmut_mutated, MutantDict


class Wait:
    @_mutmut_mutated(mutants_xǁWaitǁleft_s__mutmut)
    def left_s(self, now: float) -> float:
        # Never less than nothing.
        return max(0.0, self.end - now)
    def xǁWaitǁleft_s__mutmut_orig(self, now: float) -> float:
        # Never less than nothing.
        return max(0.0, self.end - now)
    def xǁWaitǁleft_s__mutmut_1(self, now: float) -> float:
        # Never less than nothing.
        return max(0.0, self.end + now)


def x_hint__mutmut_orig(code: str) -> str:
    return "wait a minute" if code == "busy" else ""


def x_hint__mutmut_1(code: str) -> str:
    return "XXwait a minuteXX" if code == "busy" else ""


def x_hint__mutmut_2(code: str) -> str:
    return "wait a minute" if code == "BUSY" else ""
'''
LEFT, PROSE, BUSY = "m.xǁWaitǁleft_s__mutmut_1", "m.x_hint__mutmut_1", "m.x_hint__mutmut_2"


def found(codes: dict[str, int | None]) -> list[mutate.Fault]:
    return list(mutate.faults("mountd.waits", ORIGINAL, MUTATED, codes))


def test_where_a_fault_is() -> None:
    left, busy = found({LEFT: 0, BUSY: 1})
    assert (left.function, left.line) == ("Wait.left_s", 7)
    assert left.change == ("- return max(0.0, self.end - now)", "+ return max(0.0, self.end + now)")
    assert (busy.function, busy.line) == ("hint", 11)


@pytest.mark.parametrize(
    ("code", "counts", "noticed"),
    [
        (0, True, False),
        (1, True, True),
        (-24, True, True),
        (33, True, False),
        (2, False, False),
        (255, False, False),
        (None, False, False),
    ],
)
def test_what_counts(code: int | None, counts: bool, noticed: bool) -> None:
    (fault,) = found({BUSY: code})
    assert (fault.counts, fault.noticed) == (counts, noticed)


def test_a_changed_sentence_does_not_count() -> None:
    (fault,) = found({PROSE: 0})
    assert fault.is_prose
    assert not fault.counts


def test_the_score_is_of_what_counts_and_100_means_all() -> None:
    assert mutate.score(found({LEFT: 0, BUSY: 1, PROSE: 0})).split() == ["1", "of", "2", "50", "%"]
    many = found({LEFT: 0}) + 999 * found({BUSY: 1})
    assert mutate.score(many).split() == ["999", "of", "1000", "99", "%"]
    assert mutate.score([]).split() == ["0", "of", "0", "-"]


def test_survivors_are_listed_with_their_place() -> None:
    shown = mutate.report({"mountd.waits": found({LEFT: 33, BUSY: 1, PROSE: 0})})
    assert re.findall(r"^mountd/\S+", shown, re.MULTILINE) == ["mountd/waits.py:7"]
    assert "+ return max(0.0, self.end + now)" in shown


PURE = ("mountd.text", "mountd.process.lifecycle")


@pytest.mark.parametrize("word", ["process.lifecycle", "mountd.process.lifecycle", "mountd/process/lifecycle.py"])
def test_a_module_by_name_or_file(word: str) -> None:
    assert mutate.chosen([word], PURE) == ("mountd.process.lifecycle",)


def test_all_modules_for_no_word_and_none_that_is_not_pure() -> None:
    assert mutate.chosen([], PURE) == PURE
    with pytest.raises(ValueError, match=r"^process\.supervisor$"):
        mutate.chosen(["text", "process.supervisor"], PURE)


def test_the_pure_modules_are_those_of_the_contract() -> None:
    pure = mutate.pure_modules()
    assert "mountd.process.lifecycle" in pure
    assert all((mutate.TOP / mutate.source_of(module)).exists() for module in pure)


def test_a_sample_is_drawn_and_the_same_again(tmp_path: Path) -> None:
    copy = tmp_path / "mutants" / "mountd" / "clock.py"
    copy.parent.mkdir(parents=True)
    variants = {"orig": "return 1", "1": "return 2", "2": "return 3", "3": "return 4"}
    copy.write_text("".join(f"def x_now__mutmut_{name}():\n    {body}\n\n\n" for name, body in variants.items()))
    codes = {f"mountd.clock.x_now__mutmut_{name}": None for name in "123"}
    copy.with_name("clock.py.meta").write_text(json.dumps({"exit_code_by_key": codes}))
    some = mutate.drawn(tmp_path, ("mountd.clock",), 2, seed=1)
    assert len({*some} & codes.keys()) == 2
    assert mutate.drawn(tmp_path, ("mountd.clock",), 2, seed=1) == some
    assert sorted(mutate.drawn(tmp_path, ("mountd.clock",), 9, seed=1)) == [*codes]
