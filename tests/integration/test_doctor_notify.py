"""What doctor says of notifications to people: whether the real apprise is there, and addresses to write to."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from mountd import container
from mountd.cli import examine_notify
from mountd.cli.examine import Check
from mountd.files import worker_process
from mountd.settings.load import Places, check_secrets, parse
from mountd.settings.schema import Settings

SECRET = "jsons://127.0.0.1:1/SECRET99"


def settings(tmp_path: Path, *targets: str) -> Settings:
    notify = {name: {"apprise": {"file": f"{tmp_path}/{name}"}} for name in targets}
    text = f"""
remotes: {{s: {{type: s3, endpoint: "http://x"}}}}
mounts: {{m: {{remote: "s:b", path: /mnt/m}}}}
notify: {json.dumps({"ops": {"webhook": "http://127.0.0.1:1/"}, **notify})}
"""
    return parse(text, "x.yaml", Places(Path("/state"), Path("/cache"), Path("/run"))).settings


def examined(tmp_path: Path, *targets: str) -> dict[str, Check]:
    found = asyncio.run(examine_notify.people(settings(tmp_path, *targets)))
    assert SECRET not in str(found)
    return {check.name: check for check in found}


def test_each_target_that_writes_to_people(tmp_path: Path) -> None:
    (tmp_path / "well").write_text(f"# mail\n{SECRET}\n{SECRET}/2\n")
    (tmp_path / "empty").write_text("# nobody yet\n")
    checks = examined(tmp_path, "well", "empty", "gone")
    assert {name: (check.result, bool(check.hint)) for name, check in checks.items()} == {
        "notify well": ("ok", False),
        "notify empty": ("fail", True),
        "notify gone": ("ok", False),
    }
    assert "2 addresses" in checks["notify well"].text
    (problem,) = check_secrets(settings(tmp_path, "well", "gone"))
    assert f"{tmp_path}/gone" in problem.text, "which the line about secrets says"


def test_without_such_a_target_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(worker_process, "_spawn")
    assert examined(tmp_path) == {}


@pytest.mark.parametrize("in_container", [False, True])
def test_without_apprise_it_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_container: bool
) -> None:
    """As where the extra is not installed: the process sees no packages."""
    spawn = worker_process._spawn
    monkeypatch.setattr(worker_process, "_spawn", lambda *words, packages: spawn(*words, packages=False))
    monkeypatch.setattr(container, "is_here", lambda: in_container)
    (tmp_path / "one").write_text(SECRET)
    checks = examined(tmp_path, "one", "two")
    assert {name: check.result for name, check in checks.items()} == {"notify one": "fail", "notify two": "fail"}
    assert all("pip install 'mountd[notify]'" in check.hint for check in checks.values())
    assert all(("EXTRAS=rclone,notify" in check.hint) is in_container for check in checks.values())
