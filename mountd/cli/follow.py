"""Waits for an operation or a restart, and shows the progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from mountd.cli.labels import word
from mountd.cli.options import Options
from mountd.cli.progress import CHANGES, ProgressLine, named, pick_up, what
from mountd.cli.terminal import say
from mountd.cli.waiting import DONE
from mountd.client import api
from mountd.client.api import Document
from mountd.errors import MountdError, NotFound, Refused, StillRunning, Unreachable
from mountd.i18n import _
from mountd.text import did_you_mean

ANSWER_S = 5.0
AWAY_S = 30.0
"""A restarted daemon answers within seconds; one that is away for longer has stopped."""
RETRY_S = 0.5
RESTART_POLL_S = 0.3
CANCEL_LIMIT_S = 3600.0
"""The daemon does not say how long undoing may take."""
UNDONE = ("cancelled", "rolled-back")


def print_begun(options: Options, operation: Document, sentence: str) -> None:
    """The id alone on stdout, for scripts."""
    if not options.print_if_json(operation):
        say(operation["id"])
        say(sentence, err=True)


def follow_operation(options: Options, path: str, answer: Document, timeout_s: float | None) -> None:
    """Show the operation of a 202 `answer` until it has finished, and print the result.

    Raises its failure, StillRunning, Unreachable.
    """
    operation = _finished(options, path, answer, timeout_s)
    if operation.get("result") not in DONE:
        raise api.failure(operation["error"])
    if options.json:
        return
    took = operation.get("duration_s")
    in_time = " (" + _("{count} s").format(count=f"{took:.1f}") + ")" if took is not None else ""
    if operation["kind"] in CHANGES:
        done = _("{model} is at {version}").format(model=operation["model"], version=operation["to"])
    else:
        done = f"{what(operation)} {word(operation['result'])}"
    say(f"{done}{in_time}")


def follow_cancel(options: Options, path: str, answer: Document, timeout_s: float | None) -> None:
    """As `follow_operation`, for one that is being undone: here that is the success."""
    operation = _finished(options, path, answer, timeout_s)
    if operation.get("result") in DONE:
        raise Refused(
            f"cannot cancel {named(operation)}: it was committed before it could be undone",
            hint="`mountd rollback` goes back to the previous version",
        )
    if operation.get("result") not in UNDONE:
        raise api.failure(operation["error"])
    if not options.json:
        live = operation.get("from") or word("nothing")
        undone = _("{operation} was undone: {model} is at {version}")
        say(undone.format(operation=named(operation), model=operation["model"], version=live))


def wait_for_operation(options: Options, id_: int, timeout_s: float) -> None:
    """As `follow_operation`, for one that somebody else began, also before the daemon has started."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            path = options.find()
            operation = api.get(path, f"/api/v1/operations/{id_}", timeout_s=ANSWER_S)
        except Unreachable:
            if time.monotonic() + RETRY_S >= deadline:
                raise
            time.sleep(RETRY_S)
        else:
            return follow_operation(options, path, {"operation": operation}, max(deadline - time.monotonic(), 0.0))


def _finished(options: Options, path: str, answer: Document, timeout_s: float | None) -> Document:
    """The operation of `answer` once it has finished, shown meanwhile; with JSON it is printed, finished or not."""
    operation: Document = answer["operation"]
    if timeout_s is None:
        timeout_s = answer.get("timeout_s", CANCEL_LIMIT_S)
    try:
        interrupted = _("{operation} continues; {advice}").format(operation=named(operation), advice=pick_up(operation))
        operation = until_finished(path, operation, timeout_s, interrupted)
    except MountdError:
        options.print_if_json(operation)
        raise
    options.print_if_json(operation)
    return operation


def until_finished(path: str, operation: Document, timeout_s: float, interrupted: str) -> Document:
    """The operation once it has finished, its progress shown meanwhile; `interrupted`: what is said after Ctrl-C.

    Raises StillRunning, Unreachable.
    """
    progress = ProgressLine()
    try:
        return _poll(path, operation, time.monotonic() + timeout_s, progress)
    except KeyboardInterrupt:
        progress.end()
        say(interrupted, err=True)
        raise
    finally:
        progress.end()


