"""Documents stay small and say what was left out, whatever the bucket holds."""

from __future__ import annotations

from mountd.api import documents
from mountd.model.content import Content
from mountd.status.snapshot import ModelStatus


def test_a_version_with_many_problems() -> None:
    problems = tuple(f"{number} is missing" for number in range(100_000))
    content = Content("v1", "hub_v1", {"a": 1}, "d", False, problems)
    document = documents.versions("hub", [content], ModelStatus(mount="storage", link="/l"))
    (row,) = document["versions"]
    assert (len(row["problems"]), row["problem_count"]) == (documents.PROBLEMS_SHOWN, 100_000)
