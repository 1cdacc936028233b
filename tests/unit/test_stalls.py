"""What a thread waits for, as /proc shows it; and what of it counts as a stalled read."""

from __future__ import annotations

import pytest

from mountd.mount.stalls import StalledReads, Wait, wait_of

WAITS = [
    # state, wchan, in a page fault, a call about a file of the mount; seen on Linux 6.18 unless said otherwise
    ("read", "D", "folio_wait_bit_common", False, True, Wait.CONTENT),
    ("read, Linux 5.10", "D", "wait_on_page_bit_common", False, True, Wait.CONTENT),
    ("direct read", "D", "fuse_direct_IO", False, True, Wait.CONTENT),
    ("synchronous read", "S", "request_wait_answer", False, True, Wait.CONTENT),
    ("killed read", "D", "request_wait_answer", False, True, Wait.CONTENT),
    ("mapped, no read-ahead", "S", "request_wait_answer", True, False, Wait.CONTENT),
    ("mapped", "D", "folio_wait_bit_common", True, False, Wait.PAGE),
    ("mapped, for a driver", "D", "folio_wait_bit_common", False, False, Wait.PAGE),
    ("open, listdir", "S", "request_wait_answer", False, False, Wait.ANSWER),
    ("behind a lookup", "D", "fuse_lock_inode", False, False, Wait.ANSWER),
    ("wchan may not be read", "D", "0", False, False, Wait.UNKNOWN),
    ("vfork", "D", "kernel_clone", False, False, Wait.NOTHING),
    ("NFS", "D", "rpc_wait_bit_killable", False, False, Wait.NOTHING),
    ("idle", "S", "do_sys_poll", False, False, Wait.NOTHING),
    ("wchan may not be read", "S", "0", False, False, Wait.NOTHING),
]


@pytest.mark.parametrize("row", WAITS, ids=[f"{row[0]}-{row[1]}" for row in WAITS])
def test_what_a_thread_waits_for(row: tuple[str, str, str, bool, bool, Wait]) -> None:
    _, state, where, fault, on_file, expected = row
    assert wait_of(state, where, fault=fault, on_file=on_file) is expected


C, A, P, U = (frozenset({key}) for key in "capu")


@pytest.mark.parametrize(
    ("unanswered", "expected"),
    [
        (0, StalledReads()),
        (3, StalledReads(content=C | P | U, answer=A)),
        (None, StalledReads(content=C, answer=A | P, unknown=U)),
    ],
)
def test_what_the_kernel_counts_decides(unanswered: int | None, expected: StalledReads) -> None:
    assert StalledReads(C, A, P, U).given(unanswered) == expected
    assert not StalledReads().given(unanswered)
