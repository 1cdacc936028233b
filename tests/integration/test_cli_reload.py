"""`reload` and `profile`, against a stand-in daemon."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from mountd.cli.main import main
from tests.support.standin import STATUS, Asked, StandIn, error

# reload ---------------------------------------------------------------------------------------------------------------

CHANGED: dict[str, Any] = {
    "schema": 1,
    "changed": ["apps.webui.ready.timeout", "mounts.storage.umask"],
    "in_place": ["apps.webui.ready.timeout"],
    "restarted": ["storage"],
}


def test_reload_says_what_changed_and_what_restarts(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.answers["POST /api/v1/reload"] = lambda _: (200, CHANGED)
    assert main(["reload"]) == 0
    captured = capsys.readouterr()
    assert [line.split() for line in captured.out.splitlines()[1:]] == [
        ["apps.webui.ready.timeout", "in", "place"],
        ["mounts.storage.umask", "restarts", "storage"],
    ]
    assert captured.err == "restarted: storage\n"
    assert [asked.body for asked in standin.asked] == [{}]
    assert main(["reload", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == CHANGED
    standin.answers["POST /api/v1/reload"] = lambda _: (200, {**CHANGED, "restarted": []})
    assert main(["reload"]) == 0
    assert capsys.readouterr().err == "restarted: nothing\n"


def test_a_reload_that_changes_nothing_says_what_the_last_one_did(
    standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.answers["POST /api/v1/reload"] = lambda _: (200, {**CHANGED, "changed": [], "restarted": []})
    standin.status = {**STATUS, "config": {"loaded": "2026-01-02T03:04:05Z", "summary": "restarted storage"}}
    assert main(["reload"]) == 0
    out = capsys.readouterr().out
    assert "2026-01-02T03:04:05Z" in out
    assert "restarted storage" in out


def test_a_reload_that_is_refused_takes_too_long_or_breaks_off(standin: StandIn) -> None:
    standin.answers["POST /api/v1/reload"] = error(400, 2, "cannot use x.yaml: 1 problem")
    assert main(["reload"]) == 2
    standin.answers["POST /api/v1/reload"] = lambda _: (0, None)
    assert main(["reload"]) == 8

    def slowly(_: Asked) -> tuple[int, object]:
        time.sleep(0.3)
        return 200, CHANGED

    standin.answers["POST /api/v1/reload"] = slowly
    assert main(["reload", "--timeout", "100ms"]) == 4
    standin.stop()
    assert main(["reload"]) == 8


# profile --------------------------------------------------------------------------------------------------------------

PROFILE: dict[str, Any] = {
    "schema": 1,
    "model": "cache_hub",
    "bytes": 3 * 1024**3,
    "apps": [
        {"app": "webui", "version": "v22", "recorded": "2026-01-02T03:04:05Z", "partial": False},
        {"app": "api", "version": "v23", "recorded": "2026-01-03T03:04:05Z", "partial": True},
    ],
    "files": [
        {"path": "gpt.pth", "size": 3 * 1024**3, "after_s": 0.256},
        {"path": "声音.yaml", "size": 20, "after_s": 12.0},
    ],
}


def test_profile(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.answers["GET /api/v1/profile"] = lambda _: (200, PROFILE)
    assert main(["profile", "v22", "--model", "cache_hub"]) == 0
    captured = capsys.readouterr()
    assert standin.asked[0].query == {"model": "cache_hub", "version": "v22"}
    assert [line.split() for line in captured.out.splitlines()] == [
        ["#", "AFTER", "SIZE", "FILE"],
        ["1", "0.26", "s", "3.0", "GiB", "gpt.pth"],
        ["2", "12.00", "s", "20", "B", "声音.yaml"],
    ]
    whole, partial, total = captured.err.splitlines()
    assert "webui with cache_hub v22, recorded 2026-01-02T03:04:05Z" in whole
    assert ("other files" in whole, "other files" in partial) == (False, True)
    assert total == "2 files, 3.0 GiB"
    assert main(["profile", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == PROFILE


def test_forgetting_a_profile(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    removed = {"schema": 1, "model": "cache_hub", "apps": ["webui", "api"]}
    standin.answers["POST /api/v1/profile/forget"] = lambda _: (200, removed)
    assert main(["profile", "v22", "--forget"]) == 0
    assert capsys.readouterr().out.endswith(" cache_hub, opened by webui, api\n")
    assert main(["profile", "--forget", "--model", "cache_hub", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == removed
    assert [asked.body for asked in standin.asked] == [{"version": "v22"}, {"model": "cache_hub"}]
    standin.answers["POST /api/v1/profile/forget"] = error(404, 3, "cannot remove the access profile: there is none")
    assert main(["profile", "--forget"]) == 3
