"""SIGTERM in a stage of a start."""

from __future__ import annotations

from collections.abc import Callable

from bench.figures import Sample
from bench.stage import Stage
from tests.support.stages import Rig, assert_ends


def end(stage: Stage, reach: Callable[[Rig], None]) -> Sample:
    """Serving is the time until it has exited, within its promise and with nothing left."""
    daemon = stage.renew()
    rig = Rig(daemon, stage.store, stage.proxy, stage.rclone)
    try:
        with rig.ends:
            reach(rig)
            return Sample(serving_s=assert_ends(daemon))
    finally:
        stage.proxy.faults.clear()
        stage.proxy.up()
