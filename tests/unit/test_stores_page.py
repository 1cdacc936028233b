"""docs/stores.md says what the presets do: a section each, and its table is what comes of the preset."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from mountd.settings.load import Places, parse
from mountd.settings.presets import NAMES, PRESETS, PresetName

PAGE = (Path(__file__).parents[2] / "docs" / "stores.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## [^\n]+: `([a-z0-9-]+)`\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL))


def rows(text: str) -> list[tuple[str, ...]]:
    return [tuple(re.findall(r"`([^`]+)`", line)) for line in text.splitlines() if line.startswith("| `")]


def test_each_preset_has_its_section() -> None:
    assert tuple(SECTIONS) == NAMES
    for name, preset in PRESETS.items():
        assert f"## {preset.title}: `{name}`\n" in PAGE


@pytest.mark.parametrize("name", NAMES)
def test_its_table_is_what_comes_of_it(name: PresetName) -> None:
    preset, region = PRESETS[name], "REGION"
    expected: list[tuple[str, ...]] = []
    for option, value in preset.options(region if preset.needs_region else "").items():
        expected.append((option, value))
        if option == "endpoint" and preset.has_own_internal:
            expected.append((option, "network: internal", preset.address(region, "internal")))
    if preset.needs_endpoint:
        expected.append(("endpoint", preset.example))
    assert rows(SECTIONS[name]) == expected


def test_its_example_is_a_remote() -> None:
    (example,) = re.findall(r"```yaml\n(remotes:.*?)```", PAGE, re.DOTALL)
    data = yaml.safe_load(example) | {"mounts": {"m": {"remote": "models:b", "path": "/m"}}}
    places = Places(Path("/s"), Path("/c"), Path("/r"))
    settings = parse(yaml.safe_dump(data), "x.yaml", places).settings
    assert settings.remotes["models"].options["endpoint"] == "https://oss-cn-hangzhou-internal.aliyuncs.com"
