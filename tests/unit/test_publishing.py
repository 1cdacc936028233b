"""A whole run of publishing with a bucket in memory: in which order it writes, whose version it is, what it trusts."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from mountd.errors import Busy, MountdError, Refused, RemoteError
from mountd.model import manifest
from mountd.publish import hashing, run
from mountd.publish.record import Record, open_record
from mountd.publish.run import Asked, Progress, Published, Publishing
from mountd.publish.upload import Listener
from tests.support.memory_store import MemoryStore

FILES = {"a": b"1" * 10, "b/c": b"2" * 20}
ASKED = Asked("v23", (), 2)
OTHERS = f"{manifest.MARKER}others"
SOON_S = 60.0


class Publisher:
    """Publishes `root`, as a new process each time."""

    def __init__(self, directory: Path) -> None:
        self.root, self.state = directory / "root", directory / "state"
        self.store = MemoryStore()
        self.progress: list[Progress] = []
        self.marker = ""
        self.write(FILES)

    def write(self, files: dict[str, bytes]) -> None:
        for name, data in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_bytes(data)

    @property
    def is_recorded(self) -> bool:
        """A next run would go on with this one's."""
        return any((self.state / "publish").glob("*/record.jsonl"))

    async def record(self) -> Record:
        return await open_record(self.state, self.store.place)

    async def run(self, asked: Asked = ASKED) -> Published:
        self.store.calls.clear()
        record = await self.record()
        self.marker = f"{manifest.MARKER}{record.id}"
        try:
            tree = hashing.scan(str(self.root))
            return await Publishing(asked, tree, self.store, record, self.progress.append).run()
        finally:
            record.close()

    async def interrupted(self) -> None:
        """A run that ends before anything of it is verified."""
        await self.failed(RemoteError, "look", 3)

    async def failed(self, kind: type[MountdError], call: str, number: int) -> None:
        def fail() -> None:
            raise kind("interrupted")

        self.store.before[call, number] = fail
        with pytest.raises(kind):
            await self.run()


@pytest.fixture
def publisher(tmp_path: Path) -> Publisher:
    return Publisher(tmp_path)


def rendered(version: str = "v23", files: dict[str, bytes] = FILES) -> bytes:
    entries = [(path, len(data), hashlib.sha256(data).hexdigest()) for path, data in files.items()]
    return manifest.render(version, entries, created="", tool="")


# -- the order of it --------------------------------------------------------------------------------------------------


async def test_the_marker_comes_first_and_goes_last_and_the_manifest_comes_when_all_is_verified(
    publisher: Publisher,
) -> None:
    published, store = await publisher.run(), publisher.store
    expected = Published("published", published.digest, 2, 30, 2, 30, (), (), "hash")
    assert published == expected
    assert store.writes == [
        *(f"write {publisher.marker}", "send a b/c", f"write {manifest.NAME}", f"remove {publisher.marker}"),
    ]
    assert store.calls[store.calls.index("send a b/c") + 1] == "look"
    assert "sha256" not in store.calls, "nobody asked for the bytes"
    held = manifest.parse(store.objects.pop(manifest.NAME))
    assert (manifest.digest(held), held.version, store.objects) == (published.digest, "v23", FILES)
    assert not publisher.is_recorded
    assert [each.what for each in publisher.progress if each.done == each.total] == ["reading"]


async def test_a_version_that_is_published_already_is_left_as_it_is(publisher: Publisher) -> None:
    first = await publisher.run()
    again = await publisher.run()
    assert again == replace(first, result="already-published", sent=0, sent_bytes=0)
    assert (publisher.store.writes, publisher.is_recorded) == ([], False)


async def test_what_a_published_version_lacks_is_sent_again_and_what_is_beside_it_stays(publisher: Publisher) -> None:
    await publisher.run()
    data = publisher.store.objects[manifest.NAME]
    del publisher.store.objects["a"]
    publisher.store.objects["beside"] = b"theirs"
    published = await publisher.run()
    assert (published.result, published.sent, published.sent_bytes, published.deleted) == ("published", 1, 10, ())
    assert publisher.store.objects == {**FILES, "beside": b"theirs", manifest.NAME: data}


