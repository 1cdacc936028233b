"""Draining: when it is over, what is told, what rclone is asked; what waits in a cache; how long an end may take."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cache import layout as disk
from mountd.cache.drain import Uploads
from mountd.cache.repair import is_whole, mend
from mountd.cache.uploads import (
    FAILING_TRIES,
    HURRY_AGAIN_S,
    NAMES,
    SILENT_S,
    Look,
    Pending,
    Tries,
    Verdict,
    judge,
    not_uploaded,
    progress,
    to_hurry,
)
from mountd.daemon.shutdown import stop_times
from mountd.files.client import Files
from mountd.mount.engine import Engine
from mountd.process.instance import Instance
from mountd.process.lifecycle import Kill, Life, Policy, Signalled, Terminate, Ticked, Unwanted, step
from mountd.rclone import binary
from mountd.rclone.address import RcAddress
from mountd.rclone.conf_file import ConfFile
from mountd.rclone.rc import RcClient, Upload
from mountd.settings.load import Places, load, parse
from mountd.settings.profiles import writes_back
from mountd.settings.schema import MountSettings, Settings
from mountd.status import readiness
from mountd.status.snapshot import DrainStatus, MountStatus, Snapshot, State
from tests.support.daemon import BUNDLED_RCLONE

ROOT = Path(__file__).parents[2]
PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
NOTHING, ONE = Pending(), Pending(1, 5, ("a.wav",))


@pytest.mark.parametrize(
    ("look", "now", "heard", "verdict"),
    [
        (Look(0, NOTHING), 0, 0, Verdict.DRAINED),
        (Look(0, NOTHING), 99, 99, Verdict.DRAINED),
        (Look(1, ONE), 59.9, 59, Verdict.WAITING),
        (Look(1, NOTHING), 1, 1, Verdict.WAITING),
        (Look(0, ONE), 1, 1, Verdict.WAITING),  # a program still writes it
        (Look(1, ONE), 60, 60, Verdict.EXPIRED),
        (Look(None, ONE), 9.9, 0, Verdict.WAITING),
        (Look(None, ONE), 10, 0, Verdict.SILENT),
        (Look(None, NOTHING), 0, 0, Verdict.DRAINED),  # a silent rclone with nothing on disk has nothing to upload
        (Look(None, ONE), 60, 0, Verdict.EXPIRED),
    ],
)
def test_when_a_drain_is_over(look: Look, now: float, heard: float, verdict: Verdict) -> None:
    assert SILENT_S == 10
    assert judge(look, now=now, heard=heard, deadline=60) is verdict


looks = st.builds(
    Look,
    st.none() | st.integers(0, 9),
    st.builds(lambda files, size: Pending(files, files * size), st.integers(0, 9), st.integers(0, 99)),
)


@given(looks, st.floats(0, 100), st.floats(0, 100))
def test_nothing_that_waits_is_ever_called_drained(look: Look, now: float, heard: float) -> None:
    drained = judge(look, now=now, heard=heard, deadline=60) is Verdict.DRAINED
    assert drained == (not look.pending.files and not look.busy)


@given(st.lists(looks, min_size=1))
def test_progress_never_tells_more_left_than_there_is(steps: list[Look]) -> None:
    told: DrainStatus | None = None
    for look in steps:
        before, told = told, progress(told, look)
        assert 0 <= told.open <= told.files_left <= told.files
        assert told.bytes_left == look.pending.bytes
        assert before is None or told.files >= before.files


def test_progress_in_words() -> None:
    begun = progress(None, Look(7, Pending(7, 28 << 20)))
    assert begun == DrainStatus(7, 7, 28 << 20)
    later = progress(begun, Look(2, Pending(3, 12 << 20)))
    assert str(later) == "3 of 7 files left, 12 MiB, 1 open for writing"
    assert str(progress(later, Look(0, Pending(4, 13 << 20)))).startswith("4 of 8 files left")


def test_systemd_is_told_what_a_stop_waits_for() -> None:
    mounts = {"outputs": MountStatus("/m", "s:b", drain=DrainStatus(7, 3, 12 << 20))}
    assert readiness.headline(Snapshot(mounts, stopping=True)) == "stopping: outputs uploads, 3 of 7 files left, 12 MiB"


def test_only_what_waits_for_the_time_is_hurried_and_not_all_the_time() -> None:
    waiting = Upload(1, "a", 5, 0, 1.5, False)
    queue = [waiting, replace(waiting, id=2, uploading=True), replace(waiting, id=3, due_s=-0.1)]
    assert to_hurry(queue, {}, 100.0) == [1]
    assert to_hurry(queue, {1: 100.0}, 100.0 + HURRY_AGAIN_S - 0.1) == []
    assert to_hurry(queue, {1: 100.0}, 100.0 + HURRY_AGAIN_S) == [1]


FAILED = (
    "vfs cache: failed to upload try #{}, will retry in 2s: vfs cache: failed to transfer file from cache to remote: "
    "AccessDenied: no"
)


def test_uploads_that_fail_again_and_again_are_told() -> None:
    tries = Tries().heard("vfs cache: queuing for upload in 1s")
    for number in range(1, FAILING_TRIES):
        tries = tries.heard(FAILED.format(number))
        assert tries.reason("outputs", 2) is None
    tries = tries.heard(FAILED.format(FAILING_TRIES)).heard("something else")
    assert tries.cause == "AccessDenied: no"
    reason = tries.reason("outputs", 2)
    assert reason is not None
    assert reason.code == "uploads-failing"
    assert reason.text.startswith("cannot upload 2 files of mount outputs, tried 3 times: ")
    assert "nothing is lost" in reason.hint
    assert tries.reason("outputs", 0) is None
    assert tries.heard("vfs cache: upload succeeded try #1").failed  # of a file that never failed
    assert not tries.heard("vfs cache: upload succeeded try #4").failed


def test_what_is_left_is_told_with_some_names() -> None:
    reason = not_uploaded("outputs", Pending(12, 3 << 20, ("a", "b")), "/cache")
    assert reason.text == "12 files (a, b and 10 more; 3 MiB) of mount outputs are not uploaded yet"
    assert "/cache" in reason.hint
    assert not_uploaded("o", ONE, "/c").text == "1 file (a.wav; 5 bytes) of mount o is not uploaded yet"


# -- the cache on disk ----------------------------------------------------------------------------------------------


def put(cache: Path, path: str, *, dirty: bool, data: bytes | None = b"12345", text: str = "") -> None:
    whole = {"Size": len(data or b""), "Rs": [{"Pos": 0, "Size": len(data or b"")}]}
    meta = cache / "vfsMeta" / path
    meta.parent.mkdir(parents=True, exist_ok=True)
    meta.write_text(text or json.dumps({"ModTime": "2026-01-01T00:00:00Z", **whole, "Dirty": dirty}))
    if data is not None:
        file = cache / "vfs" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def test_what_waits_is_read_from_the_cache(tmp_path: Path) -> None:
    assert disk.pending(tmp_path) == NOTHING  # a cache that was never used
    here = "store{Dn7qA}/bucket"
    put(tmp_path, f"{here}/d/名 前.wav", dirty=True)
    put(tmp_path, f"{here}/uploaded", dirty=False)
    put(tmp_path, f"{here}/removed", dirty=True, data=None)
    put(tmp_path, f"{here}/being-written", dirty=True, text='{"Dir')
    put(tmp_path, f"{here}/list", dirty=True, text="[]")
    put(tmp_path, "store/other/old.wav", dirty=True)
    meta = str(tmp_path / "vfsMeta" / here)
    assert disk.pending(tmp_path, meta) == Pending(2, 10, ("being-written", "d/名 前.wav"))
    assert disk.stranded(tmp_path, meta) == Pending(1, 5, ("store/other/old.wav",))
    assert disk.pending(tmp_path).files == 3


def test_names_of_what_waits_are_bounded(tmp_path: Path) -> None:
    for number in range(30):
        put(tmp_path, f"r/b/{number:02}", dirty=True)
    names = tuple(f"r/b/{number:02}" for number in range(NAMES))
    assert disk.pending(tmp_path) == Pending(30, 150, names)


def test_torn_metadata_is_mended_so_that_the_file_is_uploaded(tmp_path: Path) -> None:
    put(tmp_path, "r/b/torn", dirty=True, text='{"Dir')
    put(tmp_path, "r/b/nothing", dirty=True, text="{", data=b"")
    put(tmp_path, "r/b/fine", dirty=True)
    done = mend(tmp_path)
    assert (done.waiting, sorted(each.name for each in done.leftovers)) == (3, ["r/b/fine", "r/b/nothing", "r/b/torn"])
    assert sorted(done.mended) == ["r/b/nothing", "r/b/torn"]
    record = json.loads((tmp_path / "vfsMeta/r/b/torn").read_text())
    assert (record["Dirty"], record["Size"], record["Rs"]) == (True, 5, [{"Pos": 0, "Size": 5}])
    assert json.loads((tmp_path / "vfsMeta/r/b/nothing").read_text())["Rs"] is None
    assert mend(tmp_path).mended == ()


@pytest.mark.parametrize("rs", [None, [], [{"Pos": 0, "Size": 2}], [{"Pos": 1, "Size": 4}], 3])
@pytest.mark.parametrize("fingerprint", ["", "4,2026-01-01 00:00:00 +0000 UTC,abc"])
def test_a_record_of_the_first_write_alone_is_mended(tmp_path: Path, rs: object, fingerprint: str) -> None:
    record = {"Size": 0, "Rs": rs, "Fingerprint": fingerprint, "Dirty": True}
    put(tmp_path, "r/b/new", dirty=True, text=json.dumps(record))
    assert mend(tmp_path).mended == ("r/b/new",)
    mended = json.loads((tmp_path / "vfsMeta/r/b/new").read_text())
    assert (mended["Dirty"], mended["Size"], mended["Rs"]) == (True, 5, [{"Pos": 0, "Size": 5}])


@pytest.mark.parametrize(("fingerprint", "mended"), [("", ("r/b/holes",)), ("4,x", ())])
def test_holes_are_content_only_where_no_object_has_some(
    tmp_path: Path, fingerprint: str, mended: tuple[str, ...]
) -> None:
    put(tmp_path, "r/b/holes", dirty=True, text=json.dumps({"Size": 5, "Fingerprint": fingerprint, "Dirty": True}))
    os.truncate(tmp_path / "vfs/r/b/holes", 10 << 20)
    assert mend(tmp_path).mended == mended


def test_only_a_hole_makes_a_file_less_than_whole(tmp_path: Path) -> None:
    """Not how much room it takes: a compressed file takes less, and what was only reserved is no content."""
    put(tmp_path, "r/b/torn", dirty=True, text="{")
    data = tmp_path / "vfs/r/b/torn"
    data.write_bytes(os.urandom(1 << 20))
    meta = str(tmp_path / "vfsMeta/r/b/torn")
    found = os.lstat(data)
    compressed = os.stat_result((*found[:10],), {"st_blocks": 8})
    assert (compressed.st_size, compressed.st_blocks) == (1 << 20, 8)
    assert is_whole(tmp_path, meta, compressed)
    with data.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 2 << 20)
    assert mend(tmp_path).rescued == ("r/b/torn",)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rescued", "vfs", "vfsMeta"]


def test_what_is_perhaps_not_whole_is_put_aside_and_not_uploaded(tmp_path: Path) -> None:
    put(tmp_path, "r/b/torn", dirty=False, text="{")
    with (tmp_path / "vfs/r/b/torn").open("r+b") as file:
        file.truncate(10 << 20)
    done = mend(tmp_path)
    assert (done.waiting, done.rescued) == (0, ("r/b/torn",))
    assert (tmp_path / "rescued/r/b/torn").stat().st_size == 10 << 20
    assert not (tmp_path / "vfsMeta/r/b/torn").exists()
    assert not (tmp_path / "vfs/r/b/torn").exists()


def test_content_that_rclone_has_lost_is_forgotten(tmp_path: Path) -> None:
    lost = {"Size": 0, "Rs": None, "Dirty": False, "Fingerprint": "200000,2026-01-01 00:00:00 +0000 UTC,abc"}
    put(tmp_path, "r/b/lost", dirty=False, data=b"", text=json.dumps(lost))
    put(tmp_path, "r/b/empty", dirty=False, data=b"", text=json.dumps(lost | {"Fingerprint": "0,x"}))
    put(tmp_path, "r/b/unknown", dirty=False, data=b"", text=json.dumps(lost | {"Fingerprint": "-1,x"}))
    put(tmp_path, "r/b/changed", dirty=True, data=b"", text=json.dumps(lost | {"Dirty": True}))
    assert mend(tmp_path).emptied == ("r/b/lost",)
    left = sorted(path.name for path in (tmp_path / "vfsMeta/r/b").iterdir())
    assert left == sorted(path.name for path in (tmp_path / "vfs/r/b").iterdir()) == ["changed", "empty", "unknown"]


# -- how long an end may take ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "options", "waits"),
    [
        ("model-hub", {}, False),
        ("model-hub", {"read-only": False}, True),
        ("outputs", {}, True),
        ("outputs", {"vfs-cache-mode": "off"}, False),
        ("outputs", {"read-only": True}, False),
        ("plain", {}, True),
        ("plain", {"vfs-cache-mode": "minimal"}, True),
    ],
)
def test_which_mounts_are_drained(profile: str, options: dict[str, object], waits: bool) -> None:
    mount = MountSettings.model_validate(
        {"remote": "s:b", "path": "/m", "profile": profile, "cache": {"dir": "/c"}, "options": options}
    )
    assert writes_back(mount) is waits


def settings_of(mount: str):
    text = f"remotes: {{s: {{type: s3, endpoint: 'http://x'}}}}\nmounts: {{m: {{remote: 's:b', path: /m, {mount}}}}}\n"
    return parse(text, "x.yaml", PLACES)


def test_a_stop_may_take_as_long_as_the_drain_needs() -> None:
    reads = stop_times(settings_of("profile: model-hub").settings).total_s
    assert stop_times(settings_of("profile: outputs, drain: 0s").settings).total_s >= reads
    short, long = (stop_times(settings_of(f"profile: outputs, drain: {each}").settings) for each in ("10s", "100s"))
    assert long.total_s - short.total_s == 90


def test_a_drain_of_what_is_never_written_is_of_no_use() -> None:
    assert [str(each) for each in settings_of("profile: model-hub, drain: 5s").warnings if "drain" in str(each)]
    assert not [str(each) for each in settings_of("profile: outputs, drain: 5s").warnings if "drain" in str(each)]


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_systemd_waits_longer_than_any_stop_takes(path: Path) -> None:
    unit = (ROOT / "systemd" / "mountd.service").read_text()
    limit = re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert limit is not None
    settings = load(path, places=PLACES).settings
    name, mount = next(iter(settings.mounts.items()))
    outputs = mount.model_copy(update={"profile": "outputs"})  # as the example there, with the default drain
    assert stop_times(settings.model_copy(update={"mounts": {name: mount, "outputs": outputs}})).total_s < int(limit[1])


POLICY = Policy(grace_s=10.0, prepare_s=60.0)
RUNNING = Life(State.RUNNING, wanted=True, child=True)


def test_patience_begins_anew_with_the_signal() -> None:
    life, actions = step(RUNNING, Unwanted(), 100.0, POLICY)
    assert (life.due, actions) == (170.0, (Terminate(),))
    signalled, actions = step(life, Signalled(), 105.0, POLICY)
    assert (signalled.due, actions) == (115.0, ())
    assert step(signalled, Ticked(), 115.0, POLICY)[1] == (Kill(),)
    assert step(life, Signalled(), 165.0, POLICY)[0].due == 170.0  # never longer than promised
    killed, _ = step(life, Ticked(), 170.0, POLICY)
    assert step(killed, Signalled(), 170.0, POLICY)[0].due is None
    assert step(RUNNING, Signalled(), 100.0, POLICY) == (RUNNING, ())


async def test_a_mount_that_becomes_read_only_forgets_what_its_former_profile_left(tmp_path: Path) -> None:
    """A reload keeps the object: the next rclone writes nothing, so there is no upload to wait for."""
    settings = Settings.model_validate(
        {
            "remotes": {"r": {"type": "local"}},
            "mounts": {
                name: {
                    "remote": f"r:/{name}",
                    "path": str(tmp_path / name),
                    "profile": profile,
                    "cache": {"dir": str(tmp_path / "cache")},
                }
                for name, profile in (("before", "outputs"), ("after", "model-hub"))
            },
            "control": {"socket": str(tmp_path / "s")},
            "state": str(tmp_path / "state"),
            "runtime": str(tmp_path / "run"),
        }
    )
    found = binary.find(BUNDLED_RCLONE)
    conf, instance = ConfFile(tmp_path / "rclone.conf", found), Instance.of(settings.state, settings.runtime)
    engine = Engine("before", settings, instance, found, conf)
    uploads = Uploads("before", settings.mounts["before"], engine, lambda change: None)
    put(tmp_path / "cache", "store/bkt/gone/a.wav", dirty=True)
    await uploads.mend()
    assert engine.reopens

    uploads.begin(settings.mounts["after"])
    await uploads.mend()
    assert not engine.reopens
    uploads.noticed({"diskCache": {"pathMeta": str(tmp_path / "cache" / "vfsMeta" / "store" / "bkt")}})
    engine._rc = RcClient(RcAddress("nobody", "answers", socket=tmp_path / "none"))
    await uploads.hold()
    await uploads.reopen(str(tmp_path), Files("test", {}))
