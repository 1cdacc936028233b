"""Who came of whom, by a table of parents."""

from __future__ import annotations

import os
import subprocess

from mountd.process.family import Process, descendants, of, table

NOW = {
    1: Process(0, 0),
    10: Process(1, 100),  # the app
    11: Process(10, 101),
    12: Process(11, 102),
    20: Process(1, 103),  # was seen below the app, and came loose
    21: Process(20, 104),
    30: Process(1, 105),
}


def test_all_that_came_of_what_is_known() -> None:
    assert descendants({(10, 100), (20, 103)}, NOW) == {(10, 100), (11, 101), (12, 102), (20, 103), (21, 104)}


def test_a_number_that_was_given_again_is_somebody_elses() -> None:
    assert descendants({(10, 99), (20, 103), (40, 1)}, NOW) == {(20, 103), (21, 104)}


def test_the_real_table() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        (known,) = of(child.pid)
        assert descendants(of(os.getpid()), table()) >= {known}
        child.kill()
    assert of(child.pid) == set()
