"""`mountd profile` of a real app on a real mount: what it opened at its start, kept, shown and removed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.wait import until

pytestmark = pytest.mark.fuse

SOON_S = 30.0
MAPPING_APP = Path(__file__).parents[1] / "support" / "mapping_app.py"
FIRST = ("tokenizer/bpe.model", "models/gpt.pth", "config.yaml")
# The product goes on for ten seconds after the app is ready.
SOON_OVER = """
import sys
from mountd.cli.main import main
from mountd.daemon import access_recorder
access_recorder.LAZY_S, access_recorder.BEGIN_LIMIT_S = 0.5, 10.0
sys.exit(main())
"""


def profile(daemon: Daemon, version: str) -> dict[str, Any]:
    """Once that of a start with `version` is there."""

    def recorded() -> dict[str, Any] | None:
        shown = daemon.cli("profile", version, "-o", "json")
        found: dict[str, Any] = shown.json
        return found if shown.code == 0 else None

    return until(recorded, SOON_S, f"a start with {version} to be recorded", every_s=0.2)


def load(daemon: Daemon) -> tuple[int | None, ...] | None:
    """As far as the app is: percent, files, bytes."""
    found = daemon.status()["apps"]["webui"]["load"]
    keys = ("percent", "files_done", "files_total", "bytes_done", "bytes_total")
    return None if found is None else tuple(found[key] for key in keys)


def step(daemon: Daemon) -> tuple[str, int | None]:
    operation = daemon.status()["operation"] or {}
    return operation.get("step", ""), operation.get("percent")


def watchers(daemon: Daemon) -> list[int]:
    return [pid for pid, line in daemon.command_lines().items() if b"opens_worker.py" in line]


def test_what_the_app_opens_at_its_start(daemon: Daemon) -> None:
    daemon.program = (sys.executable, "-c", SOON_OVER)
    go = daemon.root / "go"
    go.touch()
    first = f'for file in {" ".join(FIRST)}; do cat "{daemon.link}/$file" >/dev/null; done'  # before Python is there
    first += f"; until test -e '{go}'; do sleep 0.05; done; exec \"$@\""
    app = daemon.config["apps"]["webui"]
    app["command"] = [
        "/bin/sh",
        "-c",
        first,
        "sh",
        sys.executable,
        str(MAPPING_APP),
        str(daemon.web_port),
        str(daemon.link),
    ]
    daemon.start_ready()
    found = profile(daemon, "v23")
    assert (found["model"], [each["app"] for each in found["apps"]]) == ("cache_hub", ["webui"])
    assert not found["apps"][0]["partial"]
    assert found["files"][0]["path"] == "tokenizer/bpe.model"
    assert {file["path"] for file in found["files"]} == {*hub.FULL_BYTES}
    sizes = {path: (daemon.link.resolve() / path).stat().st_size for path in hub.FULL_BYTES}
    assert {file["path"]: file["size"] for file in found["files"]} == sizes
    assert found["bytes"] == sum(sizes.values())
    until(lambda: watchers(daemon) == [], SOON_S, "the watcher to be gone")

    shown = daemon.cli("profile")
    assert shown.code == 0
    heading, first_row, *_ = shown.out.splitlines()
    assert heading.split() == ["#", "AFTER", "SIZE", "FILE"]
    assert (first_row.split()[0], first_row.split()[-1]) == ("1", "tokenizer/bpe.model")
    for words, code in ((["v22"], 3), (["latest"], 2), (["--model", "none"], 3), (["v22", "--forget"], 3)):
        assert daemon.cli("profile", *words).code == code, words

    # The next version has its own start, which is shown by the last one; what was recorded outlives mountd.
    go.unlink()
    assert daemon.cli("switch", "v22", "--no-wait").code == 0
    total = {path: (daemon.mount / "cache_hub_v22" / path).stat().st_size for path in hub.FULL_BYTES}
    done = [total[path] for path in FIRST[:-1]]
    percent = 100 * sum(done) // sum(total.values())
    expected = (percent, len(done), len(total), sum(done), sum(total.values()))
    until(lambda: load(daemon) == expected, SOON_S, f"{expected} to be shown")
    until(lambda: step(daemon) == ("ready", percent), SOON_S, "the switch to show it")
    assert f"loading {percent} % of" in daemon.cli("status").out
    go.touch()
    assert daemon.cli("wait", "--for", "version=v22", "--timeout", "60s").code == 0
    assert load(daemon) is None
    assert {file["path"] for file in profile(daemon, "v22")["files"]} == {*hub.FULL_BYTES}
    assert daemon.cli("profile", "v23").code == 3
    assert daemon.stop() == 0
    daemon.start()
    until(lambda: daemon.cli("profile", "v22").code == 0, SOON_S, "the record of the run before")
    daemon.until_ready()
    until(lambda: len(daemon.events("recorded what an app opens")) >= 3, SOON_S, "another start to be recorded")
    removed = daemon.cli("profile", "--forget", "-o", "json")
    assert (removed.code, removed.json["apps"]) == (0, ["webui"])
    assert daemon.cli("profile").code == 3
    assert daemon.cli("profile", "--forget").code == 3
