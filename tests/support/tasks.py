"""The daemon's tasks for a test, which a bug in one of them fails."""

from __future__ import annotations

import pytest

from mountd.daemon.tasks import Tasks
from mountd.daemon.threads import Reserve
from mountd.status.board import Board


def tasks_of(board: Board) -> Tasks:
    return Tasks(board, Reserve(), lambda: pytest.fail("a task has met a bug: see the log"))
