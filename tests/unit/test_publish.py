"""Publishing: what may be a version, what is sent, what a manifest says, and what a killed run leaves."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.errors import Busy, MountdError, NotFound, Refused, UsageError
from mountd.model import manifest
from mountd.publish import hashing, plan
from mountd.publish.plan import File, Stored
from mountd.publish.record import FileHashes, FileIdentity, Record, open_record
from mountd.publish.run import Asked, look_at

ASKED = Asked("v23", (), 2)
PATHS = st.text("ab/声 .#", min_size=1, max_size=8)
MANIFEST_PATHS = PATHS.filter(lambda path: not manifest.path_problem(path))
FILES = st.dictionaries(
    PATHS, st.builds(File, st.integers(0, 3), st.sampled_from(["s1", "s2"]), st.sampled_from(["m1", "m2"]))
)
BUCKETS = st.dictionaries(PATHS, st.builds(Stored, st.integers(0, 3), st.sampled_from(["", "m1", "m2"])))


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


# -- plan -------------------------------------------------------------------------------------------------------------


@given(FILES, BUCKETS, st.dictionaries(PATHS, st.sampled_from(["s1", "s2"])))
def test_after_what_is_missing_was_sent_nothing_is(
    wanted: dict[str, File], found: dict[str, Stored], sent: dict[str, str]
) -> None:
    missing = plan.problems(wanted, found, sent)
    for md5 in (True, False):  # the store reports hashes of what was sent, or none
        after = found | {path: Stored(wanted[path].size, wanted[path].md5 if md5 else "") for path in missing}
        assert plan.problems(wanted, after, sent | {path: wanted[path].sha256 for path in missing}) == {}


@pytest.mark.parametrize(
    ("stored", "sent", "named"),
    [
        (None, {"a": "s"}, "missing"),
        (Stored(1, "m"), {}, ""),
        (Stored(1, "m"), None, ""),
        (Stored(1, "x"), {"a": "s"}, "MD5 x"),  # the store's word counts, not ours
        (Stored(1, "x"), None, "MD5 x"),
        (Stored(2, "m"), {"a": "s"}, "2 bytes"),
        (Stored(1), {"a": "s"}, ""),
        (Stored(1), {}, "same size"),
        (Stored(1), {"a": "former"}, "same size"),
        (Stored(1), None, ""),
    ],
)
def test_what_is_wrong_with_an_object(stored: Stored | None, sent: dict[str, str] | None, named: str) -> None:
    found = {"beyond": Stored(1)} if stored is None else {"a": stored, "beyond": Stored(1)}
    problems = plan.problems({"a": File(1, "s", "m")}, found, sent)
    assert [*problems] == ["a"] * bool(named)
    assert named in problems.get("a", "")


@pytest.mark.parametrize(
    ("message", "path"),
    [
        ("Copied (new)", "x"),
        ("Copied (replaced existing)", "x"),
        ("Multi-thread Copied (new)", "x"),
        ("Failed to copy: Copied nothing", ""),
    ],
)
def test_which_files_rclone_reports_as_sent(message: str, path: str) -> None:
    assert plan.copied({"level": "info", "msg": message, "object": "x", "size": 1}) == path
    assert plan.copied({"level": "info", "msg": message.partition("(")[0]}) == ""


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a\udcff", "UTF-8"),
        ("a\nb", "control"),
        ("a\x7fb", "control"),
        ("／x", "stand-in"),
        ("a/．．/x", "stand-in"),
        ("x" * 256, "255 bytes"),
        ("声" * 86, "255 bytes"),
        ("/".join(["x" * 200] * 6), "too long"),
        (f"{manifest.MARKER}0a", "mark"),
    ],
)
def test_names_that_cannot_be_objects(path: str, why: str) -> None:
    assert why in plan.name_problem(path, "cache_hub_v23")


@pytest.mark.parametrize("path", ["声音 模型.safetensors", "take#2.pth", ".hidden", "a b/c", "x" * 255, "a．b", "‘a’"])
def test_names_that_can(path: str) -> None:
    assert plan.name_problem(path, "cache_hub_v23") == ""


@pytest.mark.parametrize(
    ("remote", "where", "prefix"),
    [
        ("s:b", "s:b/v1", "v1"),
        ("s:b/", "s:b/v1", "v1"),
        ("s:b/in/side/", "s:b/in/side/v1", "in/side/v1"),
        ("s:", "s:v1", ""),
    ],
)
def test_where_a_version_lies(remote: str, where: str, prefix: str) -> None:
    assert (plan.place(remote, "v1"), plan.key_prefix(remote, "v1")) == (where, prefix)


def test_what_the_bucket_holds() -> None:
    entries = [
        {"Path": "a/b", "Size": 3, "Hashes": {"md5": "m"}},
        {"Path": "c", "Size": 0},
        {"Path": "MANIFEST.json", "Size": 9},
        {"Path": ".mountd-publishing-1", "Size": 9},
        {"Path": "a/MANIFEST.json", "Size": 1},
    ]
    seen = plan.bucket(entries)
    assert seen.files == {"a/b": Stored(3, "m"), "c": Stored(0), "a/MANIFEST.json": Stored(1)}
    assert (seen.manifest, seen.markers, seen.empty) == (True, frozenset({".mountd-publishing-1"}), False)
    assert plan.bucket([]).empty


# -- manifest ---------------------------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        MANIFEST_PATHS, st.tuples(st.integers(0, 9), st.binary(max_size=3).map(sha)), min_size=1, max_size=5
    )
)
def test_a_manifest_is_read_back_and_says_the_same_each_time(files: dict[str, tuple[int, str]]) -> None:
    rows = [(path, size, digest) for path, (size, digest) in files.items()]
    data = manifest.render("v23", rows, created="2026-01-01T00:00:00Z", tool="t")
    assert data == manifest.render("v23", reversed(rows), created="2026-01-01T00:00:00Z", tool="t")
    parsed = manifest.parse(data)
    assert (parsed.version, parsed.files) == ("v23", {path: size for path, size, _ in rows})
    wanted = {path: File(size, digest, "m") for path, size, digest in rows}
    assert plan.differences(data, "v23", wanted) == []
    (other,) = plan.differences(data, "v24", wanted)
    assert other.split()[-1] == "v23"


def test_how_a_manifest_differs() -> None:
    a, b = sha(b"a"), sha(b"b")
    data = manifest.render("v", [("a", 1, a), ("b", 1, b), ("c", 1, a)], created="x", tool="t")
    found = plan.differences(data, "v", {"a": File(1, a, ""), "b": File(1, a, ""), "d": File(1, a, "")})
    assert [text.split()[0] for text in found] == ["d", "c", "b"]
    bare = json.dumps({"schema": 1, "version": "v", "files": [{"path": "a", "size": 1}]}).encode()
    (text,) = plan.differences(bare, "v", {"a": File(1, a, "")})
    assert [text.split()[0], "digest" in text] == ["a", True]
    assert "truncated" in plan.differences(data[:40], "v", {})[0]


# -- the local directory ----------------------------------------------------------------------------------------------


def test_links_of_a_hugging_face_cache(tmp_path: Path) -> None:
    hub = "models--a--b"
    write(tmp_path, {f"{hub}/blobs/d1": b"1", f"{hub}/blobs/d2.incomplete": b"2", f"{hub}/refs/main": b"r"})
    snapshot = tmp_path / hub / "snapshots" / "r"
    (snapshot / "sub").mkdir(parents=True)
    (snapshot / "model.bin").symlink_to("../../blobs/d1")
    (snapshot / "sub" / "again.bin").symlink_to("../../../blobs/d1")
    (tmp_path / "live").symlink_to(f"{hub}/snapshots/r")
    (tmp_path / "MANIFEST.json").write_text("of another")
    tree = hashing.scan(str(tmp_path))
    assert sorted(tree.files) == [
        "live/model.bin",
        "live/sub/again.bin",
        f"{hub}/blobs/d2.incomplete",
        f"{hub}/refs/main",
        f"{hub}/snapshots/r/model.bin",
        f"{hub}/snapshots/r/sub/again.bin",
    ]
    assert (tree.left_out, tree.problems) == (["MANIFEST.json", f"{hub}/blobs/d1"], [])


def test_what_cannot_be_published(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"x": b"1"})
    root = write(tmp_path / "root", {"a/b": b"1"})
    (root / "out").symlink_to(outside / "x")
    (root / "beside").symlink_to(f"{root}-2")
    (root / "gone").symlink_to("nothing")
    (root / "a" / "up").symlink_to("..")
    os.mkfifo(root / "pipe")
    problems = hashing.scan(str(root)).problems
    assert [text.split()[0] for text in problems] == ["'a/up'", "'beside'", "'gone'", "'out'", "'pipe'"]
    assert (problems[1].split()[-1], problems[3].split()[-1]) == (f"{root}-2", str(outside / "x"))
    with pytest.raises(Refused, match=f"{root}: 'a/up' .*; 'beside' "):
        look_at(str(root), ASKED, "p")


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    write(tmp_path, {"a/b/x": b"1"})
    (tmp_path / "a" / "b" / "up").symlink_to("../../a")
    (problem,) = hashing.scan(str(tmp_path)).problems
    assert problem.startswith("'a/b/up' ")


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        look_at(str(tmp_path / "none"), ASKED, "p")
    with pytest.raises(UsageError):
        look_at(str(write(tmp_path, {"f": b""}) / "f"), ASKED, "p")
    (tmp_path / "empty" / "in").mkdir(parents=True)
    with pytest.raises(Refused, match=f"{tmp_path}/empty: .*no files"):
        look_at(str(tmp_path / "empty"), ASKED, "p")


def test_what_the_model_requires(tmp_path: Path) -> None:
    write(tmp_path, {"a": b"1", "b": b""})
    asked = Asked("v23", ("a", "b", "c"), 2)
    with pytest.raises(Refused, match=f"{tmp_path}: b [^;]*; c [^;]*$"):
        look_at(str(tmp_path), asked, "p")


# -- digests and the record -------------------------------------------------------------------------------------------


async def digests(root: Path, state: Path) -> tuple[dict[str, File], int]:
    """The digests, and how many bytes had to be read for them."""
    read = [0]
    record = await open_record(state, "d")
    try:
        found = await hashing.digests(hashing.scan(str(root)), record, 3, lambda done, _: read.append(done))
    finally:
        record.close()
    return found, read[-1]


async def test_nothing_is_read_twice_unless_it_changed(tmp_path: Path) -> None:
    files = {f"{name}": name.encode() * 1000 for name in "abc"}
    root, state = write(tmp_path / "root", files), tmp_path / "state"
    (root / "link").symlink_to("a")
    found, read = await digests(root, state)
    assert read == 3000
    assert found == {
        name: File(1000, sha(files[name[-1]]), hashlib.md5(files[name[-1]]).hexdigest()) for name in "abc"
    } | {"link": found["a"]}
    assert await digests(root, state) == (found, 0)

    before = (root / "b").stat()
    (root / "b").write_bytes(b"X" * 1000)
    os.utime(root / "b", ns=(before.st_atime_ns, before.st_mtime_ns))  # as `cp -p` and rsync do
    again, read = await digests(root, state)
    assert (read, again["b"].sha256) == (1000, sha(b"X" * 1000))


async def test_another_directory_is_read_again(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, {"a": b"1" * 10}) for name in ("first", "second"))
    await digests(first, tmp_path / "state")
    assert (await digests(second, tmp_path / "state"))[1] == 10


async def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    tree = hashing.scan(str(write(tmp_path / "root", {"a": b"1", "b": b"2"})))
    (tmp_path / "root" / "a").write_bytes(b"longer")
    record = await open_record(tmp_path / "state", "d")
    try:
        with pytest.raises(MountdError, match=f"{tmp_path}/root/a: ") as refused:
            await hashing.digests(tree, record, 2, lambda *_: None)
        assert refused.value.hint == hashing.CHANGED_HINT
    finally:
        record.close()
    assert [path for path in tree.files if not hashing.unchanged(tree, path)] == ["a"]


async def test_a_record_cut_anywhere_is_of_use(tmp_path: Path) -> None:
    """A killed run leaves a part of a line; the id must survive, or its own marker becomes a stranger's."""
    record = await open_record(tmp_path, "d")
    name, path = record.id, record.place / "record.jsonl"
    begun = len(path.read_bytes())
    seen, digests = FileIdentity(1, 2, 3, 4, 5, "/root/声"), FileHashes("s", "m")
    record.note_digests(seen, digests)
    record.note_sent("声", "s")
    record.close()
    whole = path.read_bytes()
    for size in range(begun, len(whole) + 1):
        path.write_bytes(whole[:size])
        again = await open_record(tmp_path, "d")
        assert again.id == name
        assert again.digests in ({}, {seen: digests})
        assert set(again.sent.items()) <= {("声", "s")}
        again.note_sent("later", "t")
        again.close()
        later = await open_record(tmp_path, "d")  # what is added behind a part of a line is not lost with it
        assert (later.id, later.digests, later.sent) == (name, again.digests, again.sent)
        later.close()
    path.write_bytes(whole)
    again = await open_record(tmp_path, "d")
    assert (again.digests, again.sent) == ({seen: digests}, {"声": "s"})
    again.forget()
    again.close()
    assert os.listdir(tmp_path / "publish") == []


