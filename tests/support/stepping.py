"""A clock that goes on with each look at it: a deadline that runs out only after so many tries, on any machine."""

from __future__ import annotations

import asyncio
from types import ModuleType
from typing import Any

import pytest


class SteppingLoop:
    """In place of the running loop, of which only the time is asked."""

    def __init__(self, step_s: float) -> None:
        self._now = 0.0
        self._step_s = step_s

    def time(self) -> float:
        self._now += self._step_s
        return self._now


class SteppingAsyncio:
    """`asyncio`, with such a loop."""

    def __init__(self, step_s: float) -> None:
        self._loop = SteppingLoop(step_s)

    def get_running_loop(self) -> SteppingLoop:
        return self._loop

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def step(monkeypatch: pytest.MonkeyPatch, module: ModuleType, step_s: float) -> None:
    """From now on `module` finds `step_s` seconds gone by each time that it asks its loop for the time."""
    monkeypatch.setattr(module, "asyncio", SteppingAsyncio(step_s))
