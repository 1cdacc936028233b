"""The section of outboxes: what can be written, what it means, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.errors import ConfigError
from mountd.settings import masking
from mountd.settings.load import Places, parse
from mountd.settings.outbox import OutboxSettings

PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))
BASE: dict[str, Any] = {
    "remotes": {
        "store": {"type": "s3", "endpoint": "http://x", "access_key_id": "A", "secret_access_key": {"file": "/s"}}
    },
    "mounts": {"hub": {"remote": "store:data", "path": "/mnt/hub"}},
    "models": {"voice": {"mount": "hub", "directory": "v_{version}", "link": "/srv/app/voice", "version": "v1"}},
}
OUTBOX = {"directory": "/srv/app/outputs", "remote": "store:results/outputs"}


def parsed(**outboxes: dict[str, Any]) -> dict[str, OutboxSettings]:
    text = yaml.safe_dump({**BASE, "outbox": outboxes})
    return parse(text, "mountd.yaml", PLACES).settings.outbox


def problems(**outboxes: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as refused:
        parsed(**outboxes)
    return {each.path: each.text for each in refused.value.problems}


def test_two_keys_are_enough() -> None:
    found = parsed(results=OUTBOX)["results"]
    assert (found.settle, found.keep, found.parallel, found.limit, found.late) == (5.0, 7 * 86400, 4, None, 600.0)
    assert (found.include, found.exclude) == (["*"], [".*", "*.tmp", "*.part"])
    assert found.remote_name == "store"


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("7d", 7 * 86400), ("0s", 0.0), ("0", 0.0), (0, 0.0), ("forever", math.inf), ("1d12h", 129600)],
)
def test_how_long_files_are_kept(written: str | int, seconds: float) -> None:
    found = parsed(results={**OUTBOX, "keep": written})["results"]
    assert found.keep == seconds
    shown = found.model_dump(mode="json")["keep"]
    assert parsed(results={**OUTBOX, "keep": shown})["results"].keep == seconds


def test_what_is_shown_can_be_parsed_again() -> None:
    settings = parse(yaml.safe_dump({**BASE, "outbox": {"results": {**OUTBOX, "limit": "20M"}}}), "f", PLACES).settings
    shown = masking.effective(settings)
    assert parsed(**shown["outbox"]) == settings.outbox


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"keep": "always"}, "keep"),
        ({"keep": "5"}, "keep"),
        ({"keep": 5}, "keep"),
        ({"keep": 100_000_000_000}, "keep"),
        ({"keep": 0.5}, "keep"),
        ({"keep": math.inf}, "keep"),
        ({"keep": math.nan}, "keep"),
        ({"keep": False}, "keep"),
        ({"keep": "4000d"}, "keep"),
        ({"settle": "0s"}, "settle"),
        ({"parallel": 0}, "parallel"),
        ({"include": ["/x"]}, "include[0]"),
        ({"exclude": [""]}, "exclude[0]"),
        ({"remote": "other:x"}, "remote"),
        ({"remote": "store:"}, "remote"),
        ({"directory": "outputs"}, "directory"),
        ({"directory": "/"}, "directory"),
        ({"directory": "/mnt/hub/outputs"}, "directory"),
        ({"directory": "/mnt"}, "directory"),
        ({"directory": "/var/lib/mountd/x"}, "directory"),
        ({"directory": "/srv/app/voice/x"}, "directory"),
        ({"min_free": "96%"}, "min_free"),
        ({"verify": "no"}, "verify"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], place: str) -> None:
    assert f"outbox.results.{place}" in problems(results={**OUTBOX, **changes})


def test_two_outboxes_share_no_place_and_no_name() -> None:
    assert "outbox.b.directory" in problems(a=OUTBOX, b={**OUTBOX, "remote": "store:other"})
    assert "outbox.b.directory" in problems(a=OUTBOX, b={"directory": "/srv/app/outputs/b", "remote": "store:other"})
    assert "outbox.b.remote" in problems(a=OUTBOX, b={**OUTBOX, "directory": "/srv/b"})
    assert "outbox.voice" in problems(voice=OUTBOX)
    assert len(parsed(a=OUTBOX, b={"directory": "/srv/b", "remote": "store:results/b"})) == 2


@pytest.mark.parametrize(
    ("one", "other", "warned"),
    [
        ("store:results", "store:results/sub", ["outbox.b.remote"]),
        ("store:results/sub/more", "store:results", ["outbox.a.remote"]),
        ("store:results/a", "store:results/ab", []),
        ("store:results/a", "store:results/b", []),
    ],
)
def test_a_prefix_below_that_of_another_outbox_is_warned_of(one: str, other: str, warned: list[str]) -> None:
    outboxes = {"a": {**OUTBOX, "remote": one}, "b": {"directory": "/srv/b", "remote": other}}
    found = parse(yaml.safe_dump({**BASE, "outbox": outboxes}), "mountd.yaml", PLACES)
    assert [each.path for each in found.warnings] == warned


def test_an_empty_section_means_no_outbox() -> None:
    assert parse(yaml.safe_dump({**BASE, "outbox": None}), "mountd.yaml", PLACES).settings.outbox == {}
