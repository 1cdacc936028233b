"""A restart that is asked for: refused where it would be a stop; and what an app's end means for its next start."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from mountd.process import launch
from mountd.process.child import Exit, NotStarted
from mountd.status import readiness
from mountd.status.snapshot import AppStatus, MountStage, State
from tests.support.shelf import MOUNT, shelf, until
from tests.support.supervised import making
from tests.unit.test_app_environment import app, settings

URL = "http://localhost/api/v1/restart"


async def test_an_app_that_could_not_be_started_again_is_not_stopped() -> None:
    with tempfile.TemporaryDirectory(prefix="mountd-t-") as root:
        async with shelf(Path(root)) as hub, hub.running(), making() as make, hub.serving() as socket:
            await until(lambda: hub.status.linked, "v22 to be linked")
            run = make()
            await run.start()
            hub.supervisors["webui"] = run.supervisor
            hub.board.set_app("webui", AppStatus(needs=("hub",), state=State.RUNNING))
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:

                async def restart() -> tuple[int, int | None]:
                    async with session.post(URL, json={"name": "webui"}) as answer:
                        return answer.status, (await answer.json()).get("error", {}).get("exit")

                hub.board.set_mount("storage", replace(MOUNT, state=State.BACKOFF, stage=MountStage.PREFLIGHT))
                assert await restart() == (422, 7)
                assert run.life.state is State.RUNNING
                assert len(run.program.children) == 1
                hub.board.set_mount("storage", MOUNT)
                await until(lambda: not readiness.blockers(hub.board.snapshot, "webui"), "what it needs to be back")
                assert await restart() == (202, None)
                await run.until_children(2)


@pytest.mark.parametrize(
    ("exit_", "outside"),
    [
        (Exit(-9), True),
        (Exit(-15), True),
        (Exit(0), False),
        (Exit(1), False),
        (Exit(127, NotStarted(launch.MISSING, "x")), False),
    ],
)
def test_only_a_signal_is_an_end_from_outside(exit_: Exit, outside: bool) -> None:
    ending = app("one", settings("env_auth: 'false'")).explain_exit(exit_)
    assert (ending.outside, ending.permanent) == (outside, False)
