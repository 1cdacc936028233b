"""SIGTERM on a rung of the ladder of a start."""

from __future__ import annotations

from collections.abc import Callable

from bench.figures import Sample
from bench.stage import Stage
from tests.support.rungs import Rig, assert_ends


def end(stage: Stage, rung: Callable[[Rig], None]) -> Sample:
    """Serving is the time until it has exited, within its promise and with nothing left."""
    daemon = stage.renew()
    rig = Rig(daemon, stage.store, stage.proxy, stage.rclone)
    try:
        with rig.ends:
            rung(rig)
            return Sample(serving_s=assert_ends(daemon))
    finally:
        stage.proxy.faults.clear()
        stage.proxy.up()
