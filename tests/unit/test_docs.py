"""The pages for people: what is generated is what the code says, no code is missing, translations are complete."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from mountd.cli.main import EXIT_CODES
from mountd.settings.jsonschema import generate
from pages.__main__ import generated
from pages.commands import contexts, escaped
from pages.configuration import sections
from tests.support.docs_pages import DOCS, TOP, anchors, blocks, headlines, inline, links

TRANSLATED = [page for page in DOCS if page.stem.endswith(".zh")]
REASONS = (TOP / "docs/reasons.md").read_text()
EVENTS = (TOP / "docs/events.md").read_text()
WITHOUT_CODES = ("cli", "demo", "install", "api", "publish")
"""Packages that make no reasons of their own."""
DATA = {f"settings/{name}.py" for name in ("presets", "profiles", "options", "validate", "stores", "sync")} | {
    "rclone/command.py"
}
"""Names of stores and flags of rclone."""
NO_CODES = {
    *("after-sweep", "buffer-size", "cat-file", "content-length", "content-range", "flip-back", "http-proxy"),
    *("keep-alive", "latin-1", "ls-remote", "ls-tree", "model-hub", "mountd-cache", "mountd-log", "mountd-order"),
    *(
        "mountd-state",
        "mountd-tls",
        "no-room",
        "nvidia-smi",
        "outbox-mismatch",
        "other-v2-signature",
        "proxy-authorization",
    ),
    *(
        "proxy-connection",
        "read-only",
        "rolled-back",
        "start-old",
        "stop-new",
        "transfer-encoding",
        "utf-8",
        "utf-8-sig",
    ),
    *("utf-8", "utf-8-sig", "vfs-cache-max-age", "vfs-cache-max-size", "vfs-cache-min-free-space", "vfs-cache-mode"),
    *("webhook-id", "webhook-signature", "webhook-timestamp"),
}
"""Words of that form in mountd that are neither a reason nor an event. A new word belongs here, or on a page."""
_CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)+")


def test_what_is_generated_is_what_the_code_says() -> None:
    """If not: `./dev docs --write`."""
    assert [path.name for path, text, new in generated() if text != new] == []


def test_each_key_of_the_configuration_is_there_with_a_meaning() -> None:
    found = {key.place[-1] for section in sections() for key in section.keys}
    schema = generate()
    named = {*schema["properties"]}.union(
        *(each.get("properties", {}) for name, each in schema["$defs"].items() if name != "SecretRef")
    )
    assert named - found == set()
    assert all(key.meaning and key.type for section in sections() for key in section.keys)


@pytest.mark.parametrize(
    ("help_text", "shown"),
    [
        ("Only with --force, or -c FILE.", "Only with `--force`, or `-c` FILE."),
        ("Set $MOUNTD_LANG.", "Set `$MOUNTD_LANG`."),
        ("At <home>.", "At &lt;home>."),
        ("Run `mountd manual | man -l -`, or --yes.", "Run `mountd manual | man -l -`, or `--yes`."),
        ("Run `tee <in` then.", "Run `tee <in` then."),
    ],
)
def test_options_of_a_help_text_are_marked_and_commands_are_kept(help_text: str, shown: str) -> None:
    assert escaped(help_text) == shown


@pytest.mark.parametrize("help_text", ["mountd manual | man -l -", "systemctl enable --now mountd"])
def test_a_command_of_another_program_has_to_be_in_backticks(help_text: str) -> None:
    with pytest.raises(ValueError, match="backticks"):
        escaped(help_text)


def test_each_command_has_its_section_and_each_exit_code_its_line() -> None:
    page = (TOP / "docs/commands.md").read_text()
    assert {context.command_path for context in contexts()} <= {words for _, words in headlines(page)}
    assert EXIT_CODES.keys() == {0, 1, 2, 3, 4, 5, 6, 7, 8, 20}
    readme = (TOP / "README.md").read_text()
    for code, text in EXIT_CODES.items():
        assert f"| {code} | {text} |" in page
        assert re.search(rf"^\| {code} \| ", readme, re.MULTILINE)


def rows(page: str) -> Iterator[str]:
    """The codes in the first column of each table."""
    for line in re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE):
        yield from re.findall(r"`([a-z0-9-]+)`", line)


@cache
def written() -> set[str]:
    """Each word of that form in the packages that make reasons and events."""
    found = set()
    for path in sorted((TOP / "mountd").rglob("*.py")):
        name = str(path.relative_to(TOP / "mountd"))
        if name.partition("/")[0] in WITHOUT_CODES or name in DATA:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _CODE.fullmatch(node.value):
                found.add(node.value)
    return found


def test_no_reason_and_no_event_is_missing() -> None:
    documented = {*rows(REASONS), *rows(EVENTS)}
    sections = {name for page in DOCS for name in anchors(page.read_text())}  # to which mountd leads people
    assert written() - documented - sections - NO_CODES == set(), "write it on docs/reasons.md, or add it to NO_CODES"


def test_no_reason_is_there_that_mountd_does_not_know() -> None:
    known = written() | {
        word for path in (TOP / "mountd").rglob("*.py") for word in re.findall(r'"([a-z]+)"', path.read_text())
    }
    made = {"mount-hung", "mount-dead", "mount-misconfigured"}  # mount-VERDICT
    assert set(rows(REASONS)) - known - made == set()
    assert NO_CODES & set(rows(REASONS)) == set()
    assert [code for code, count in Counter(rows(REASONS)).items() if count > 1] == []


def test_codes_on_other_pages_are_codes() -> None:
    """In the first column of the tables of troubleshooting and README."""
    known = {*rows(REASONS), *rows(EVENTS)}
    for name in ("README.md", "docs/troubleshooting.md", "docs/troubleshooting.zh.md"):
        text = (TOP / name).read_text()
        codes = {code for code in rows(text) if _CODE.fullmatch(code)}
        assert codes - known == set(), name


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.name)
def test_a_translation_has_what_the_original_has(page: Path) -> None:
    text, original = page.read_text(), original_of(page).read_text()
    assert [depth for depth, _ in headlines(text)] == [depth for depth, _ in headlines(original)]
    assert [(block.language, without_comments(block.text)) for block in blocks(text)] == [
        (block.language, without_comments(block.text)) for block in blocks(original)
    ]
    assert Counter(inline(text)) == Counter(inline(original))
    assert len(re.findall(r"^\|", text, re.MULTILINE)) == len(re.findall(r"^\|", original, re.MULTILINE))
    assert [each.partition("#")[0] for each in links(text)] == [each.partition("#")[0] for each in links(original)]


def original_of(page: Path) -> Path:
    return page.with_name(page.name.replace(".zh.md", ".md"))


def without_comments(text: str) -> str:
    return re.sub(r" *#.*", "", text)


def test_the_first_pages_of_a_newcomer_are_translated() -> None:
    names = {page.name for page in TRANSLATED}
    assert names >= {"quick-start.zh.md", "install.zh.md", "troubleshooting.zh.md"}


def nav() -> list[str]:
    text = re.sub(r"!!python/\S+", "", (TOP / "mkdocs.yml").read_text())
    found: list[str] = []

    def walk(entry: object) -> None:
        if isinstance(entry, str):
            found.append(entry)
        for each in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
            walk(each)

    walk(yaml.safe_load(text)["nav"])
    return found


def test_the_site_leads_to_each_page_once() -> None:
    there = Counter(page.name for page in DOCS if not page.stem.endswith(".zh"))
    assert Counter(name for name in nav() if name in there) == there
