"""Files that lie on this machine become pinned ones: found by size and sha256, and safe from whoever owns the rest."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pytest

from mountd.errors import Exhausted
from mountd.process.slow_disk import SlowDisk
from mountd.warm import adopt as adopt_module
from mountd.warm.adopt import MOST_NOTES, Adoption, AdoptLimits, adopt
from mountd.warm.plan import WantedFile
from mountd.warm.store import PinStore
from tests.support import blocking
from tests.support.machine import Tmpfs, children
from tests.support.pinning import DIGEST, MODEL, bring, held, pin, problems, sha256_of, wanted

FILES = {"gpt.pth": b"g" * 3_000_000, "hf/w2v/model.safetensors": b"w" * 200_000, "config.yaml": b"version: 2\n"}
TIMEOUT_S = 60.0
T = TypeVar("T")


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is killed may need a while to go."""
    monkeypatch.setattr(adopt_module, "EXIT_S", TIMEOUT_S)


@pytest.fixture
def store(tmp_path: Path) -> PinStore:
    return PinStore(tmp_path / "state" / "pins")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """As people unpack one: all files below a directory of their own, and more."""
    root = tmp_path / "IndexTTS-整合包"
    lay(root / "checkpoints", FILES)
    lay(root, {"webui.py": b"print()", "venv/lib/x.so": b"x" * 200_000})
    return root


def lay(root: Path, contents: Mapping[str, bytes]) -> None:
    for path, content in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def take(store: PinStore, *directories: Path, files: Mapping[str, bytes] = FILES, **more: Any) -> Adoption:
    async def work() -> Adoption:
        async with asyncio.timeout(TIMEOUT_S):
            return await adopt(store, wanted(files), places, disk=SlowDisk(), environment={}, **more)

    places = [str(each) for each in directories]
    with blocking.forbidden():
        return asyncio.run(work())


def hows(adoption: Adoption) -> dict[str, str]:
    paths = {sha256_of(content): path for path, content in FILES.items()}
    return {paths[each.sha256]: each.how for each in adoption.adopted}


def test_a_package_is_adopted_without_a_byte_fetched(store: PinStore, package: Path) -> None:
    before = {path: path.stat() for path in package.rglob("*")}
    seen: list[tuple[int, int]] = []
    adoption = take(store, package, progress=lambda *at: seen.append(at))
    assert hows(adoption).keys() == FILES.keys()
    assert set(hows(adoption).values()) <= {"copy", "reflink"}, "they can be written: never links"
    assert adoption.lacking == {}
    assert store.lacking(wanted(FILES)) == {}
    assert all(0 <= read <= total for read, total in seen)
    assert os.listdir(store.incoming) == []
    store.build(MODEL, "v2", wanted(FILES), digest=DIGEST)
    assert held(store.tree(MODEL, "v2")) == FILES
    assert problems(store) == []
    for path, was in before.items():
        now = path.stat()
        assert (now.st_ino, now.st_mode, now.st_nlink, now.st_mtime_ns) == (
            was.st_ino, was.st_mode, was.st_nlink, was.st_mtime_ns,
        )  # fmt: skip
    (package / "checkpoints/gpt.pth").write_bytes(b"overwritten")
    assert problems(store) == []


def test_a_cache_of_hugging_face(store: PinStore, tmp_path: Path) -> None:
    repo = tmp_path / "hub/models--IndexTeam--IndexTTS-2"
    snapshot = repo / "snapshots/abcdef"
    for path, content in FILES.items():
        name = sha256_of(content) if len(content) > 1000 else "c" * 40
        lay(repo / "blobs", {name: content})
        (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / path).symlink_to(os.path.relpath(repo / "blobs" / name, (snapshot / path).parent))
    for number in range(30):  # of the right size and another digest: they are not even read
        lay(repo / "blobs", {sha256_of(bytes([number])): b"g" * 3_000_000})
    seen: list[int] = []
    adoption = take(store, snapshot, progress=lambda _, total: seen.append(total))
    assert adoption.lacking == {}
    assert max(seen, default=0) < 10_000_000
    assert problems(store) == []


