"""`mountd wait --for ready` and `--for version=V`: waits until the condition holds, or can no longer hold."""

from __future__ import annotations

import time

from mountd.cli.labels import word
from mountd.cli.options import Options
from mountd.cli.progress import CHANGES, LONG_POLL_S, named
from mountd.client import api
from mountd.client.api import Document
from mountd.errors import MountdError, NotFound, StillRunning, Unreachable, UsageError
from mountd.text import did_you_mean

ANSWER_S = 5.0
RETRY_S = 0.5
RECENT_S = 300.0
"""A switch that failed so shortly before the wait is the one that is meant; an older one says nothing of the next."""
DRIFTED = ("link-drifted", "link-blocked")
"""Reasons of a model whose link is not as mountd placed it."""
DONE = ("committed", "passed", "done")
EXITS = {"rolled-back": 5, "refused": 7}


def wait_for(options: Options, condition: str, model: str | None, timeout_s: float) -> Document:
    """The first status in which `condition` (`ready`, `version=V`) holds, also before the daemon has started.

    Raises StillRunning with the reasons why it does not hold yet, Unreachable when no daemon answered by then, and what
    a switch to the version failed for when mountd does not try again.
    """
    failures, patience_s = Failures(), LONG_POLL_S if condition == "ready" else 0.0
    deadline = time.monotonic() + timeout_s
    failed: MountdError
    while True:
        began = time.monotonic()
        wait, patience_s = min(max(deadline - began, 0.0), patience_s), LONG_POLL_S
        parameters = {"wait": f"{wait:.1f}", "for": condition, "model": model}
        try:
            status = api.get(options.find(), "/api/v1/status", timeout_s=wait + ANSWER_S, **parameters)
            if _holds(condition, status, model):
                return status
            if condition != "ready":
                failures.check(options.find(), status, _model(status, model), condition.partition("=")[2])
            why = _why_not(condition, status, model)
            failed = StillRunning(f"--timeout ran out before {condition.replace('=', ' ')}{why}")
        except Unreachable as error:
            failed = error
        if time.monotonic() >= deadline:
            raise failed
        time.sleep(max(0.0, min(began + RETRY_S, deadline) - time.monotonic()))


def _holds(condition: str, status: Document, model: str | None) -> bool:
    """Whether it is `ready`, or `version=V`: the link points there, as mountd placed it, and no operation runs.

    Raises NotFound, UsageError.
    """
    if condition == "ready":
        return bool(status["ready"])
    found = _model(status, model)
    linked = found["stage"] == "linked" and found["current"] == condition.partition("=")[2]
    drifted = any(each["object"] == found["name"] and each["code"] in DRIFTED for each in status["reasons"])
    busy = any(each["model"] == found["name"] and each["kind"] != "warm" for each in status["operations"])
    return linked and not drifted and not busy


def _model(status: Document, name: str | None) -> Document:
    models: Document = status["models"]
    if name is None and len(models) == 1:
        name = next(iter(models))
    if name is None:
        raise UsageError("--model is needed", hint=f"one of {', '.join(models)}" if models else "there are no models")
    if name not in models:
        hint = f"{did_you_mean(name, models)}one of {', '.join(models)}" if models else "there are none"
        raise NotFound(f"there is no model {name}", hint=hint)
    return {"name": name, **models[name]}


def _why_not(condition: str, status: Document, model: str | None) -> str:
    lines = [reason["text"] for reason in status["reasons"]]
    if condition != "ready":
        lines.insert(0, f"the live version is {_model(status, model)['current'] or 'none'}")
    return "".join(f"\n  {line}" for line in lines)


class Failures:
    """Finds the operation after which a version does not become live any more."""

    def __init__(self) -> None:
        self._began = time.time()
        self._newest: int | None = None
        """the last operation of the model when the wait began"""

    def check(self, path: str, status: Document, model: Document, version: str) -> None:
        """Raises what the last switch of the model failed for, if it was one to `version` and none follows."""
        name = model["name"]
        runs = any(each["model"] == name and each["kind"] != "warm" for each in status["operations"])
        waits = any((each["model"], each["version"]) == (name, version) for each in status.get("scheduled") or ())
        last = _last_change(path, name)
        if self._newest is None:
            self._newest = last["id"] if last else 0
        if runs or waits or model.get("pending") == version or not last or last["to"] != version:
            return
        if not last["finished"] or last["result"] in DONE:
            return
        if not _is_given_up(status, model, version) and not self._is_meant(last):
            return
        error = last["error"] or {}
        code = error.get("exit") or EXITS.get(last["result"], MountdError.exit_code)
        text = f"{version} does not become live: {named(last)}: {word(last['result'])}: {error.get('text') or ''}"
        raise api.failure({"exit": code, "text": text, "hint": error.get("hint")})

    def _is_meant(self, last: Document) -> bool:
        from mountd.cli.times import time_of

        assert self._newest is not None
        return last["id"] > self._newest or self._began - time_of(last["finished"]) < RECENT_S


def _is_given_up(status: Document, model: Document, version: str) -> bool:
    """It is declared, and mountd does not try it again by itself: it does not matter how long ago it failed."""
    return model.get("desired") == version and any(
        (each["code"], each["object"]) == ("switch-failed", model["name"]) for each in status["reasons"]
    )


def _last_change(path: str, model: str) -> Document | None:
    """The newest switch or rollback of the model."""
    found: list[Document] = []
    for kind in CHANGES:
        found += api.get(path, "/api/v1/history", model=model, kind=kind, limit=1, timeout_s=ANSWER_S)["history"]
    return max(found, key=lambda each: int(each["id"]), default=None)