async def test_a_dry_run_writes_nothing(publisher: Publisher) -> None:
    found = await publisher.run(replace(ASKED, dry_run=True))
    assert found == Published("would-publish", "", 2, 30, 2, 30, (), (), "")
    assert publisher.store.writes == []


@pytest.mark.parametrize(("hashes", "checked"), [(True, "hash"), (False, "size")])
async def test_how_it_was_checked(publisher: Publisher, hashes: bool, checked: str) -> None:
    publisher.store.hashes = hashes
    publisher.write({"empty": b""})  # of which no store needs to report a hash
    assert (await publisher.run()).checked == checked
    assert (await publisher.run()).checked == checked
    assert (await publisher.run(replace(ASKED, download_check=True))).checked == "download"


# -- whose version it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [rendered("v22"), rendered(files={"a": FILES["a"]}), b"<html>"])
async def test_a_version_that_is_published_with_other_content_is_never_touched(
    publisher: Publisher, data: bytes
) -> None:
    publisher.store.objects = before = {manifest.NAME: data, "a": FILES["a"]}
    for asked in (ASKED, replace(ASKED, take_over=True)):
        with pytest.raises(Refused):
            await publisher.run(asked)
        assert (publisher.store.objects, publisher.store.writes, publisher.is_recorded) == (before, [], False)


async def test_a_version_that_somebody_else_publishes_is_his_until_it_is_taken_over(publisher: Publisher) -> None:
    who = b'{"user": "tina", "host": "machine", "since": "2026-01-01"}'
    publisher.store.objects = {OTHERS: who, "a": FILES["a"], "b/c": b"3" * 20, "stray": b"x"}
    with pytest.raises(Busy) as refused:
        await publisher.run()
    assert "tina on machine" in refused.value.holder
    assert (publisher.store.writes, publisher.is_recorded) == ([], False)
    published = await publisher.run(replace(ASKED, take_over=True))
    assert (published.sent, published.deleted) == (1, ("stray",))
    assert publisher.store.objects.keys() == {*FILES, manifest.NAME}
    assert publisher.store.objects["b/c"] == FILES["b/c"]


async def test_files_that_nobody_published_are_taken_over_only_if_all_of_them_are_wanted(publisher: Publisher) -> None:
    take_over = replace(ASKED, take_over=True)
    publisher.store.objects = {"a": FILES["a"], "theirs": b"x"}
    for asked in (ASKED, take_over):
        with pytest.raises(Refused):
            await publisher.run(asked)
        assert (publisher.store.writes, publisher.is_recorded) == ([], False)
    del publisher.store.objects["theirs"]
    with pytest.raises(Refused):
        await publisher.run()
    assert (await publisher.run(take_over)).sent == 1


async def test_of_two_that_begin_at_once_one_that_sees_the_other_withdraws(publisher: Publisher) -> None:
    publisher.store.before["look", 2] = lambda: publisher.store.objects.update({OTHERS: b"?"})
    with pytest.raises(Busy):
        await publisher.run()
    assert publisher.store.objects == {OTHERS: b"?"}
    assert publisher.store.writes == [f"write {publisher.marker}", f"remove {publisher.marker}"]


async def test_a_manifest_that_came_while_it_began_counts(publisher: Publisher) -> None:
    publisher.store.before["look", 2] = lambda: publisher.store.objects.update({manifest.NAME: rendered("v22")})
    with pytest.raises(Refused):
        await publisher.run()
    assert publisher.store.objects == {manifest.NAME: rendered("v22")}


async def test_a_store_that_does_not_keep_the_marker_gets_nothing_else(publisher: Publisher) -> None:
    marker = f"{manifest.MARKER}{(record := await publisher.record()).id}"
    record.close()
    publisher.store.drops = {marker}
    with pytest.raises(MountdError) as failed:
        await publisher.run()
    assert (failed.value.exit_code, publisher.store.objects) == (1, {})
    assert publisher.store.writes == [f"write {marker}", f"remove {marker}"]


