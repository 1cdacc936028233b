"""The configuration on the pages: each YAML block of it is valid, and each key that is named exists."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.errors import ConfigError
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings
from pages.configuration import sections
from tests.support.docs_pages import DOCS, TOP, blocks, inline

SHOWN = [*DOCS, TOP / "README.md"]
BASE = """
remotes:
  models: &store {type: s3, provider: Other, endpoint: "http://127.0.0.1:9000"}
  compshare: *store
mounts: {storage: {remote: "models:bucket", path: /mnt/storage}}
models: {cache_hub: {mount: storage, directory: "cache_hub_{version}", link: /srv/hub, version: v1}}
apps: {webui: {command: [webui], needs: [cache_hub]}}
"""
"""What a fragment of a page is put into."""
TOP_KEYS = set(Settings.model_fields)
ROOTS = TOP_KEYS - {"state", "runtime"} | {"cache", "warm", "sync", "desired", "watch", "restart", "preflight"}
"""Where a key that is named in running text may begin."""
NO_KEYS = {"rclone.conf", "log.txt", "models.M.loading", "apps.A.load"}
"""Files; fields of the status document."""


def fragments(page: Path) -> list[Any]:
    return [yaml.safe_load(block.text) for block in blocks(page.read_text()) if block.language == "yaml"]


def whole(fragment: dict[str, Any]) -> dict[str, Any]:
    """A fragment in the place where it belongs; one of a model that stands alone is of a model."""
    if not set(fragment) <= TOP_KEYS:
        fragment = {"models": {"cache_hub": fragment}}
    base = yaml.safe_load(BASE)
    if "remotes" in fragment and "mounts" in fragment:
        base = {}
    found: dict[str, Any] = merged(base, fragment)
    return found


def merged(into: Any, more: Any) -> Any:
    if not isinstance(into, dict) or not isinstance(more, dict):
        return more
    found = {key: merged(into.get(key), value) for key, value in more.items()}
    found = {**into, **found}
    return {key: value for key, value in found.items() if not (key == "version" and "desired" in more)}


def problems(fragment: Any) -> str:
    try:
        parse(yaml.safe_dump(whole(fragment)), "page.yaml", Places(Path("/s"), Path("/c"), Path("/r")))
    except ConfigError as error:
        return error.text
    return ""


@pytest.mark.parametrize("page", [page for page in SHOWN if fragments(page)], ids=lambda page: page.name)
def test_each_block_is_a_valid_configuration(page: Path) -> None:
    assert [found for each in fragments(page) if (found := problems(each))] == []


def test_a_wrong_block_is_seen() -> None:
    assert "colour" in problems({"mounts": {"storage": {"colour": "blue"}}})
    assert problems({"sync": {"automatc": True}})
    assert not problems({"sync": {"automatic": True}})


@cache
def known() -> set[str]:
    """Each key without the names that a reader chooses, and its ends: `models.gates.http`, `gates.http`."""
    found = set()
    for section in sections():
        for key in section.keys:
            parts = [part for part in key.place if part not in ("NAME", "[]", "…")]
            found |= {".".join(parts[start:]) for start in range(len(parts))}
    return found


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_each_key_that_is_named_exists(page: Path) -> None:
    keys = known()
    free = ("remotes.", "options.", "environment.")  # below these anything may stand
    wrong = []
    for text in inline(page.read_text()):
        match = re.fullmatch(r"([a-z_]+)((?:\.(?:\*|[A-Z]+|[a-z_]+))+)(: .*)?", text)
        if match is None or match[1] not in ROOTS or text in NO_KEYS:
            continue
        parts = [part for part in f"{match[1]}{match[2]}".split(".") if part != "*" and not part.isupper()]
        if ".".join(parts) not in keys and not ".".join(parts).startswith(free):
            wrong.append(text)
    assert wrong == []