def test_only_what_lies_there_and_what_is_lacking(store: PinStore, package: Path, tmp_path: Path) -> None:
    store.accept_all(bring(store, [FILES["config.yaml"]]))
    (package / "checkpoints/gpt.pth").write_bytes(b"G" * 3_000_000)
    (package / "checkpoints/hf/w2v/model.safetensors").rename(package / "renamed.bin")
    looked_at: set[int] = set()
    adoption = take(store, tmp_path / "nowhere", package, progress=lambda _, total: looked_at.add(total))
    assert hows(adoption).keys() == {"hf/w2v/model.safetensors"}
    sizes = [len(FILES[path]) for path in ("hf/w2v/model.safetensors", "gpt.pth")]
    assert max(looked_at) <= sum(sizes), "what is pinned already is not read again"
    assert adoption.lacking.keys() == {sha256_of(FILES["gpt.pth"])}
    assert "gpt.pth" in adoption.lacking[sha256_of(FILES["gpt.pth"])]
    assert any("nowhere" in note for note in adoption.notes)
    assert problems(store) == []


def test_several_directories_and_twins(store: PinStore, tmp_path: Path) -> None:
    twins = {"a/shard": b"1" * 5000, "b/shard": b"2" * 5000, "c/shard": b"3" * 5000}
    lay(tmp_path / "one", {"shard": twins["b/shard"], "x": twins["a/shard"]})
    lay(tmp_path / "two", {"y/shard": twins["c/shard"]})
    adoption = take(store, tmp_path / "one", tmp_path / "two", files=twins)
    assert len(adoption.adopted) == 3
    assert adoption.lacking == {}
    assert problems(store) == []


def test_an_older_pin_is_linked(store: PinStore, tmp_path: Path) -> None:
    older = PinStore(tmp_path / "older")
    pin(older, "v1", FILES)
    adoption = take(store, older.tree(MODEL, "v1"))
    assert set(hows(adoption).values()) <= {"link", "reflink"}
    store.build(MODEL, "v1", wanted(FILES), digest=DIGEST)
    older.remove(MODEL, "v1")
    older.sweep(set())
    assert held(store.tree(MODEL, "v1")) == FILES
    assert problems(store) == []


@pytest.fixture
def btrfs(tmp_path: Path) -> Iterator[Path]:
    """A disk whose files can share blocks, where this machine can make one."""
    if shutil.which("mkfs.btrfs") is None or os.geteuid() != 0:
        pytest.skip("no mkfs.btrfs, or not root")
    image, place = tmp_path / "image", tmp_path / "btrfs"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(200 << 20)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, timeout=TIMEOUT_S)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, timeout=TIMEOUT_S)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True, timeout=TIMEOUT_S)


def test_blocks_are_shared_where_the_disk_can(btrfs: Path) -> None:
    lay(btrfs / "package", FILES)
    store = PinStore(btrfs / "pins")
    adoption = take(store, btrfs / "package")
    assert hows(adoption) == dict.fromkeys(FILES, "reflink")
    (btrfs / "package/gpt.pth").write_bytes(b"overwritten")
    assert problems(store) == []


def test_what_can_be_written_to_is_never_the_same_file(store: PinStore, package: Path) -> None:
    names = {"gpt.pth": 0o444, "hf/w2v/model.safetensors": 0o644, "config.yaml": 0o444}
    for path, mode in names.items():
        (package / "checkpoints" / path).chmod(mode)
    (package / "checkpoints").chmod(0o777)
    (package / "checkpoints/hf/w2v").chmod(0o755)
    take(store, package)
    for path, content in FILES.items():
        kept = store.place / "objects" / sha256_of(content)[:2] / sha256_of(content)
        assert not kept.samefile(package / "checkpoints" / path)


def test_its_own_store_is_no_source_and_a_pipe_is_not_opened(store: PinStore, tmp_path: Path) -> None:
    lay(store.place / "objects", {"stray": FILES["gpt.pth"]})
    os.mkfifo(tmp_path / "gpt.pth")
    adoption = take(store, tmp_path)
    assert adoption.adopted == []
    assert (take(store, store.place)).adopted == []


def test_a_directory_that_is_excluded(store: PinStore, package: Path) -> None:
    assert (take(store, package, excluded=[str(package / "checkpoints")])).adopted == []
    assert (take(store, package / "checkpoints", excluded=[str(package)])).adopted == []


