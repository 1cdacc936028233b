"""How much of a model is fetched ahead, and at which level of it an app starts: what may be written, and what not."""

# ruff: noqa: E501 - a table reads better with one case a line

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.test_settings_checks import inspected
from tests.unit.test_settings_problems import changed, parsed, problems


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("models/hub/warm", "data", "models.hub.warm: must be a mapping of keys"),
        ("models/hub/warm", {"levl": "data"}, "models.hub.warm.levl: unknown key, did you mean 'level'?"),
        ("models/hub/warm", {"level": "full"}, "models.hub.warm.level: must be 'metadata', 'data' or 'pin', not 'full'"),
        ("models/hub/warm", {"adopt": "/data"}, "models.hub.warm.adopt: must be a list, such as [a, b]"),
        ("models/hub/warm", {"adopt": ["data"]}, "models.hub.warm.adopt[0]: 'data' must be an absolute path"),
        ("models/hub/warm", {"adopt": ["/data"] * 21}, "models.hub.warm.adopt: must not have more than 20 entries"),
        ("models/hub/warm", {"limit": "20"}, "models.hub.warm.limit: '20' is not a rate: write 20M for 20 MiB a second"),
        ("models/hub/warm", {"limit": "20M/s"}, "models.hub.warm.limit: '20M/s' is not a rate: write 20M for 20 MiB a second"),
        ("models/hub/warm", {"limit": "5%"}, "models.hub.warm.limit: '5%' is not a rate: write 20M for 20 MiB a second"),
        ("models/hub/warm", {"limit": "0"}, "models.hub.warm.limit: must be more than 0; leave it out for no limit"),
        ("models/hub/warm", {"only_opened": "maybe"}, "models.hub.warm.only_opened: must be true or false, not 'maybe'"),
        ("models/hub/warm", {"level": "pin", "only_opened": "true"}, "models.hub.warm.only_opened: belongs to level data: a pinned version is complete, or it would not do without the mount"),
        ("apps/webui/needs", ["Hub"], "apps.webui.needs[0]: 'Hub' is not a name: lower-case letters, digits, '-' and '_', 32 at most"),
        ("apps/webui/needs", [None], "apps.webui.needs[0]: is empty"),
        ("apps/webui/needs", [["hub"]], "apps.webui.needs[0]: must be a name, or a model with its level, such as {model: NAME, level: data}"),
        ("apps/webui/needs", [{"model": "hub"}], "apps.webui.needs[0].level: is missing"),
        ("apps/webui/needs", [{"model": "hub", "levl": "data", "level": "metadata"}], "apps.webui.needs[0].levl: unknown key, did you mean 'level'?"),
        ("apps/webui/needs", [{"model": "hub", "level": "full"}], "apps.webui.needs[0].level: must be 'metadata', 'data' or 'pin', not 'full'"),
        ("apps/webui/needs", [{"model": "hbu", "level": "metadata"}], "apps.webui.needs[0].model: there is no model 'hbu', did you mean 'hub'?"),
        ("apps/webui/needs", [{"model": "Hub", "level": "metadata"}], "apps.webui.needs[0].model: 'Hub' is not a name: lower-case letters, digits, '-' and '_', 32 at most"),
        ("apps/webui/needs", [{"model": "storage", "level": "metadata"}], "apps.webui.needs[0].model: 'storage' is a mount, and only a model has a level: write its name alone"),
        ("apps/webui/needs", [{"model": "hub", "level": "data"}], "apps.webui.needs[0].level: is never reached: models.hub.warm.level is metadata; write data there as well"),
    ],
)  # fmt: skip
def test_one_problem(path: str, value: Any, problem: str) -> None:
    assert problems(changed(path, value)) == [problem]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("models/hub/warm", None),
        ("models/hub/warm", {"only_opened": "true", "limit": "512K"}),
        ("models/hub/warm", {"level": "pin", "adopt": ["/data", "/srv/app"], "limit": "20MiB"}),
        ("apps/webui/needs", ["hub", "storage", {"model": "hub", "level": "metadata"}]),
    ],
)
def test_no_problem(path: str, value: Any) -> None:
    assert parsed(changed(path, value)).warnings == ()


@pytest.mark.parametrize(
    ("profile", "options", "level", "is_right"),
    [
        ("model-hub", {}, "data", True),
        ("outputs", {}, "data", True),
        ("plain", {}, "data", False),
        ("plain", {"vfs-cache-mode": "full"}, "data", True),
        ("model-hub", {"vfs-cache-mode": "writes"}, "data", False),
        ("model-hub", {"vfs-cache-mode": "FULL"}, "data", True),
        ("plain", {}, "metadata", True),
        ("plain", {}, "pin", True),
    ],
)
def test_bytes_are_fetched_ahead_only_where_they_are_kept(
    profile: str, options: dict[str, str], level: str, is_right: bool
) -> None:
    data = changed("models/hub/warm", {"level": level})
    data["mounts"]["storage"] |= {"profile": profile, "options": options}
    assert [each.path for each in inspected(data).problems] == ([] if is_right else ["models.hub.warm.level"])


@pytest.mark.parametrize(
    ("own", "needs", "level"),
    [
        ("metadata", ["hub"], "metadata"),
        ("pin", ["hub"], "pin"),
        ("data", [{"model": "hub", "level": "metadata"}], "metadata"),
        ("pin", [{"model": "hub", "level": "pin"}], "pin"),
        ("data", ["storage"], "data"),
        ("pin", [{"model": "hub", "level": "metadata"}, {"model": "hub", "level": "data"}], "data"),
        ("pin", ["hub", {"model": "hub", "level": "metadata"}], "pin"),
    ],
)
def test_the_level_at_which_an_app_starts(own: str, needs: list[Any], level: str) -> None:
    data = changed("models/hub/warm", {"level": own})
    data["apps"]["webui"]["needs"] = needs
    settings = parsed(data).settings
    assert settings.level_needed(settings.apps["webui"], "hub") == level


def test_what_an_app_needs_by_name_however_it_is_written() -> None:
    app = parsed(changed("apps/webui/needs", ["storage", {"model": "hub", "level": "metadata"}])).settings.apps["webui"]
    assert app.needs == ["storage", "hub"]


@pytest.mark.parametrize(("own", "needed"), [("metadata", "data"), ("metadata", "pin"), ("data", "pin")])
def test_no_app_waits_for_a_level_that_its_model_never_reaches(own: str, needed: str) -> None:
    data = changed("models/hub/warm", {"level": own})
    data["apps"]["webui"]["needs"] = [{"model": "hub", "level": needed}]
    assert [each.path for each in inspected(data).problems] == ["apps.webui.needs[0].level"]
