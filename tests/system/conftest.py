"""A disk of a small Debian for each test of a machine, to write to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import nspawn

MakeDisk = Callable[[str], Path]


@pytest.fixture
def make_disk() -> Iterator[MakeDisk]:
    """By the name of the suite: bookworm, trixie."""
    with ExitStack() as stack:

        def make(suite: str) -> Path:
            if why_not := nspawn.why_not():
                pytest.skip(why_not)
            try:
                below = nspawn.debian(suite)
            except OSError as error:
                pytest.skip(f"mmdebstrap cannot build a Debian here: {error}")
            room = Path(tempfile.mkdtemp(prefix="mountd-t-"))
            stack.callback(shutil.rmtree, room, ignore_errors=True)
            return stack.enter_context(nspawn.layer(below, room))

        yield make


@pytest.fixture
def disk(make_disk: MakeDisk) -> Path:
    return make_disk("bookworm")