@pytest.mark.root
@pytest.mark.parametrize(("source", "found"), [("mountd:0123:storage", False), ("data", True)])
def test_a_mount_is_looked_at_only_by_name_and_one_of_mountd_never(
    store: PinStore, package: Path, source: str, found: bool
) -> None:
    place = package / "mounted"
    place.mkdir()
    (package.parent / "link").symlink_to(place)
    subprocess.run(["mount", "-t", "tmpfs", source, str(place)], check=True, timeout=TIMEOUT_S)
    try:
        lay(place, {"more.bin": b"only there"})
        for directory, expected in ((package, False), (place, found), (package.parent / "link", found)):
            adoption = take(store, directory, files={"more.bin": b"only there"})
            assert bool(adoption.adopted) is expected
            assert expected or adoption.notes
            store.sweep(set())
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True, timeout=TIMEOUT_S)


def test_what_was_not_looked_at_is_named_within_a_bound() -> None:
    adoption = Adoption()
    for number in range(MOST_NOTES + 50):
        adoption.note(str(number))
    assert adoption.notes == [str(number) for number in range(MOST_NOTES)]


def test_a_limit_is_reported(store: PinStore, package: Path) -> None:
    adoption = take(store, package, limits=AdoptLimits(entries=1))
    assert adoption.adopted == []
    assert adoption.notes


@pytest.mark.root
def test_no_room(tmp_path: Path, package: Path) -> None:
    with Tmpfs(tmp_path / "small", 2) as disk:
        store = PinStore(disk.path / "pins")
        with pytest.raises(Exhausted) as full:
            take(store, package)
        assert full.value.code == "disk-full"
        assert not [name for name in os.listdir(store.incoming) if name.endswith(".adopting")]
        assert problems(store) == []


def endless(place: Path) -> list[WantedFile]:
    """What a search reads for minutes: a hole of 64 GiB, of the size of what it returns."""
    place.mkdir()
    with (place / "other.bin").open("wb") as file:
        file.truncate(64 << 30)
    return [WantedFile("gpt.pth", 64 << 30, "f" * 64)]


async def test_a_search_that_is_given_up_leaves_nothing(store: PinStore, tmp_path: Path) -> None:
    files, before = endless(tmp_path / "large"), set(children(os.getpid()))
    begun = asyncio.Event()
    searching = adopt(
        store, files, [str(tmp_path / "large")], disk=SlowDisk(), environment={}, progress=lambda _, __: begun.set()
    )
    async with asyncio.timeout(TIMEOUT_S):
        task = asyncio.create_task(searching)
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()
    assert set(children(os.getpid())) <= before
    assert os.listdir(store.incoming) == []


async def test_a_directory_that_does_not_answer_is_given_up(store: PinStore, tmp_path: Path, package: Path) -> None:
    """Only the search that was stopped is given little time: the next one may get no processor for a while."""
    files, before = endless(tmp_path / "large"), set(children(os.getpid()))
    begun, searches = asyncio.Event(), list[int]()
    limits = SimpleNamespace(**asdict(AdoptLimits()))

    class Disk(SlowDisk):
        async def run(self, work: Callable[[], T], limit_s: float | None) -> T:
            limits.silent_s = TIMEOUT_S  # between two searches
            searches.clear()
            return await super().run(work, limit_s)

    def progress(_: int, __: int) -> None:
        begun.set()
        if searches:
            os.kill(searches.pop(), signal.SIGSTOP)  # with the line that has set its time

    searching = adopt(
        store,
        [*files, *wanted(FILES)],
        [str(tmp_path / "large"), str(package)],
        disk=Disk(),
        environment={},
        progress=progress,
        limits=cast(AdoptLimits, limits),
    )
    async with asyncio.timeout(TIMEOUT_S):
        task = asyncio.create_task(searching)
        await begun.wait()
        (search,) = set(children(os.getpid())) - before
        searches.append(search)
        limits.silent_s = 0.5
        adoption = await task
    assert [note for note in adoption.notes if note.startswith(str(tmp_path / "large"))]
    assert hows(adoption).keys() == FILES.keys()
    assert set(children(os.getpid())) <= before


def test_a_search_that_breaks_is_a_note(store: PinStore, package: Path) -> None:
    (store.incoming / sha256_of(FILES["gpt.pth"])).mkdir()  # no file can take its place
    adoption = take(store, package)
    assert hows(adoption).keys() == FILES.keys() - {"gpt.pth"}
    assert sha256_of(FILES["gpt.pth"]) in adoption.lacking