async def test_a_full_disk_of_the_record_is_reported_as_that(tmp_path: Path) -> None:
    record = await open_record(tmp_path, "d")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        with pytest.raises(MountdError, match=f"{record.place}: file too large"):
            record.note_sent("a", "s")
        record.close()  # and lets go of its lock
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (await open_record(tmp_path, "d")).close()


async def test_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patience = "mountd.publish.record.LOCK_PATIENCE_S"
    monkeypatch.setattr(patience, 0.2)
    held = await open_record(tmp_path, "d")
    other = await open_record(tmp_path, "e")
    other.close()
    with pytest.raises(Busy) as refused:
        await open_record(tmp_path, "d")
    assert refused.value.holder == "mountd publish"

    async def end() -> None:
        await asyncio.sleep(0.1)
        held.forget()
        held.close()

    async def take() -> Record:
        return await open_record(tmp_path, "d")

    monkeypatch.setattr(patience, 60.0)
    _, record = await asyncio.gather(end(), take())
    monkeypatch.setattr(patience, 0.2)
    with pytest.raises(Busy):  # the lock is that of the file that is there now
        await take()
    record.close()


async def test_what_a_killed_run_left_of_its_secrets_goes(tmp_path: Path) -> None:
    record = await open_record(tmp_path, "d")
    (record.private / "rclone.conf").write_text("secret")
    assert record.private.stat().st_mode & 0o777 == 0o700
    os.close(record.lock)  # as the kernel does
    again = await open_record(tmp_path, "d")
    assert os.listdir(again.private) == []
    again.close()
    assert not again.private.exists()
