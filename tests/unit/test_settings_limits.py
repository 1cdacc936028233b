"""Limits of an app: what can be written, and what it is in bytes and processors."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mountd.settings.limits import AppLimitSettings
from mountd.settings.units import Size


@pytest.mark.parametrize(
    ("written", "memory", "cpu"),
    [
        ({}, None, None),
        ({"memory": "12G", "cpu": "2.5"}, Size(12 << 30), 2.5),
        ({"memory": "50%"}, Size(percent=50.0), None),
        ({"cpu": "1"}, None, 1.0),
    ],
)
def test_what_is_a_limit(written: dict[str, str], memory: Size | None, cpu: float | None) -> None:
    found = AppLimitSettings.model_validate(written)
    assert (found.memory, found.cpu) == (memory, cpu)


@pytest.mark.parametrize(
    "written",
    [
        {"memory": "0"},
        {"memory": "512K"},
        {"memory": "0%"},
        {"cpu": "0"},
        {"cpu": "nan"},
        {"cpu": "-1"},
        {"disk": "1G"},
    ],
)
def test_what_is_none(written: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        AppLimitSettings.model_validate(written)
