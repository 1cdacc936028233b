"""Targets of notifications in the file: what is right, what is wrong and where, and no secret of them is shown."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.codes import MUST_KNOW
from mountd.errors import ConfigError
from mountd.settings import masking
from mountd.settings.change import compare
from mountd.settings.load import Loaded, Places, parse
from mountd.settings.masking import HIDDEN
from mountd.settings.schema import Settings
from mountd.settings.units import Limit

TOP = Path(__file__).parents[2]
PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
BASE: dict[str, Any] = {
    "remotes": {"store": {"type": "local"}},
    "mounts": {"storage": {"remote": "store:b", "path": "/mnt/s"}},
}
HOOK = {"webhook": "https://hooks.example.com/mountd"}
PEOPLE = {"apprise": {"file": "/run/secrets/apprise"}}


def load(notify: object, **more: object) -> Loaded:
    return parse(yaml.safe_dump({**BASE, "notify": notify, **more}), "mountd.yaml", PLACES)


def settings(notify: object, **more: object) -> Settings:
    return load(notify, **more).settings


def problems(notify: object, **more: object) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        load(notify, **more)
    return [(each.path, each.text) for each in caught.value.problems]


def test_the_defaults_are_for_programs_and_for_people() -> None:
    found = settings({"ops": HOOK, "people": PEOPLE}).notify
    ops, people = found["ops"], found["people"]
    assert (ops.limit, ops.after_s, ops.timeout_s, ops.patterns) == (None, 0.0, 10.0, MUST_KNOW)
    assert (people.limit, people.after_s, people.timeout_s, people.patterns) == (
        Limit(10, 3600.0),
        30.0,
        30.0,
        MUST_KNOW,
    )
    assert settings(None).notify == {}


def test_what_is_written_holds() -> None:
    written = {
        **PEOPLE,
        "events": ["switch-*"],
        "at_most": "5 in 1h",
        "after": "0s",
        "healed": "false",
        "language": "zh_CN",
    }
    people = settings({"people": written}).notify["people"]
    assert (people.patterns, people.limit, people.after_s) == (("switch-*",), Limit(5, 3600.0), 0.0)
    assert (people.healed, people.language) == (False, "zh_CN")


@pytest.mark.parametrize(
    ("target", "path", "words"),
    [
        ({}, "notify.ops", "exactly one"),
        ({**HOOK, **PEOPLE}, "notify.ops", "exactly one"),
        ({**PEOPLE, "secret": {"env": "A"}}, "notify.ops", "belongs to webhook"),
        ({**HOOK, "language": "en"}, "notify.ops", "belongs to apprise"),
        ({**HOOK, "events": ["not-redy"]}, "notify.ops.events[0]", "did you mean 'not-ready'?"),
        ({**HOOK, "events": ["ready", "swich-*"]}, "notify.ops.events[1]", "did you mean"),
        ({**HOOK, "events": ["READY"]}, "notify.ops.events[0]", "did you mean 'ready'?"),
        ({**HOOK, "events": ["a b"]}, "notify.ops.events[0]", "no event"),
        ({**HOOK, "events": []}, "notify.ops.events", "must not be empty"),
        ({**HOOK, "at_most": "0 in 1h"}, "notify.ops.at_most", "1 to 1000"),
        ({**HOOK, "at_most": "often"}, "notify.ops.at_most", "5 in 10m"),
        ({**HOOK, "after": "2h"}, "notify.ops.after", "at most"),
        ({**HOOK, "timeout": "0s"}, "notify.ops.timeout", "more than"),
        ({**HOOK, "timeout": "3m"}, "notify.ops.timeout", "at most"),
        ({"webhook": "ftp://x"}, "notify.ops.webhook", "https://"),
        ({"webhook": "https://me:x@hooks.example.com"}, "notify.ops.webhook", "password"),
        ({"webhook": "https://h.example.com/?token=abc"}, "notify.ops.webhook", "secret in plain text"),
        ({"webhook": "https://h.example.com/T1JJ3T3L2abcdefghijk/x"}, "notify.ops.webhook", "secret in plain text"),
        ({"apprise": "dingtalk://x"}, "notify.ops.apprise", "{file: /path}"),
        ({**PEOPLE, "language": "de"}, "notify.ops.language", "zh_CN"),
        ({**HOOK, "event": ["ready"]}, "notify.ops.event", "did you mean 'events'?"),
    ],
)
def test_what_is_wrong_is_named_where_it_stands(target: dict[str, Any], path: str, words: str) -> None:
    found = dict(problems({"ops": target}))
    assert list(found) == [path]
    assert words in found[path]


def test_a_target_has_a_valid_name() -> None:
    assert [path for path, _ in problems({"Ops Team": HOOK})] == ['notify."Ops Team"']


def test_an_address_in_the_open_is_a_warning() -> None:
    warnings = load(
        {"ops": {"webhook": "http://hooks.example.com/x"}, "here": {"webhook": "http://127.0.0.1:9"}}
    ).warnings
    assert [each.path for each in warnings] == ["notify.ops.webhook"]


def test_no_secret_of_a_target_is_shown() -> None:
    url = "https://hooks.example.com/services/T1JJ3T3L2/TIiajkdnlazkcOXrIdevi7FQ?key=SEEN"
    found = settings({"ops": {"webhook": url}, "people": PEOPLE}, allow_plain_secrets=True)
    shown = masking.effective(found)["notify"]
    assert "SEEN" not in json.dumps(shown)
    assert "TIiajk" not in json.dumps(shown)
    assert shown["ops"]["webhook"].startswith(f"https://hooks.example.com/services/T1JJ3T3L2/{HIDDEN}")
    assert shown["people"]["apprise"] == {"file": "/run/secrets/apprise"}


def test_secrets_of_targets_are_secrets_of_the_file() -> None:
    target = {"webhook": {"env": "HOOK_URL"}, "secret": {"file": "/run/secrets/hook"}}
    found = settings({"ops": target, "people": PEOPLE})
    assert dict(found.secrets()).keys() == {
        ("notify", "ops", "webhook"),
        ("notify", "ops", "secret"),
        ("notify", "people", "apprise"),
    }
    assert found.secret_variables() == ("HOOK_URL",), "no app inherits it"


@pytest.mark.parametrize(
    "after",
    [
        {"ops": {**HOOK, "events": ["ready"]}},
        {"ops": {"webhook": "https://other.example.com"}},
        {},
        {"ops": HOOK, "people": PEOPLE},
    ],
)
def test_a_change_takes_effect_in_place(after: object) -> None:
    change = compare(settings({"ops": HOOK}), settings(after), {}, {}, root=False)
    assert change
    assert change.places == change.in_place
    assert (change.refused, change.remount, change.restart) == ((), (), ())


def test_another_secret_is_a_change_too() -> None:
    found, place = settings({"people": PEOPLE}), ("notify", "people", "apprise")
    change = compare(found, found, {place: "a"}, {place: "b"}, root=False)
    assert change.in_place == (place,)
    assert replace(change, places=(), in_place=()) == compare(found, found, {}, {}, root=False)


def test_the_examples_are_valid() -> None:
    (block,) = re.findall(r"```yaml\nnotify:\n(.*?)```", (TOP / "docs" / "notifications.md").read_text(), re.DOTALL)
    assert set(settings(yaml.safe_load(block)).notify) == {"ops", "people"}
    lines = (TOP / "config" / "mountd.yaml").read_text().partition("# notify:\n")[2].splitlines()
    commented = [line.removeprefix("# ") for line in lines[: lines.index("")]]
    assert set(settings(yaml.safe_load("\n".join(commented))).notify) == {"ops", "people"}
