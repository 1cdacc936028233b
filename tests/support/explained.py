"""What `mountd explain` names as the root cause of a fault that a test has brought about."""

from __future__ import annotations

from typing import Any

from mountd.client.api import get
from tests.support.daemon import ANSWER_S, READY_S, Daemon
from tests.support.wait import until


def explanation(daemon: Daemon) -> dict[str, Any]:
    return get(str(daemon.socket), "/api/v1/explain", timeout_s=ANSWER_S)


def until_explained(daemon: Daemon, *codes: str, timeout_s: float = READY_S) -> dict[str, Any]:
    """The explanation, once its root is one of these."""

    def named() -> dict[str, Any] | None:
        found = explanation(daemon)
        return found if found["root"] is not None and found["root"]["code"] in codes else None

    found = until(named, timeout_s, f"{' or '.join(codes)} as the root cause", every_s=0.02)
    assert found is not None
    assert found["root"]["text"]
    assert found["root"]["evidence"], found
    assert found["chain"][-1]["code"] == found["root"]["code"]
    return found
