"""What is kept of an incident: without secrets, and never the new one thrown away for an old one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mountd.mount.engine import Engine
from mountd.mount.evidence import KEPT, keep, masked, surplus
from mountd.process.child import spawn
from mountd.process.instance import Instance
from mountd.rclone import binary
from mountd.rclone.conf_file import ConfFile
from mountd.rclone.log import mask
from mountd.settings.schema import Settings
from tests.support.daemon import BUNDLED_RCLONE


def named(minute: int, hour: int = 12) -> str:
    return f"20260101T{hour:02}{minute:02}00.000000Z-storage-hung"


def test_the_newest_are_kept() -> None:
    names = [named(minute) for minute in range(KEPT + 3)]
    assert surplus(names, names[-1]) == names[:3]
    assert surplus(names[:KEPT], names[KEPT - 1]) == []
    assert surplus([*names[:KEPT], "note", ".x"], names[KEPT - 1]) == [], "what is not ours stays"


def test_a_clock_that_was_put_back_deletes_no_new_incident() -> None:
    kept = [named(minute, hour=13) for minute in range(KEPT)]
    for minute in range(KEPT):
        new = named(minute)
        kept.append(new)
        gone = surplus(kept, new)
        assert gone == [named(minute, hour=13)], "what was kept before it goes, the oldest first"
        kept.remove(gone[0])
    assert kept == [named(minute) for minute in range(KEPT)]


@given(st.sets(st.integers(0, 59)), st.integers(0, 59))
def test_the_one_just_made_always_stays(minutes: set[int], new: int) -> None:
    names = {named(minute) for minute in minutes} | {named(new)}
    gone = surplus(names, named(new))
    assert named(new) not in gone
    assert len(names) - len(gone) == min(len(names), KEPT)


def test_what_rclone_reports_is_masked_in_whatever_depth() -> None:
    secret = 'sup"er\\secret-0001'
    stats = {
        "core/stats": {"lastError": f"403: {secret}", "bytes": 3, "checking": [secret, None]},
        "vfs/stats": f"401: login {json.dumps(secret)} refused",
    }
    reported = json.dumps(masked(stats, lambda text: mask(text, [secret])))
    assert "er" not in reported.replace("lastError", "")
    assert json.loads(reported)["core/stats"]["bytes"] == 3
    assert json.loads(reported)["core/stats"]["checking"][1] is None


async def test_no_file_of_an_incident_holds_a_secret(tmp_path: Path) -> None:
    """The remote control of the one that is asked here answers with an error, which takes the secret's part."""
    settings = Settings.model_validate(
        {
            "remotes": {"r": {"type": "local"}},
            "mounts": {"m": {"remote": "r:/", "path": str(tmp_path / "m"), "cache": {"dir": str(tmp_path / "c")}}},
            "control": {"socket": str(tmp_path / "s")},
            "state": str(tmp_path / "state"),
            "runtime": str(tmp_path / "run"),
        }
    )
    found = binary.find(BUNDLED_RCLONE)
    conf = ConfFile(tmp_path / "rclone.conf", found)
    engine = Engine("m", settings, Instance.of(settings.state, settings.runtime), found, conf)
    engine.child = spawn(["sleep", "60"], {"PATH": os.environ["PATH"]}, lambda _: None)
    try:
        kept = await keep(tmp_path, engine, "hung", "a cause", dump=False)
        assert kept is not None
        stats = json.loads((kept / "stats.json").read_text())
        assert json.loads((kept / "incident.json").read_text())["time"].endswith("Z")
        secret = stats["vfs/stats"].rpartition(": ")[2]
        assert len(secret) > 5
        conf.secrets = (secret,)
        kept = await keep(tmp_path, engine, "hung", "a cause", dump=False)
        assert kept is not None
        hidden = masked(stats, lambda text: mask(text, [secret]))
        assert json.loads((kept / "stats.json").read_text()) == hidden != stats
        assert not [path for path in kept.iterdir() if secret in path.read_text()]
    finally:
        engine.child.signal(signal.SIGKILL)
        await engine.child.wait()
        engine.child.release()
