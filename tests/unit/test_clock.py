"""Every time that mountd writes has one form."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from mountd.clock import now_text


@pytest.mark.parametrize(
    ("timespec", "form"),
    [
        ("milliseconds", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
        ("seconds", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    ],
)
def test_a_time_is_utc_in_iso_8601(timespec: str, form: str) -> None:
    text = now_text(timespec)
    assert re.fullmatch(form, text)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(text)) < timedelta(minutes=1)
