"""`doctor --try-write` with real stores: keys that may write are pointed out, and what was tried is gone again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import yaml

from mountd.cli import examine_write
from mountd.cli.examine import Check
from mountd.rclone import binary as binaries
from mountd.settings.load import Places, parse
from tests.support.faults import Failure
from tests.support.proxy import Proxy
from tests.support.s3 import ACCESS_KEY_ID, RCLONE, SECRET_ACCESS_KEY, RcloneS3

DENIED = Failure(403, "AccessDenied")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def tried(tmp_path: Path, endpoint: str, profile: str = "model-hub", remote: str = "s:data/hub") -> list[Check]:
    text = yaml.safe_dump(
        {
            "remotes": {
                "s": {
                    "type": "s3",
                    "provider": "Other",
                    "endpoint": endpoint,
                    "access_key_id": ACCESS_KEY_ID,
                    "secret_access_key": SECRET_ACCESS_KEY,
                }
            },
            "mounts": {"m": {"remote": remote, "path": f"{tmp_path}/m", "profile": profile}},
            "rclone": {"binary": str(RCLONE)},
            "allow_plain_secrets": True,
        }
    )
    settings = parse(text, "x.yaml", Places(tmp_path / "state", tmp_path / "cache", tmp_path / "run")).settings
    return asyncio.run(examine_write.rights(settings, binaries.find(RCLONE)))


def test_keys_that_may_write_are_pointed_out_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "s3").mkdir()
    with RcloneS3(tmp_path / "s3") as store, Proxy(store.endpoint) as proxy:
        store.create_bucket("data")
        store.put("data", "hub/v1", b"{}")
        (check,) = tried(tmp_path, proxy.endpoint)
        assert (check.name, check.result) == ("write of m", "warn")
        assert "s3:GetObject" in check.hint
        assert proxy.counts.kinds["PUT"] == 1
        assert [path.name for path in (tmp_path / "s3").rglob("*") if path.is_file()] == ["v1"]

        (check,) = tried(tmp_path, proxy.endpoint, remote="s:data")
        assert (check.result, proxy.counts.kinds["PUT"], proxy.counts.kinds["DELETE"]) == ("warn", 2, 2)
        assert [path.name for path in (tmp_path / "s3").iterdir()] == ["data"], "no other bucket"

        proxy.faults.fail = {"DELETE": DENIED}
        (check,) = tried(tmp_path, proxy.endpoint)
        assert check.result == "fail"
        (left,) = (path.name for path in (tmp_path / "s3").rglob(f"{examine_write.PREFIX}*"))
        assert left in check.text

        proxy.faults.fail = {"PUT": DENIED}
        (check,) = tried(tmp_path, proxy.endpoint)
        assert check.result == "ok"

        proxy.down()
        (check,) = tried(tmp_path, proxy.endpoint)
        assert (check.result, bool(check.hint)) == ("warn", True)
        assert tried(tmp_path, proxy.endpoint, "outputs") == [], "which is meant to write"
