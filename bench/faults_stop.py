"""SIGTERM on each rung of the ladder of a start."""

from __future__ import annotations

from bench.figures import Sample
from bench.stage import Stage
from tests.support.rungs import RUNGS, Rig, assert_ends


def end(stage: Stage, number: int) -> Sample:
    """On rung `number` (modulo their count). Serving: until it has exited, within its promise, with nothing left."""
    rung = RUNGS[number % len(RUNGS)]
    daemon = stage.renew()
    rig = Rig(daemon, stage.store, stage.proxy, stage.rclone)
    try:
        with rig.ends:
            rung(rig)
            return Sample(serving_s=assert_ends(daemon))
    except AssertionError as error:
        return Sample(broken=f"{rung.__name__}: {error}")
    finally:
        stage.proxy.faults.clear()
        stage.proxy.up()
