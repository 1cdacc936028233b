"""Work that goes on for as long as it is needed: it waits out what the machine lacks, and begins again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

from mountd.errors import Exhausted
from mountd.process.lifecycle import Backoff
from mountd.process.resources import of_the_machine

AGAIN = Backoff(0.5, 2.0, 10.0)
"""Between two tries."""
STEADY_S = 3.0
"""What has worked for so long works again."""

Report = Callable[[Exhausted | None], None]


async def keep(work: Callable[[], Coroutine[None, None, None]], report: Report) -> None:
    """Until `work` returns; once more each time the machine does not let it. Raises whatever else it raises.

    `report` gets what is lacking after each failure, and None once it has worked for STEADY_S since.
    """
    loop, failures = asyncio.get_running_loop(), 0
    while True:
        steady = loop.call_later(STEADY_S, report, None) if failures else None
        began = loop.time()
        try:
            await work()
        except Exception as error:
            found = of_the_machine(error)
            if found is None:
                raise
        else:
            if failures:
                report(None)
            return
        finally:
            if steady is not None:
                steady.cancel()
        failures = 1 if loop.time() - began > STEADY_S else failures + 1
        report(found)
        await asyncio.sleep(AGAIN.delay_s(failures))
