"""The store of pinned files, on a real file system: what it takes in, what it builds, and what it lets go."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import Exhausted, NotFound, Refused, Unavailable
from mountd.warm import tree as trees
from mountd.warm.plan import WantedFile
from mountd.warm.store import PinStore
from mountd.warm.tree import PinInterrupted
from tests.support.disk_order import DiskOrder
from tests.support.pinning import DIGEST, MODEL, bring, held, pin, problems, sha256_of, wanted

V22 = {"gpt.pth": b"22" * 50, "config.yaml": b"same", "hf/w2v/model.safetensors": b"same too"}
V23 = {"gpt.pth": b"23" * 60, "config.yaml": b"same", "hf/w2v/model.safetensors": b"same too", "hf/again": b"same too"}


@pytest.fixture
def store(tmp_path: Path) -> PinStore:
    return PinStore(tmp_path / "state" / "pins")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# -- taking in ----------------------------------------------------------------------------------------------------


def test_what_is_lacking_is_asked_for_once_and_in_order(store: PinStore) -> None:
    assert list(store.lacking(wanted(V23)).items()) == [
        (sha256_of(V23[path]), len(V23[path])) for path in ("gpt.pth", "config.yaml", "hf/again")
    ]
    store.accept_all(bring(store, [b"same"]))
    assert sha256_of(b"same") not in store.lacking(wanted(V23))


def test_an_object_of_another_size_is_lacking_and_replaced(store: PinStore) -> None:
    store.accept_all(bring(store, [b"same"]))
    (path,) = (store.place / "objects").glob("*/*")
    path.chmod(0o644)
    path.write_bytes(b"torn away")
    assert store.lacking(wanted({"x": b"same"}))
    store.accept_all(bring(store, [b"same"]))
    assert problems(store) == []
    assert not store.lacking(wanted({"x": b"same"}))


def test_what_was_brought_is_an_object_then(store: PinStore) -> None:
    brought = bring(store, [b"one", b"two", b""])
    store.accept_all(brought)
    store.accept_all(bring(store, [b"one"]))  # and once more
    assert os.listdir(store.incoming) == []
    assert store.usage().objects == 3
    assert problems(store) == []
    with pytest.raises(Unavailable):
        store.accept(sha256_of(b"one"), 3)  # nobody brought it


@pytest.mark.parametrize(("content", "rehash"), [(b"shorter", False), (b"another bytes", True)])
def test_what_is_not_what_it_is_said_to_be_goes(store: PinStore, content: bytes, rehash: bool) -> None:
    sha256 = sha256_of(b"the right one")
    (store.incoming / sha256).write_bytes(content)
    with pytest.raises(Refused):
        store.accept(sha256, 13, rehash=rehash)
    assert os.listdir(store.incoming) == []
    assert store.usage().objects == 0


def test_nothing_counts_before_it_is_on_disk(store: PinStore, monkeypatch: pytest.MonkeyPatch) -> None:
    brought = bring(store, set(V22.values()))
    order = DiskOrder(monkeypatch, store.place)
    store.accept_all(brought)
    for sha256 in brought:
        above = f"objects/{sha256[:2]}"
        assert order.is_so(f"sync incoming/{sha256}", f"put {above}/{sha256}", f"sync {above}")
        assert order.is_so("sync objects", f"put {above}/{sha256}"), "nor its directory"
    order.events.clear()
    store.build(MODEL, "v22", wanted(V22), digest=DIGEST)
    tree, record = f"trees/{MODEL}/v22", f"trees/{MODEL}/.v22.json"
    for directory in ("work/tree", "work/tree/hf", "work/tree/hf/w2v"):
        assert order.is_so(f"sync {directory}", f"put {tree}")
    assert order.is_so(f"put {tree}", f"sync trees/{MODEL}", "sync trees", "sync work/new", f"put {record}")
    assert order.events[-1] == f"sync trees/{MODEL}"
    order.events.clear()
    store.remove(MODEL, "v22")
    assert order.is_so(f"gone {record}", f"sync trees/{MODEL}", "put work/former")


def test_a_link_in_its_place_is_not_followed(store: PinStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (store.incoming / sha256_of(b"secret")).symlink_to(tmp_path / "secret")
    with pytest.raises(Unavailable):
        store.accept(sha256_of(b"secret"), 6)
    assert mode(tmp_path / "secret") != 0o444


@pytest.mark.parametrize("name", ["../lock", "a" * 63, "", f"{'a' * 64}.partial"])
def test_what_is_no_sha256_is_refused(store: PinStore, name: str) -> None:
    store.remove(MODEL, "v1")  # the lock is there now
    with pytest.raises(Refused):
        store.accept(name, 0)
    with pytest.raises(Refused):
        store.drop([name])
    assert (store.place / "lock").exists()


def test_what_a_killed_run_left_whole_is_hashed_and_taken_in(store: PinStore) -> None:
    bring(store, [V23["gpt.pth"], b"same"])
    (store.incoming / sha256_of(b"same")).write_bytes(b"\0" * 4)  # as after a power failure
    (store.incoming / f"{sha256_of(b'same too')}.partial").write_bytes(b"same")
    assert set(store.resume(wanted(V23))) == {sha256_of(b"same"), sha256_of(b"same too")}
    assert os.listdir(store.incoming) == [f"{sha256_of(b'same too')}.partial"]


def test_it_stops_when_asked(store: PinStore) -> None:
    brought = bring(store, V23.values())
    answers = iter([False, True])
    with pytest.raises(PinInterrupted):
        store.accept_all(brought, should_stop=lambda: next(answers))
    assert store.usage().objects == 1
    pin(store, "v22", V22)
    with pytest.raises(PinInterrupted):
        store.verify(MODEL, "v22", should_stop=lambda: True)


# -- trees --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("umask")
def test_two_versions_share_what_is_the_same(store: PinStore) -> None:
    pin(store, "v22", V22)
    assert set(store.lacking(wanted(V23))) == {sha256_of(V23["gpt.pth"])}
    pin(store, "v23", V23)
    for version, contents in (("v22", V22), ("v23", V23)):
        tree = store.tree(MODEL, version)
        assert held(tree) == contents
        assert {mode(tree / path) for path in contents} == {0o444}
        assert {mode(path) for path in (tree, tree / "hf", tree.parent, tree.parents[1], store.place)} == {0o755}
        record = store.pinned(MODEL, version)
        assert record is not None
        assert (record.bytes, record.files) == (sum(map(len, contents.values())), len(contents))
        assert list(store.files(MODEL, version)) == sorted(wanted(contents), key=lambda each: each.path)
    assert (store.tree(MODEL, "v22") / "config.yaml").samefile(store.tree(MODEL, "v23") / "config.yaml")
    assert store.usage().bytes == sum(map(len, {*V22.values(), *V23.values()}))
    assert problems(store) == []
    assert store.version_of(str(store.tree(MODEL, "v22"))) == (MODEL, "v22")
    assert store.version_of(f"{store.place}/objects/ab") is None
    assert mode(store.place / "lock") == 0o600


def test_an_incomplete_version_is_not_built(store: PinStore) -> None:
    store.accept_all(bring(store, [b"same"]))
    with pytest.raises(Unavailable):
        store.build(MODEL, "v23", wanted(V23), digest=DIGEST)
    assert store.pinned(MODEL, "v23") is None
    assert not store.tree(MODEL, "v23").exists()
    with pytest.raises(NotFound):
        store.verify(MODEL, "v23")


@pytest.mark.parametrize("path", ["../../../evil", "/tmp/evil", "a/../../evil", "a//b", "a\0b", ""])
def test_nothing_is_put_outside_its_tree(store: PinStore, path: str) -> None:
    store.accept_all(bring(store, [b"same"]))
    with pytest.raises(Refused):
        store.build(MODEL, "v1", [WantedFile(path, 4, sha256_of(b"same"))], digest=DIGEST)
    with pytest.raises(Refused):
        store.build(MODEL, "..", wanted({"a": b"same"}), digest=DIGEST)
    assert store.versions() == {}
    assert os.listdir(store.place / "work") == []


def test_a_version_is_never_exchanged_under_an_app(store: PinStore) -> None:
    pin(store, "v23", V23)
    pin(store, "v23", V23)  # the same again
    with pytest.raises(Refused):
        pin(store, "v23", V22)
    assert held(store.tree(MODEL, "v23")) == V23
    store.remove(MODEL, "v23")
    pin(store, "v23", V22)
    assert held(store.tree(MODEL, "v23")) == V22


def test_a_tree_without_a_valid_record_does_not_count(store: PinStore) -> None:
    pin(store, "v22", V22)
    record = store.tree(MODEL, "v22").parent / ".v22.json"
    whole = record.read_bytes()
    record.write_bytes(whole[:-5])
    assert store.pinned(MODEL, "v22") is None
    assert store.versions() == {}
    record.unlink()
    assert store.pinned(MODEL, "v22") is None
    (store.tree(MODEL, "v22") / "stray").write_bytes(b"")
    pin(store, "v22", V22)
    assert held(store.tree(MODEL, "v22")) == V22


def test_a_damaged_list_is_seen_and_mended(store: PinStore) -> None:
    pin(store, "v22", V22)
    listed = store.tree(MODEL, "v22").parent / ".v22.files"
    for damage in (lambda: listed.write_bytes(listed.read_bytes()[:-9]), listed.unlink):
        damage()
        with pytest.raises(Refused):
            list(store.files(MODEL, "v22"))
        store.build(MODEL, "v22", wanted(V22), digest=DIGEST)
        assert problems(store) == []


def test_damage_is_found_and_repaired_under_the_app(store: PinStore) -> None:
    pin(store, "v22", V22)
    pin(store, "v23", V23)
    tree = store.tree(MODEL, "v23")
    (tree / "hf/again").chmod(0o644)
    (tree / "hf/again").write_bytes(b"sAme too")
    (tree / "config.yaml").unlink()
    seen: list[tuple[int, int]] = []
    damaged = store.verify(MODEL, "v23", progress=lambda *at: seen.append(at))
    assert {each.path for each in damaged} == {"hf/again", "hf/w2v/model.safetensors", "config.yaml"}
    assert seen[-1][1] == sum(map(len, V23.values()))
    assert {each.path for each in store.verify(MODEL, "v22")} == {"hf/w2v/model.safetensors"}
    open_file = (tree / "gpt.pth").open("rb")
    store.drop([each.sha256 for each in damaged if each.path != "config.yaml"])
    assert set(store.lacking(wanted(V23))) == {sha256_of(b"same too")}
    pin(store, "v23", V23)
    pin(store, "v22", V22)
    with open_file:
        assert open_file.read() == V23["gpt.pth"]
        assert os.fstat(open_file.fileno()).st_nlink == 2  # what was well is the same file
    assert problems(store) == []


def test_progress_counts_what_lies_there_twice_and_is_complete_at_the_end(store: PinStore) -> None:
    pin(store, "v23", V23)
    total, seen = sum(map(len, V23.values())), list[tuple[int, int]]()
    assert store.verify(MODEL, "v23", progress=lambda *at: seen.append(at)) == []
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


@pytest.mark.parametrize(
    ("number", "is_damage"),
    [(errno.EIO, True), (errno.EBADMSG, True), (errno.ENODATA, True), (errno.EUCLEAN, True), (errno.EMFILE, False)],
)
def test_what_the_disk_cannot_read_is_damaged_and_what_the_machine_lacks_says_nothing(
    store: PinStore, monkeypatch: pytest.MonkeyPatch, number: int, is_damage: bool
) -> None:
    pin(store, "v22", {"gpt.pth": b"22"})
    digest_of = trees.digest_of

    def read(fd: int, *ways: Any) -> str:
        if "trees" in os.readlink(f"/proc/self/fd/{fd}") and not os.readlink(f"/proc/self/fd/{fd}").endswith(".files"):
            raise OSError(number, os.strerror(number))
        return digest_of(fd, *ways)

    monkeypatch.setattr(trees, "digest_of", read)
    if is_damage:
        assert [each.path for each in store.verify(MODEL, "v22")] == ["gpt.pth"]
    else:
        with pytest.raises(Exhausted) as raised:
            store.verify(MODEL, "v22")
        assert raised.value.code == "no-descriptors"


def test_a_file_with_too_many_links_is_copied(store: PinStore, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link
    most = 3

    def limited(source: Path, target: Path | str, *, follow_symlinks: bool = True) -> None:
        if os.lstat(source).st_nlink >= most and not os.path.lexists(target):
            raise OSError(errno.EMLINK, os.strerror(errno.EMLINK))
        link(source, target, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "link", limited)  # ext4 has room for 65,000
    many = {f"{number}/x": b"same" for number in range(5)}
    pin(store, "v1", many)
    pin(store, "v1", many)
    assert held(store.tree(MODEL, "v1")) == many
    assert len({(store.tree(MODEL, "v1") / path).stat().st_ino for path in many}) == 4
    assert problems(store) == []
    store.sweep(set())
    assert store.usage().objects == 0


# -- letting go -----------------------------------------------------------------------------------------------------


def test_what_nothing_keeps_goes(store: PinStore) -> None:
    pin(store, "v22", V22)
    pin(store, "v23", V23)
    store.accept_all(bring(store, [b"of the next", b"of nobody"]))
    bring(store, [b"arriving", b"abandoned"])
    (store.incoming / f"{sha256_of(b'arriving')}.partial").write_bytes(b"a")
    (store.incoming / "stray").symlink_to(store.place / "objects")
    fetching = [sha256_of(b"of the next"), sha256_of(b"arriving")]
    keep = {(MODEL, "v23"), (MODEL, "v99")}
    assert store.could_go(keep, fetching) == len(V22["gpt.pth"]) + len(b"of nobody")
    assert store.could_go({(MODEL, "v22"), (MODEL, "v23")}, fetching) == len(b"of nobody")
    swept = store.sweep(keep, fetching)
    assert (swept.trees, swept.objects) == (((MODEL, "v22"),), 2)
    assert swept.bytes == len(V22["gpt.pth"]) + len(b"of nobody")
    assert held(store.tree(MODEL, "v23")) == V23
    assert sorted(os.listdir(store.incoming)) == sorted([fetching[1], f"{fetching[1]}.partial"])
    assert not store.lacking(wanted({**V23, "next": b"of the next"}))
    assert problems(store) == []
    assert store.could_go(keep, fetching) == 0
    swept = store.sweep(set())
    usage = store.usage()
    assert (usage.objects, usage.bytes, usage.incoming_bytes, dict(usage.trees)) == (0, 0, 0, {})
    assert os.listdir(store.place / "trees") == []


def test_what_could_go_counts_what_an_unfinished_tree_holds(store: PinStore) -> None:
    bring(store, [b"here"])
    store.accept(sha256_of(b"here"), 4)
    with pytest.raises(Unavailable):
        store.build(MODEL, "v1", wanted({"a": b"here", "b": b"lacking"}), digest=DIGEST)
    assert store.could_go([]) == 4
    assert store.sweep([]).bytes == 4


def test_of_a_file_that_is_being_fetched_only_what_is_there_takes_room(store: PinStore) -> None:
    with open(store.incoming / f"{sha256_of(b'large')}.partial", "wb") as file:
        file.truncate(1 << 30)
        file.write(b"begun")
        file.flush()
        os.fsync(file.fileno())
    assert 0 < store.usage().incoming_bytes < 1 << 20
    assert store.arrived([sha256_of(b"large")]) == store.usage().incoming_bytes
    assert store.arrived([sha256_of(b"other")]) == 0


def test_what_mountd_has_not_made_stays_and_links_are_not_followed(store: PinStore, tmp_path: Path) -> None:
    pin(store, "v22", V22)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    (store.place / "trees" / "linked").symlink_to(outside)
    (store.place / "trees" / MODEL / "v99").symlink_to(outside)
    (store.place / "objects" / "zz").symlink_to(outside)
    (store.place / "objects" / "lost+found").mkdir()
    (store.tree(MODEL, "v22") / "hf" / "out").symlink_to(outside)
    store.sweep(set())
    assert (outside / "precious").read_bytes() == b"precious"
    assert (store.place / "objects" / "lost+found").is_dir()
    assert not store.tree(MODEL, "v22").exists()
    assert store.pinned(MODEL, "v99") is None


def test_an_object_that_is_linked_elsewhere_frees_nothing(store: PinStore, tmp_path: Path) -> None:
    store.accept_all(bring(store, [b"adopted"]))
    (path,) = (store.place / "objects").glob("*/*")
    os.link(path, tmp_path / "elsewhere")
    assert store.could_go(set()) == 0
    assert store.sweep(set()).objects == 0
    (tmp_path / "elsewhere").unlink()
    assert store.could_go(set()) == 7
    assert store.sweep(set()).objects == 1