def _poll(path: str, operation: Document, deadline: float, progress: ProgressLine) -> Document:
    away: MountdError | None = None
    away_since: float | None = None
    while not operation.get("finished"):
        progress.show(operation)
        left = deadline - time.monotonic()
        if left <= 0:
            if away:
                raise away
            raise StillRunning(
                f"{named(operation)} continues: it did not finish before --timeout, step {operation.get('step')}",
                hint=pick_up(operation),
            )
        wait = min(left, progress.interval_s)
        began, seen = time.monotonic(), operation
        try:
            operation = api.get(
                path,
                f"/api/v1/operations/{operation['id']}",
                timeout_s=wait + ANSWER_S,
                wait=f"{wait:.1f}",
                step=operation.get("step"),
            )
            away, away_since = None, None
        except Unreachable as error:  # a daemon that restarts finishes or undoes what it was at
            away, away_since = error, away_since or time.monotonic()
            if time.monotonic() - away_since > AWAY_S:
                raise
            time.sleep(min(RETRY_S, left))
        else:
            if not operation.get("finished") and operation.get("step") == seen.get("step"):
                _pace(began, deadline)
    progress.show(operation)
    return operation


def _pace(began: float, deadline: float) -> None:
    """Long polling paces itself; this is for a daemon that is away, or answers at once with nothing new."""
    time.sleep(max(0.0, min(began + RETRY_S, deadline) - time.monotonic()))


def restart(options: Options, name: str, timeout_s: float) -> Document:
    """Restart a mount or an app → its status once it runs again. Raises NotFound, StillRunning, MountdError."""
    path = options.find()
    before = _thing(api.get(path, "/api/v1/status"), name)
    api.post(path, "/api/v1/restart", {"name": name})
    return _until_up(path, name, before, time.monotonic() + timeout_s, "restart")


def start(options: Options, name: str, timeout_s: float, reason: str | None) -> Document:
    """Start an app → its status once it runs. Raises NotFound, Busy, StillRunning, MountdError."""
    path = options.find()
    before = _thing(api.get(path, "/api/v1/status"), name)
    asked = api.post(path, "/api/v1/start", {"name": name, "reason": reason})
    if not asked["changed"]:
        before = {}  # it runs already, or is about to
    return _until_up(path, name, before, time.monotonic() + timeout_s, "start")


def stop(options: Options, name: str, timeout_s: float, reason: str | None) -> Document:
    """Stop an app → its status once nothing of it runs. Raises NotFound, Busy, StillRunning."""
    path = options.find()
    api.post(path, "/api/v1/stop", {"name": name, "reason": reason})
    for now in _states(path, name, time.monotonic() + timeout_s):
        if now["state"] == "stopped":
            return now
    raise StillRunning(f"{name} is not stopped before --timeout", hint="`mountd status` shows what it waits for")


def _until_up(path: str, name: str, before: Document, deadline: float, what: str) -> Document:
    """Its status once it runs after `before`."""
    changed, why = False, ""
    for now in _states(path, name, deadline):
        why = f": {now['reason']['text']}" if now["reason"] else ""
        changed = changed or _life(now) != _life(before)
        if not changed:
            continue
        if now["state"] == "running" and now.get("stage", "ready") == "ready":
            return now
        if now["state"] in {"failed", "backoff"}:
            reason = now["reason"] or {}
            raise MountdError(
                f"cannot {what} {name}: {reason.get('text') or 'it did not start'}",
                hint=reason.get("hint") or f"`mountd logs {name}` shows what it said",
            )
    raise StillRunning(
        f"{name} is not running before --timeout{why}", hint=f"mountd keeps trying; see `mountd logs {name}`"
    )


def _states(path: str, name: str, deadline: float) -> Iterator[Document]:
    """Until the `deadline`. Raises Unreachable when no daemon answers then."""
    away: Unreachable | None = None
    while time.monotonic() < deadline:
        try:
            yield _thing(api.get(path, "/api/v1/status"), name)
            away = None
        except Unreachable as error:
            away = error
        time.sleep(RESTART_POLL_S)
    if away is not None:
        raise away


def _life(thing: Document) -> tuple[object, ...]:
    """What differs once the old process has exited."""
    return thing.get("state"), thing.get("since"), thing.get("pid"), thing.get("restarts")


def _thing(status: Document, name: str) -> Document:
    """The mount or app of that name, with the reason for its health."""
    things: Document = {**status["apps"], **status["mounts"]}
    if name not in things:
        near = did_you_mean(name, things)
        raise NotFound(f"there is no mount or app {name}", hint=f"{near}one of {', '.join(things)}" if things else "")
    return {"reason": next((each for each in status["reasons"] if each["object"] == name), None), **things[name]}


def watch(draw: Callable[[], None]) -> None:
    """Call `draw` each second, until Ctrl-C."""
    while True:
        draw()
        time.sleep(1.0)
