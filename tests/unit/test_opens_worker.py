"""What the kernel says of opened files becomes reports: which opens count, in which order, and where that ends."""

from __future__ import annotations

import errno
import os
from typing import Any, cast

import pytest

from mountd.warm import opens_worker
from mountd.warm.opens import Opens
from mountd.warm.opens_worker import (
    HEAD,
    IN_ISDIR,
    IN_OPEN,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
    MOST_OPENS,
    Notify,
    Watched,
)


class FakeNotify:
    """Numbers the directories that it watches from 1 on, but for those that fail with an errno."""

    def __init__(self, **failures: int) -> None:
        self.failures = failures
        self.watched: list[str] = []

    def watch(self, directory: str) -> int:
        if number := self.failures.get(os.path.basename(directory)):
            raise OSError(number, os.strerror(number))
        self.watched.append(directory)
        return len(self.watched)


def watched(*directories: str) -> Watched:
    found = Watched(cast(Notify, FakeNotify()))
    found.begin("/mnt/x", directories or ("models", ""))
    return found


def event(number: int, name: bytes = b"", mask: int = IN_OPEN) -> bytes:
    """As the kernel writes it: the name filled up with zeros."""
    padded = name + bytes(16 - len(name) % 16) if name else b""
    return HEAD.pack(number, mask, 0, len(padded)) + padded


def seen(found: list[dict[str, object]]) -> list[tuple[object, ...]]:
    return [(each.get("path"), each.get("order"), each.get("count")) for each in found]


def test_each_file_is_named_below_the_root_with_its_order_and_count() -> None:
    it = watched()
    data = event(1, b"gpt.pth") + event(2, b"config.yaml") + event(1, b"gpt.pth") + event(2, b"caf\xe9")
    found = it.take(data)
    assert seen(found) == [
        ("models/gpt.pth", 1, 1),
        ("config.yaml", 2, 1),
        ("models/gpt.pth", 1, 2),
        ("caf\udce9", 3, 1),
    ]
    assert all(isinstance(each["at"], float) for each in found)
    assert seen(it.take(event(1, b"gpt.pth"))) == [("models/gpt.pth", 1, 3)]


@pytest.mark.parametrize(
    "data",
    [
        event(1, b"deep", IN_OPEN | IN_ISDIR),
        event(1),  # the directory itself
        event(9, b"gpt.pth"),  # of a watch that nobody made
        event(1, b"gpt.pth", 0x1),
        event(1, b"gpt.pth")[:10],
        b"",
    ],
)
def test_what_is_no_open_of_a_file_counts_nothing(data: bytes) -> None:
    assert watched().take(data) == []


def test_what_was_lost_or_unmounted_is_said() -> None:
    data = event(-1, mask=IN_Q_OVERFLOW) + event(1, mask=IN_UNMOUNT) + event(1, b"gpt.pth")
    assert [next(iter(each)) for each in watched().take(data)] == ["lost", "gone", "path"]


def test_of_one_file_so_many_opens_are_reported() -> None:
    it = watched()
    found = it.take(event(1, b"gpt.pth") * (MOST_OPENS + 3))
    assert [each["count"] for each in found] == [*range(1, MOST_OPENS + 1)]
    assert seen(it.take(event(1, b"other"))) == [("models/other", 2, 1)]


def test_so_many_files_are_followed_and_that_there_are_more_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opens_worker, "MOST_FILES", 2)
    found = watched().take(b"".join(event(1, name) for name in (b"a", b"b", b"c", b"d", b"a")))
    assert [each.get("path") for each in found] == ["models/a", "models/b", None, "models/a"]
    assert found[2] == {"lost": True}


@pytest.mark.parametrize(
    ("failures", "answer"),
    [
        ({}, {"watched": 3, "unwatched": 0, "errno": 0}),
        ({"b": errno.ENOENT}, {"watched": 2, "unwatched": 1, "errno": errno.ENOENT}),
        ({"b": errno.ENOSPC}, {"watched": 1, "unwatched": 2, "errno": errno.ENOSPC}),  # no user has more of them
    ],
)
def test_what_can_be_watched(failures: dict[str, int], answer: dict[str, int]) -> None:
    assert Watched(cast(Notify, FakeNotify(**failures))).begin("/mnt/x", ["a", "b", "c"]) == answer


def test_no_more_directories_are_watched_than_a_user_has_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opens_worker, "MOST_DIRECTORIES", 2)
    notify = FakeNotify()
    answer = Watched(cast(Notify, notify)).begin("/mnt/x", ["", "a", "b"])
    assert (answer["watched"], answer["unwatched"]) == (2, 1)
    assert notify.watched == ["/mnt/x", "/mnt/x/a"]


# -- what becomes of the reports --------------------------------------------------------------------------------------


def test_a_record_with_gaps_is_partial_and_one_of_what_was_unmounted_is_broken() -> None:
    told: list[str] = []
    opens = Opens("/mnt/x", ["models"], {}, on_open=told.append)
    take = cast(Any, opens)._take
    for count in (1, 2):
        take({"path": "models/a", "order": 1, "at": float(count), "count": count})
    assert ([*opens.seen], told) == (["models/a"], ["models/a", "models/a"])
    assert (opens.seen["models/a"].times, opens.seen["models/a"].count) == ([1.0, 2.0], 2)
    assert (opens.partial, opens.broken) == (False, False)
    take({"lost": True})
    assert (opens.partial, opens.broken) == (True, False)
    take({"gone": True})
    assert opens.broken
