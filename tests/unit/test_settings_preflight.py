"""`apps.*.preflight` as people write it: what it means, what is wrong, and that the JSON Schema agrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mountd.errors import ConfigError
from mountd.settings import masking
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
SCHEMA = json.loads((Path(__file__).parents[2] / "config/mountd.schema.json").read_text())


def text(preflight: str) -> str:
    return f"""
remotes: {{s: {{type: local}}}}
mounts: {{m: {{remote: "s:/b", path: /m}}}}
apps: {{webui: {{command: [sleep], preflight: {preflight}}}}}
"""


def settings(preflight: str) -> Settings:
    return parse(text(preflight), "x.yaml", PLACES).settings


def fits(preflight: str) -> bool:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return bool(validator.is_valid(yaml.safe_load(text(preflight))))


@pytest.mark.parametrize(
    ("preflight", "gpu", "memory"),
    [
        ("{gpu_memory: 8G}", None, "8G"),
        ("{gpu_memory: 90%, gpu: 0}", ["0"], "90%"),
        ("{gpu_memory: 7.5G, gpu: [0, 3]}", ["0", "3"], "7680M"),
        ('{gpu_memory: 8G, gpu: ["0:1"]}', ["0:1"], "8G"),
        ("{gpu_memory: 8G, gpu: MIG-c6d4f1ef-42e4-5de3}", ["MIG-c6d4f1ef-42e4-5de3"], "8G"),
        ("{gpu_memory: 8G, gpu: [GPU-5d5ba0d6], command: [python, load.py], timeout: 5m}", ["GPU-5d5ba0d6"], "8G"),
        ("{command: [python, load.py]}", None, "None"),
    ],
)
def test_what_is_meant(preflight: str, gpu: list[str] | None, memory: str) -> None:
    assert fits(preflight)
    read = settings(preflight)
    found = read.apps["webui"].preflight
    assert found is not None
    assert (found.gpu, str(found.gpu_memory)) == (gpu, memory)
    shown: dict[str, Any] = masking.effective(read)
    assert parse(yaml.safe_dump(shown), "x.yaml", PLACES).settings == read


def test_none_is_none() -> None:
    assert settings("").apps["webui"].preflight is None


@pytest.mark.parametrize(
    ("preflight", "place"),
    [
        ("{}", "apps.webui.preflight"),
        ("{timeout: 5m}", "apps.webui.preflight"),
        ("{gpu: 0, command: [x]}", "apps.webui.preflight"),
        ("{gpu_memory: 8G, gpu: first}", "apps.webui.preflight.gpu[0]"),
        ("{gpu_memory: 8G, gpu: []}", "apps.webui.preflight.gpu"),
        ("{gpu_memory: 8}", "apps.webui.preflight.gpu_memory"),
        ("{command: []}", "apps.webui.preflight.command"),
        ("{command: [x], wait: 5m}", "apps.webui.preflight.wait"),
    ],
)
def test_what_is_wrong(preflight: str, place: str) -> None:
    assert not fits(preflight)
    with pytest.raises(ConfigError) as refused:
        settings(preflight)
    assert [problem.path for problem in refused.value.problems] == [place]


def test_no_memory_at_all_is_no_check() -> None:
    """Which a schema cannot say of all its spellings."""
    with pytest.raises(ConfigError) as refused:
        settings("{gpu_memory: 0}")
    assert [problem.path for problem in refused.value.problems] == ["apps.webui.preflight.gpu_memory"]
