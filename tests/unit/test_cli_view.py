"""Tables on terminals that are too narrow: what is shown, and that words stay whole; the wording of tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from mountd.api.documents import operations
from mountd.cli import view, view_plan, view_status
from mountd.cli.remote import VERSION_HEADINGS, VERSION_OPTIONAL
from mountd.operation.plan import AffectedApp, SwitchPlan

HEADINGS = ("ID", "WHEN", "BY", "WHY")
WIDTHS = [[2, 20, 8, 90], [1, 20, 12, 5]]


@pytest.mark.parametrize(
    ("width", "optional", "shown"),
    [
        (4096, ("BY", "WHEN"), [0, 1, 2, 3]),
        (2 + 20 + 12 + 24 + 6, ("BY", "WHEN"), [0, 1, 2, 3]),
        (2 + 20 + 12 + 24 + 5, ("BY", "WHEN"), [0, 1, 3]),
        (40, ("BY", "WHEN"), [0, 3]),
        (10, ("BY", "WHEN"), [0, 3]),  # no more can go
        (10, (), [0, 1, 2, 3]),
        (42, ("WHEN", "BY"), [0, 2, 3]),
    ],
)
def test_what_fits(width: int, optional: Sequence[str], shown: list[int]) -> None:
    assert view.fitting(HEADINGS, WIDTHS, optional, width) == shown


def test_a_short_last_column_counts_as_what_it_is() -> None:
    assert view.fitting(("A", "B"), [[5, 3]], ("A",), 10) == [0, 1]
    assert view.fitting(("A", "B"), [[5, 4]], ("A",), 10) == [1]


def test_only_the_last_column_is_wrapped() -> None:
    why = "cannot switch to v22: webui ended with exit code 1"
    rows = [("12", "2026-11-21T10:45:45Z", "somebody", why), ("7", "2026-11-20T08:00:00Z", "root", Text("one\ntwo"))]
    on = Console(width=56, force_terminal=False)
    with on.capture() as captured:
        on.print(view.table(HEADINGS, rows, right=("ID",), optional=("BY",), width=56))
    lines = captured.get().splitlines()
    assert lines[0].split() == ["ID", "WHEN", "WHY"]
    assert lines[1].startswith("12  2026-11-21T10:45:45Z  cannot switch to v22:")
    assert " ".join(line[26:].strip() for line in lines[1:-2]) == why
    assert [line[26:].strip() for line in lines[-2:]] == ["one", "two"]
    assert max(map(len, lines)) <= 56


@pytest.mark.parametrize(
    ("word", "colour"),
    [("ok", "32"), ("Degraded", "33"), ("fail", "31"), ("Missing", "31"), ("Progressing", "36"), ("Suspended", "34")],
)
def test_words_have_their_colour_on_a_terminal_alone(word: str, colour: str) -> None:
    for is_terminal in (True, False):
        on = Console(width=40, force_terminal=is_terminal, color_system="standard" if is_terminal else None)
        with on.capture() as captured:
            on.print(view.text(word))
            on.print(view.text(f"{word} or not"))
        coloured, plain = captured.get().splitlines()
        assert coloured == (f"\x1b[{colour}m{word}\x1b[0m" if is_terminal else word)
        assert plain == f"{word} or not", "only the word by itself is one"


def test_numbers_are_aligned_right() -> None:
    on = Console(width=40, force_terminal=False)
    with on.capture() as captured:
        on.print(view.table(("N", "SIZE", "NAME"), [(1, 10, "a"), (1000, 9, "b")], right=("N", "SIZE")))
    assert [line.rstrip() for line in captured.get().splitlines()] == [
        "   N  SIZE  NAME",
        "   1    10  a",
        "1000     9  b",
    ]


@pytest.mark.parametrize("wrong", [0, 90])
def test_versions_show_their_digest_on_80_columns(wrong: int) -> None:
    rows = [[len("v2026.11.21-a"), 8, 3, 3, 9, 5, 5, 12, wrong], [3, 7, 3, 3, 9, 5, 0, 12, 0]]
    assert "DIGEST" in [VERSION_HEADINGS[at] for at in view.fitting(VERSION_HEADINGS, rows, VERSION_OPTIONAL, 80)]


def test_the_status_shows_the_digest_of_what_is_live() -> None:
    model = {
        "current": "v23",
        "link": "/srv/index-tts/cache_hub",
        "stage": "linked",
        "digest": 64 * "a",
        "sync": "Synced",
    }
    on = Console(width=80, force_terminal=False)
    with on.capture() as captured:
        on.print(view_status.render({"models": {"cache_hub": model}}))
    assert "digest aaaaaaaaaaaa" in captured.get()
    assert 13 * "a" not in captured.get()


@pytest.mark.parametrize(
    ("load", "shown"),
    [
        (None, "starting, hub v23"),
        ({}, "starting, loading 40 % of 9.0 GiB, 4 of 10 files, 120 MB/s, hub v23"),
        ({"bytes_per_s": 0}, "starting, loading 40 % of 9.0 GiB, 4 of 10 files, hub v23"),
        ({"percent": None, "files_total": None}, "starting, loading, 3.6 GiB in 4 files read, 120 MB/s, hub v23"),
    ],
)
def test_the_status_shows_how_far_the_load_of_an_app_is(load: dict[str, object] | None, shown: str) -> None:
    whole = {
        "percent": 40,
        "files_done": 4,
        "files_total": 10,
        "bytes_done": 3.6 * 1024**3,
        "bytes_total": 9 * 1024**3,
        "bytes_per_s": 120e6,
    }
    app = {"state": "starting", "versions": {"hub": "v23"}, "load": None if load is None else whole | load}
    assert [state for *_, state in view_status.lines({"apps": {"webui": app}})] == [shown]


@pytest.mark.parametrize(
    ("outbox", "shown"),
    [
        ({"pending": 0, "uploaded": 0}, "nothing waits, 0 uploaded"),
        (
            {"pending": 3, "pending_bytes": 12 << 20, "oldest_s": 303.0, "failed": 1, "uploaded": 40}
            | {"last": {"key": "outputs/a.wav", "time": "2026-01-01T00:00:00Z"}},
            "3 files wait, 12.0 MiB, the oldest for 5 m 3 s, 1 failed, 40 uploaded, last outputs/a.wav",
        ),
        ({"pending": 1, "pending_bytes": 0, "oldest_s": None, "last": None}, "1 file waits, 0 B, 0 uploaded"),
    ],
)
def test_the_status_shows_results_on_their_way(outbox: dict[str, object], shown: str) -> None:
    status = {"outbox": {"results": {"health": "Degraded", **outbox}}}
    assert [*view_status.lines(status)] == [("outbox", "results", "Degraded", shown)]


def test_the_status_shows_notifications_that_wait() -> None:
    failing = {
        "health": "Degraded",
        "pending": 2,
        "last_delivered": "2026-01-01T00:00:00Z",
        "last_error": "it answers 500",
    }
    status = {"notify": {"team": failing, "idle": {"pending": 1}, "well": {"health": "Healthy", "pending": 0}}}
    assert [*view_status.lines(status)] == [
        ("notify", "team", "Degraded", "2 events wait, last sent 2026-01-01T00:00:00Z, it answers 500"),
        ("notify", "idle", "Unknown", "1 event waits"),
        ("notify", "well", "Healthy", "nothing waits"),
    ]


PLAN = SwitchPlan(
    "switch", "hub", "v22", "v23", "/srv/hub", "/mnt/hub_v23", apps=(AffectedApp("webui", 30, 60),), watch_s=90
)


def planned(plan: SwitchPlan) -> list[str]:
    document: dict[str, Any] = json.loads(json.dumps(operations.switch_plan(plan)))
    return view_plan.lines(document)


def test_a_plan_in_chinese_leaves_out_nothing_that_the_daemon_adds_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quarantine, and that a switch by hand suspends the automatic sync, hold for some plans only."""
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    monkeypatch.delenv("LANGUAGE", raising=False)
    usual, forced, by_hand = (
        planned(each) for each in (PLAN, replace(PLAN, force=True), replace(PLAN, override="ada"))
    )
    assert len(usual) == len(forced) == len(by_hand) == 11
    assert [at for at in range(11) if usual[at] != forced[at]] == [1]
    assert [at for at in range(11) if usual[at] != by_hand[at]] == [9]

    assert "`mountd resume`" in by_hand[9]
    assert " 2 " in planned(replace(PLAN, crashes=2))[8]


def test_the_level_that_is_loaded_is_in_the_language_of_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    loading = {
        "version": "v23", "level": "data", "percent": 40, "bytes_total": 9 << 30, "bytes_per_s": None, "eta_s": None,
    }  # fmt: skip
    monkeypatch.delenv("LANGUAGE", raising=False)
    monkeypatch.setenv("LC_ALL", "C")
    assert "(data)" in view_status.loading_line(loading)
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "data" not in view_status.loading_line(loading)
