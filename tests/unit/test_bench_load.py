"""The load benchmark's judgement: marks, tables, plots, and that its page shows the figures that were measured."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bench.load import catalogue
from bench.load_figures import Mark, Result, Sample, case_table, figure, marks_table, summary
from bench.load_render import BEGIN, END, FIGURES, PAGE, RESULTS, block, plot, read, results, with_block

FASTER = Mark("times faster", "mountd", 4.0, over=("baseline", "plain"), least=True)
BESIDE = Mark("beside local disk", "mountd", 1.5, over=("local",))
WITHIN = Mark("until it is started", "mountd", 1.5)


def sample(who: str, seconds: float, number: int = 0, **figures: float) -> Sample:
    return Sample(who, number, {"seconds": seconds, **figures})


@pytest.mark.parametrize(
    ("mark", "samples", "value"),
    [
        (FASTER, [sample("mountd", 2.0), sample("baseline", 10.0), sample("plain", 8.0)], 4.0),
        (FASTER, [sample("mountd", 2.0), sample("baseline", 10.0)], 5.0),
        (BESIDE, [sample("mountd", 2.0), sample("local", 1.0)], 2.0),
        # Each round is compared with itself, then the median counts.
        (BESIDE, [sample("mountd", n, i) for i, n in enumerate((1.0, 4.0, 90.0))]
            + [sample("local", n, i) for i, n in enumerate((1.0, 2.0, 10.0))], 2.0),
        (BESIDE, [sample("mountd", 2.0, 0), sample("local", 1.0, 1)], None),
        (BESIDE, [], None),
        (WITHIN, [sample("mountd", 1.0), sample("mountd", 1.4, 1)], 1.4),
        (WITHIN, [sample("baseline", 1.0)], None),
        (replace(WITHIN, of="load_s"), [sample("mountd", 1.0)], None),
    ],
)  # fmt: skip
def test_a_mark(mark: Mark, samples: list[Sample], value: float | None) -> None:
    assert mark.value(samples) == value


@pytest.mark.parametrize(
    ("mark", "value", "reached"),
    [(FASTER, 4.0, True), (FASTER, 3.9, False), (BESIDE, 1.5, True), (BESIDE, 1.51, False)],
)
def test_a_mark_is_reached(mark: Mark, value: float, reached: bool) -> None:
    assert mark.reached(value) is reached


RESULT = Result(
    "boot",
    "cold boot <1:10>",
    "20 objects",
    (
        sample("mountd", 2.0, fetched_bytes=3e6),
        sample("mountd", 4.0, 1),
        sample("baseline", 50.0),
        Sample("plain", 0, broken="wrong bytes"),
    ),
    (replace(FASTER, over=("baseline",)), BESIDE, WITHIN),
    {"s3fs": "not installed"},
    "2026-01-01",
    0.5,
    0.1,
)


def test_what_was_missed_is_what_was_measured_and_not_reached() -> None:
    slow, broken = RESULT.missed
    assert slow.startswith(WITHIN.text)
    assert "4.00 s" in slow
    assert broken == "plain: wrong bytes"


def test_figures_survive_the_file() -> None:
    assert Result.from_json(RESULT.as_json()) == RESULT


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("seconds", 165.4, "165 s"),
        ("load_s", 15.04, "15.0 s"),
        ("object_s", 0.00123, "1.23 ms"),
        ("fetched_bytes", 891_900_000, "891.9 MB"),
        ("fetched_bytes", 900, "900 B"),
        ("cpu_share", 0.0041, "0.41%"),
        ("lists", 104.0, "104"),
    ],
)
def test_a_figure_by_its_unit(name: str, value: float, words: str) -> None:
    assert figure(name, value) == words


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_tables() -> None:
    _, _, mountd, baseline, plain, absent = map(cells, case_table(RESULT).splitlines())
    assert mountd == ["mountd", "2", "3.00 s (4.00 s)", "3.0 MB"]
    assert baseline == ["baseline", "1", "50.0 s", ""]
    assert (plain[:2], absent[:3]) == (["plain", "1"], ["s3fs", "0", "not installed"])
    reached = [cells(line)[1:] for line in marks_table([RESULT]).splitlines()[2:]]
    assert reached == [
        ["≥ 4.00 ×", "25.0 ×", "yes"],
        ["≤ 1.50 ×", "–", "not measured"],
        ["≤ 1.50 s", "4.00 s", "**no**"],
    ]
    assert "wrong bytes" in summary(RESULT)


def test_a_plot_has_a_bar_for_each_who_was_measured() -> None:
    picture = ElementTree.fromstring(plot(RESULT))
    bars = [each for each in picture if each.tag.endswith("rect") and each.get("x")]
    assert [float(str(bar.get("width"))) for bar in bars] == [pytest.approx(420 * 3 / 50, abs=0.1), 420.0]
    assert plot(replace(RESULT, samples=RESULT.samples[:2])) == "", "nobody to compare with"


def test_the_block_of_a_page() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    once = with_block(page, "new")
    assert once == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    assert with_block(once, "new") == once
    with pytest.raises(ValueError, match="in the page"):
        with_block("no marks", "new")


def test_the_page_shows_the_figures_that_were_measured() -> None:
    """After a run: ./dev bench render."""
    page = PAGE.read_text(encoding="utf-8")
    document = read(FIGURES)
    assert with_block(page, block(document)) == page
    for result in results(document):
        picture = plot(result)
        assert not picture or (RESULTS / f"{result.case}.svg").read_text(encoding="utf-8") == picture


@pytest.mark.parametrize("quick", [False, True])
def test_the_catalogue(quick: bool) -> None:
    cases = catalogue(quick=quick)
    assert len({case.title for case in cases.values()}) == len(cases)
    assert cases["loads"].rounds >= 11, "pairs are compared by their median"
