"""What an answer of the bucket is called, and when it is logged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from mountd.errors import RemoteError
from tests.unit.test_bucket_probe import EMPTY, NO_ROOM, bucket_of, code_of, patient
from tests.unit.test_rclone_rc import Fake, fake

__all__ = ["fake", "patient"]


async def test_a_problem_is_logged_once_as_long_as_it_is_the_same(fake: Fake) -> None:
    rclone, client = fake
    bucket, well = bucket_of(client), EMPTY["operations/list"]
    refused = (500, {"error": "AccessDenied: no"})
    with capture_logs() as logs:
        for answer in (well, NO_ROOM, NO_ROOM, refused, well, well):
            rclone.answers |= EMPTY | {"operations/list": answer}
            await bucket.ask()
    assert [(each["log_level"], bool(each.get("hint"))) for each in logs] == [
        ("warning", True),
        ("warning", True),
        ("info", False),
    ]


@pytest.mark.parametrize(("took_s", "code"), [(7.0, "bucket-silent"), (6.9, "bucket-slow")])
async def test_what_takes_all_of_its_time_is_silent(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, took_s: float, code: str
) -> None:
    rclone, client = fake
    rclone.answers |= EMPTY
    now = 0.0
    monkeypatch.setattr("mountd.mount.bucket.time", SimpleNamespace(monotonic=lambda: now))

    async def answer(*_: object, **named: Any) -> Any:
        nonlocal now
        assert named["timeout_s"] == 7.0
        now += took_s
        raise RemoteError("the store has not answered", code="bucket-slow")

    monkeypatch.setattr(client, "list", answer)
    bucket = bucket_of(client)
    assert not await bucket.ask(7.0)
    assert code_of(bucket) == code
