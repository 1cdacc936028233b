"""What doctor says of outboxes: of bucket and keys with real stores, of a directory that lies on a real mount."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.cli import examine_bucket, examine_outbox, examine_write
from mountd.cli.examine import Check
from mountd.cli.main import main
from mountd.rclone import binary as binaries
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings
from tests.support.faults import Failure
from tests.support.mounts import mounting
from tests.support.policies import RESULTS, EnforcingS3
from tests.support.proxy import Proxy
from tests.support.s3 import ACCESS_KEY_ID, RCLONE, SECRET_ACCESS_KEY, RcloneS3

DENIED = Failure(403, "AccessDenied")
WELL = {"style of results": "ok", "signature of results": "ok", "bucket of results": "ok", "write of results": "ok"}


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def room() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="mountd-t-"))  # tmp_path would not fit into a Unix socket's address
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def bucket(room: Path) -> Path:
    """In whose place the proxy stands."""
    path = room / "s3" / "data"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def proxy(bucket: Path) -> Iterator[Proxy]:
    with RcloneS3(bucket.parent) as store, Proxy(store.endpoint) as found:
        yield found


def written(room: Path, endpoint: str, remote: str = "s:data/outputs", **options: Any) -> dict[str, Any]:
    """An outbox; and a mount, which may write."""
    given = {"type": "s3", "provider": "Other", "endpoint": endpoint, "access_key_id": ACCESS_KEY_ID}
    cache = {"dir": f"{room}/cache", "min_free": "1M"}
    return {
        "remotes": {"s": {**given, "secret_access_key": SECRET_ACCESS_KEY, **options}, "l": {"type": "local"}},
        "mounts": {"m": {"remote": "l:/", "path": f"{room}/m", "profile": "outputs", "cache": cache}},
        "outbox": {"results": {"directory": f"{room}/out", "remote": remote, "min_free": "1M"}},
        "rclone": {"binary": str(RCLONE)},
        "allow_plain_secrets": True,
        "state": f"{room}/state",
        "runtime": f"{room}/run",
    }


def settings(room: Path, endpoint: str, remote: str = "s:data/outputs", **options: Any) -> Settings:
    text = yaml.safe_dump(written(room, endpoint, remote, **options))
    return parse(text, "x.yaml", Places(room / "state", room / "cache", room / "run")).settings


def examined(given: Settings) -> dict[str, Check]:
    """The lines of the outbox about its bucket, with --try-write."""

    async def checks() -> list[Check]:
        binary = binaries.find(RCLONE)
        return [*await examine_bucket.buckets(given, binary), *await examine_write.rights(given, binary)]

    found = asyncio.run(checks())
    assert SECRET_ACCESS_KEY not in str(found)
    return {check.name: check for check in found if check.name.endswith("of results")}


def results(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.result for name, check in checks.items()}


def test_keys_that_may_do_all_of_it(room: Path, proxy: Proxy, bucket: Path) -> None:
    for remote in ("s:data/outputs", "s:data", "s:data/outputs/"):
        assert results(examined(settings(room, proxy.endpoint, remote))) == WELL
        (bucket / "outputs").mkdir(exist_ok=True)
        (bucket / "outputs" / "a.wav").write_bytes(b"sound")
    assert proxy.counts.kinds["PUT"] == proxy.counts.kinds["DELETE"] == 3
    assert [path.name for path in bucket.parent.rglob("*") if path.is_file()] == ["a.wav"]
    assert not (room / "out").exists()


def test_what_keys_may_not_do(room: Path, proxy: Proxy, bucket: Path) -> None:
    given = settings(room, proxy.endpoint)
    proxy.faults.fail = {"LIST": DENIED}
    checks = examined(given)
    assert results(checks) == {name: "ok" for name in WELL if name != "style of results"}
    assert "--try-write" in checks["bucket of results"].text

    proxy.faults.fail = {"PUT": DENIED}
    checks = examined(given)
    assert results(checks) == WELL | {"write of results": "fail"}
    assert "s3:PutObject" in checks["write of results"].hint
    assert not list(bucket.rglob("*"))

    proxy.faults.fail = {"HEAD": DENIED, "GET": DENIED}
    checks = examined(given)
    assert results(checks) == WELL | {"write of results": "fail"}
    assert "s3:GetObject" in checks["write of results"].hint

    proxy.faults.fail = {"DELETE": Failure(500, "InternalError")}
    checks = examined(given)
    assert results(checks) == WELL | {"write of results": "warn"}
    assert checks["write of results"].hint


def test_a_store_that_is_not_there_or_knows_no_such_bucket(room: Path, proxy: Proxy) -> None:
    checks = examined(settings(room, proxy.endpoint, "s:nothing/outputs"))
    assert {name: checks[name].result for name in ("bucket of results", "write of results")} == {
        "bucket of results": "fail",
        "write of results": "fail",
    }
    wrong = examined(settings(room, proxy.endpoint, access_key_id="SOMEBODYELSE"))
    assert {name: wrong[name].result for name in ("bucket of results", "signature of results", "write of results")} == {
        "bucket of results": "fail",
        "signature of results": "fail",
        "write of results": "fail",
    }
    proxy.down()
    checks = examined(settings(room, proxy.endpoint))
    assert results(checks) == {"bucket of results": "fail", "write of results": "fail"}
    assert all(check.hint for check in checks.values())


def test_a_place_that_is_no_bucket_is_made_by_the_first_upload(room: Path) -> None:
    place = room / "far" / "outputs"
    checks = examined(settings(room, "http://127.0.0.1:1", f"l:{place}"))
    assert results(checks) == {"bucket of results": "warn", "write of results": "ok"}
    assert not list(place.iterdir())
    assert results(examined(settings(room, "http://127.0.0.1:1", f"l:{place}"))) == {
        "bucket of results": "ok",
        "write of results": "ok",
    }


def test_a_results_writer_has_all_the_rights_that_are_needed(room: Path) -> None:
    """The policy of deploy/iam, in a store that enforces it."""
    with EnforcingS3() as store:
        store.enforce()
        key, secret = store.keys["s3", "results-writer"]
        keys = {"access_key_id": key, "secret_access_key": secret}
        checks = examined(settings(room, store.endpoint, f"s:{RESULTS}/outputs", **keys))
        assert results(checks) == {name: "ok" for name in WELL if name != "style of results"}
        assert examine_write.PREFIX in checks["write of results"].text, "it stays, and is named"
        checks = examined(settings(room, store.endpoint, f"s:{RESULTS}/elsewhere", **keys))
        assert checks["write of results"].result == "fail"

        key, secret = store.keys["s3", "hub-reader"]
        keys = {"access_key_id": key, "secret_access_key": secret}
        checks = examined(settings(room, store.endpoint, f"s:{RESULTS}/outputs", **keys))
        assert checks["write of results"].result == "fail"


@pytest.mark.fuse
def test_a_directory_on_a_mount_is_pointed_out_and_one_that_hangs_is_not_waited_for(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mounting(room) as mounts:
        process = mounts.start(str(room / "out"))
        monkeypatch.setattr(examine_outbox, "LOOK_S", 60.0)
        given = settings(room, "http://127.0.0.1:1")
        _, disk, *_ = asyncio.run(examine_outbox.directories(given))
        assert (disk.name, disk.result, mounts.source in disk.text) == ("disk of results", "warn", True)
        process.send_signal(signal.SIGSTOP)
        monkeypatch.setattr(examine_outbox, "LOOK_S", 1.0)
        (check,) = asyncio.run(examine_outbox.directories(given))
        assert (check.name, check.result, bool(check.hint)) == ("directory of results", "fail", True)
        process.send_signal(signal.SIGCONT)


def test_the_command_has_all_of_its_lines(
    room: Path, proxy: Proxy, bucket: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = room / "mountd.yaml"
    given = written(room, proxy.endpoint)
    given["notify"] = {"people": {"apprise": {"file": f"{room}/addresses"}}}
    (room / "addresses").write_text("json://127.0.0.1:1\n")
    file.write_text(yaml.safe_dump(given))
    wanted = {"notify people", "directory of results", "disk of results", "clock of s"} | WELL.keys()
    for words in ([], ["--try-write"]):
        main(["doctor", "-c", str(file), "-o", "json", *words])
        checks = {each["name"]: each["result"] for each in json.loads(capsys.readouterr().out)["checks"]}
        expected = wanted if words else wanted - {"write of results"}
        assert {name: result for name, result in checks.items() if name in wanted} == dict.fromkeys(expected, "ok")
    assert not list(bucket.rglob("*"))
    assert sorted(each.name for each in room.iterdir()) == ["addresses", "mountd.yaml", "s3"], "nothing was made"
