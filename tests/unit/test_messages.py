"""The catalogue of translations is complete and up to date: what is wrong with it, `./dev messages` puts right."""

from __future__ import annotations

from pathlib import Path

import pytest
from babel.messages.catalog import Catalog

from tests import messages


def test_the_catalogue_is_complete_and_up_to_date() -> None:
    """Else: ./dev messages, fill in what has no translation, and ./dev messages."""
    assert messages.problems(messages.extracted()) == []


PAGE = """
const plain = t("plain"), quoted = t('single'), u = f("no");
const x = html`<b title=${t("tip")}>${t("it\\"s")}</b>`;
const y = html`<ul>${list.map((a) => html`<li class=${a ? "b" : "c"}>${t("{count} left", {count: 1})}</li>`)}</ul>`;
const z = `${a}${b ? t("nested in a string") : `${t("twice nested")}`}`;
// t("in a comment")
"""


def test_messages_are_found_in_python_and_scripts_and_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "api/dashboard/lib").mkdir(parents=True)
    (tmp_path / "one.py").write_text('a = _("{count} files").format(count=1)\nb = N_("two" "\\nlines")\nc = f("no")\n')
    (tmp_path / "api/dashboard/page.js").write_text(PAGE)
    for name in ("chart.min.js", "lib/preact.js"):
        (tmp_path / "api/dashboard" / name).write_text('t("not ours")\n')
    monkeypatch.setattr(messages, "PACKAGE", tmp_path)
    monkeypatch.setattr(messages, "SCRIPTS", tmp_path / "api/dashboard")
    found = messages.extracted()
    assert found >= {"{count} files", "two\nlines", "Configuration file.", "Print the man page."}
    assert found >= {"plain", "single", "tip", 'it"s', "{count} left", "nested in a string", "twice nested"}
    assert not found & {"no", "not ours", "in a comment", ""}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """mountd.po and mountd.mo of two messages, complete."""
    monkeypatch.setattr(messages, "PO", tmp_path / "mountd.po")
    monkeypatch.setattr(messages, "MO", tmp_path / "mountd.mo")
    write(messages.updated(Catalog(), {"one", "{a} of {b}"}), {"one": "一", "{a} of {b}": "{b} 中的 {a}"})
    return tmp_path


def write(catalog: Catalog, translations: dict[str, str]) -> None:
    for each in catalog:
        if each.id in translations:
            each.string = translations[str(each.id)]
    messages.PO.write_bytes(messages.po_text(catalog))
    messages.MO.write_bytes(messages.mo_bytes(catalog))


WANTED = {"one", "{a} of {b}"}


def test_each_thing_that_is_wrong_is_found(files: Path) -> None:
    assert messages.problems(WANTED) == []
    assert "not in mountd.po: 'new'" in messages.problems({*WANTED, "new"})
    assert "in mountd.po, and nowhere in the source: 'one'" in messages.problems({"{a} of {b}"})
    write(messages.committed(), {"{a} of {b}": "{a} 和 {c}"})
    assert "other places for values" in messages.problems(WANTED)[0]
    write(messages.committed(), {"{a} of {b}": ""})
    assert "not translated" in messages.problems(WANTED)[0]
    write(messages.committed(), {"{a} of {b}": "{b}、{a}"})
    assert messages.problems(WANTED) == []
    text = messages.PO.read_text("utf-8")
    messages.PO.write_text(text.replace('msgid "one"', '#, fuzzy\nmsgid "one"'), "utf-8")
    assert "fuzzy" in messages.problems(WANTED)[0]
    messages.PO.write_text(text.replace("一", "壹"), "utf-8")
    assert "not the compiled" in messages.problems(WANTED)[0]
    messages.PO.write_text(text + "\n\n", "utf-8")
    assert "not as ./dev messages writes it" in messages.problems(WANTED)[0]


def test_an_update_keeps_translations_and_drops_what_is_gone(files: Path) -> None:
    made = messages.updated(messages.committed(), {"one", "other"})
    assert {each.id: each.string for each in made if each.id} == {"one": "一", "other": ""}


def test_long_and_quoted_messages_stay_as_they_are(files: Path) -> None:
    odd = {'a "quoted" \\ word\nand a second line\t{x}', "long " * 100 + "end"}
    write(messages.updated(Catalog(), odd), {each: f"中{each}" for each in odd})
    assert {each.id: each.string for each in messages.committed() if each.id} == {each: f"中{each}" for each in odd}
    assert messages.problems(odd) == []