@pytest.mark.parametrize("look", [3, 4])  # to verify what was sent; after the manifest
async def test_who_has_lost_the_version_to_somebody_else_stops(publisher: Publisher, look: int) -> None:
    def take_over() -> None:
        del publisher.store.objects[publisher.marker]
        publisher.store.objects[OTHERS] = b"?"

    publisher.store.before["look", look] = take_over
    with pytest.raises(Busy):
        await publisher.run()
    assert OTHERS in publisher.store.objects
    assert (manifest.NAME in publisher.store.objects) is (look == 4)
    assert publisher.is_recorded


async def test_it_notices_that_also_while_it_sends(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "CLAIM_CHECK_S", 0.01)
    publisher.store.gate.clear()
    publisher.store.before["look", 4] = lambda: publisher.store.objects.pop(publisher.marker)
    with pytest.raises(Busy):
        await asyncio.wait_for(publisher.run(), SOON_S)
    assert publisher.store.objects == {}
    assert len(asyncio.all_tasks()) == 1, "nothing is sent any more"


# -- a run that goes on -----------------------------------------------------------------------------------------------


async def test_a_next_run_goes_on_under_the_same_marker_with_what_was_sent(publisher: Publisher) -> None:
    await publisher.interrupted()
    assert publisher.is_recorded
    marker = publisher.marker
    publisher.write({"d": b"new"})
    (publisher.root / "a").unlink()
    published = await publisher.run()
    assert (publisher.marker, published.sent, published.deleted) == (marker, 1, ("a",))
    assert publisher.store.writes == ["remove a", "send d", f"write {manifest.NAME}", f"remove {marker}"]
    assert publisher.store.objects.keys() == {"b/c", "d", manifest.NAME}


async def test_a_run_that_is_refused_after_another_had_begun_keeps_what_that_left(publisher: Publisher) -> None:
    await publisher.interrupted()
    publisher.store.objects[manifest.NAME] = rendered("v22")
    with pytest.raises(Refused):
        await publisher.run()
    assert publisher.is_recorded


async def test_without_hashes_only_what_this_publisher_has_sent_is_trusted(publisher: Publisher) -> None:
    publisher.store.hashes = False
    await publisher.interrupted()
    publisher.write({"a": b"3" * 10})
    published = await publisher.run()
    assert (published.sent, publisher.store.objects["a"]) == (1, b"3" * 10)


async def test_without_hashes_a_run_of_rclone_that_succeeds_has_sent_all(publisher: Publisher) -> None:
    publisher.store.hashes, publisher.store.is_silent = False, True
    assert (await publisher.run()).result == "published"


async def test_a_run_that_ended_after_its_manifest_keeps_that(publisher: Publisher) -> None:
    await publisher.failed(RemoteError, "look", 4)
    data = publisher.store.objects[manifest.NAME]
    published = await publisher.run()
    assert (published.result, published.sent) == ("published", 0)
    assert publisher.store.writes == [f"remove {publisher.marker}"]
    assert publisher.store.objects == {**FILES, manifest.NAME: data}


async def test_a_failure_of_the_store_says_that_another_run_goes_on(publisher: Publisher) -> None:
    def fail() -> None:
        raise RemoteError("the bucket is away", hint="wait", code="bucket-unreachable")

    publisher.store.before["send", 1] = fail
    with pytest.raises(RemoteError) as failed:
        await publisher.run()
    assert (failed.value.code, run.AGAIN in failed.value.hint, "wait" in failed.value.hint) == (
        *("bucket-unreachable", True, True),
    )


# -- what it trusts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["changed", "spoiled", "vanished", "beside"])
async def test_without_proof_there_is_no_manifest(publisher: Publisher, fault: str) -> None:
    objects = publisher.store.objects
    publisher.store.spoiled = {"a"} if fault == "spoiled" else set()
    happenings = {
        "changed": lambda: publisher.write({"a": b"3" * 10}),
        "vanished": lambda: objects.pop("b/c"),
        "beside": lambda: objects.update({"theirs": b"x"}),
        "spoiled": lambda: None,
    }
    call = ("send", 1) if fault == "changed" else ("look", 3)
    publisher.store.before[call] = happenings[fault]
    with pytest.raises(MountdError) as failed:
        await publisher.run()
    assert failed.value.exit_code == 1
    assert manifest.NAME not in objects
    assert publisher.marker in objects
    assert publisher.is_recorded


async def test_a_file_that_changes_while_it_is_sent_does_not_count_as_sent(publisher: Publisher) -> None:
    publisher.store.hashes = False
    publisher.store.before["send", 1] = lambda: publisher.write({"a": b"3" * 10})
    with pytest.raises(MountdError):
        await publisher.run()
    publisher.write({"a": FILES["a"]})
    assert (await publisher.run()).sent == 1
    assert publisher.store.objects["a"] == FILES["a"]


@pytest.mark.parametrize("hashes", [True, False])
async def test_what_is_read_back_as_something_else_is_deleted_and_sent_again(
    publisher: Publisher, hashes: bool
) -> None:
    publisher.store.hashes = hashes
    read_back = replace(ASKED, download_check=True)
    publisher.store.before["sha256", 1] = lambda: publisher.store.objects.update({"a": b"\0" * 10})
    with pytest.raises(MountdError):
        await publisher.run(read_back)
    assert publisher.store.objects.keys() == {"b/c", publisher.marker}
    published = await publisher.run(read_back)
    assert (published.sent, published.checked, publisher.store.objects["a"]) == (1, "download", FILES["a"])


async def test_what_was_read_back_as_something_else_is_not_trusted_though_it_could_not_be_deleted(
    publisher: Publisher,
) -> None:
    def fail() -> None:
        raise RemoteError("the bucket is away")

    publisher.store.hashes = False
    publisher.store.before["sha256", 1] = lambda: publisher.store.objects.update({"a": b"\0" * 10})
    publisher.store.before["remove", 1] = fail
    with pytest.raises(RemoteError):
        await publisher.run(replace(ASKED, download_check=True))
    assert (await publisher.run()).sent == 1
    assert publisher.store.objects["a"] == FILES["a"]


async def test_what_is_gone_when_it_is_read_back_is_no_version(publisher: Publisher) -> None:
    publisher.store.before["sha256", 1] = lambda: publisher.store.objects.pop("a")
    with pytest.raises(MountdError):
        await publisher.run(replace(ASKED, download_check=True))
    assert manifest.NAME not in publisher.store.objects


async def test_a_manifest_that_nobody_could_read_is_not_written(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "MAX_BYTES", 100)
    with pytest.raises(Refused):
        await publisher.run()
    assert manifest.NAME not in publisher.store.objects


async def test_a_published_version_that_is_read_back_as_something_else_is_reported_and_stays(
    publisher: Publisher,
) -> None:
    publisher.store.hashes = False
    await publisher.run()
    publisher.store.objects["a"] = b"\0" * 10
    with pytest.raises(MountdError) as failed:
        await publisher.run(replace(ASKED, download_check=True))
    assert (failed.value.exit_code, publisher.store.writes) == (1, [])


async def test_a_manifest_that_is_read_back_as_another_keeps_the_version_hidden(publisher: Publisher) -> None:
    publisher.store.before["read", 1] = lambda: publisher.store.objects.update({manifest.NAME: b"{}"})
    with pytest.raises(Refused):
        await publisher.run()
    assert publisher.marker in publisher.store.objects


# -- progress ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stats", "shown"),
    [
        ({"bytes": 10, "speed": 4.0}, Progress("sending", 10, 30, 4.0, 5.0)),
        ({"bytes": 10, "speed": 0.0}, Progress("sending", 10, 30)),
        ({"bytes": 99, "speed": 4.0}, Progress("sending", 30, 30, 4.0, 0.0)),  # what was sent twice
        ({"bytes": None}, Progress("sending", 0, 30)),
    ],
)
async def test_the_progress_of_what_is_sent(
    publisher: Publisher, stats: dict[str, float | None], shown: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = publisher.store.send

    async def report(root: str, names: list[str], jobs: int, listen: Listener) -> None:
        listen({"msg": "no statistics"})
        listen({"stats": stats})
        await send(root, names, jobs, listen)

    monkeypatch.setattr(publisher.store, "send", report)
    await publisher.run()
    assert [each for each in publisher.progress if each.what == "sending"] == [Progress("sending", 0, 30), shown]
