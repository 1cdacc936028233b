"""Waits for an operation, a condition or a restart, and shows the progress."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from mountd.cli.terminal import say, write_over
from mountd.client import api
from mountd.errors import MountdError, NotFound, Refused, StillRunning, Unreachable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mountd.cli.options import Options

Document = dict[str, Any]
LONG_POLL_S = 20.0
ANSWER_S = 5.0
AWAY_S = 30.0
"""A restarted daemon answers within seconds; one that is away for longer has stopped."""
RETRY_S = 0.5
RESTART_POLL_S = 0.3
FALLBACK_LIMIT_S = 3600.0
"""For a daemon that does not say how long an operation may take."""
SHORT_S = 2.0
"""A step that takes no longer needs no explanation."""
CHANGES = ("switch", "rollback")
DRIFTED = ("link-drifted", "link-blocked")
"""Reasons of a model whose link is not as mountd placed it."""
DONE = ("committed", "passed")
UNDONE = ("cancelled", "rolled-back")


def follow_operation(options: Options, path: str, answer: Document, timeout_s: float | None) -> None:
    """Show the operation of a 202 `answer` until it has finished, and print the result.

    Raises its failure, StillRunning, Unreachable.
    """
    operation = _finished(options, path, answer, timeout_s)
    if operation.get("result") not in DONE:
        raise _failure(operation)
    if options.json:
        return
    took = operation.get("duration_s")
    in_time = f" ({took:.1f} s)" if took is not None else ""
    if operation.get("kind") in CHANGES:
        say(f"{operation['model']} is at {operation['to']}{in_time}")
    else:
        say(f"{_what(operation)} {operation['result']}{in_time}")


def follow_cancel(options: Options, path: str, answer: Document, timeout_s: float | None) -> None:
    """As `follow_operation`, for one that is being undone: here that is the success."""
    operation = _finished(options, path, answer, timeout_s)
    if operation.get("result") in DONE:
        raise Refused(
            f"cannot cancel {named(operation)}: it was committed before it could be undone",
            hint="`mountd rollback` goes back to the previous version",
        )
    if operation.get("result") not in UNDONE:
        raise _failure(operation)
    if not options.json:
        live = operation.get("from") or "nothing"
        say(f"{named(operation)} was undone: {operation['model']} is at {live}")


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
        timeout_s = float(answer.get("timeout_s") or FALLBACK_LIMIT_S)
    progress = ProgressLine()
    try:
        operation = until_finished(path, operation, time.monotonic() + timeout_s, progress)
    except KeyboardInterrupt:
        progress.end()
        say(f"{continues(operation)}; {pick_up(operation)}", err=True)
        raise
    except MountdError:
        if options.json:
            options.print_json(operation)
        raise
    finally:
        progress.end()
    if options.json:
        options.print_json(operation)
    return operation


def until_finished(path: str, operation: Document, deadline: float, progress: ProgressLine) -> Document:
    """The operation once it has finished. Raises StillRunning, Unreachable."""
    away: MountdError | None = None
    away_since: float | None = None
    while not operation.get("finished"):
        progress.show(operation)
        left = deadline - time.monotonic()
        if left <= 0:
            if away:
                raise away
            raise StillRunning(
                f"{continues(operation)}: it did not finish before --timeout, step {operation.get('step')}",
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
            # Long polling paces itself; this is for a daemon that answers at once, with nothing new.
            if not operation.get("finished") and operation.get("step") == seen.get("step"):
                time.sleep(max(0.0, min(RETRY_S - (time.monotonic() - began), deadline - time.monotonic())))
    progress.show(operation)
    return operation


def continues(operation: Document) -> str:
    """For a caller that stops waiting."""
    return f"{named(operation)} continues"


def named(operation: Document) -> str:
    """`operation 7 (switch cache_hub v22 → v23)`."""
    return f"operation {operation['id']} ({_what(operation)})"


def pick_up(operation: Document) -> str:
    """How to wait for it again, and how to undo it."""
    wait = f"`mountd wait --for operation={operation['id']}` waits until it has finished"
    return f"{wait}, `mountd cancel` undoes it" if operation.get("kind") in CHANGES else wait


def _failure(operation: Document) -> MountdError:
    cause = operation.get("cause") or operation.get("result") or "no cause was given"
    kind = operation.get("kind") or "switch"
    doing = "roll back" if kind == "rollback" else kind
    text = f"cannot {doing} {operation.get('model')} to {operation.get('to')}: {cause}"
    return api.failure(operation.get("error") or {"exit": 1, "text": text})


def _what(operation: Document) -> str:
    if operation.get("kind") == "drill":
        return f"drill {operation.get('to')} of {operation.get('model')}"
    start = operation.get("from") or "nothing"
    return f"{operation.get('kind')} {operation.get('model')} {start} → {operation.get('to')}"


class ProgressLine:
    """On a terminal one line that is written over, elsewhere a line for each step and each 20 s of one; on stderr."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.interval_s = 1.0 if self.live else LONG_POLL_S
        self._last = ""
        self._shown: set[str] = set()

    def show(self, operation: Document) -> None:
        self._show_once(operation.get("killed") or ())
        step = str(operation.get("step") or "")
        percent, eta_s = operation.get("percent"), operation.get("eta_s")
        line = f"{_what(operation)}: {step}"
        if percent or (self.live and percent is not None):
            line += f"  {_bar(percent)} {percent} %" if self.live else f" {percent} %"
        if eta_s is not None:
            line += f"  about {eta_s:.0f} s left" if self.live else f", about {eta_s:.0f} s left"
        line += _waiting(operation)
        if not self.live:
            if step and line != self._last:
                say(line, err=True)
            self._last = line
            return
        write_over(line)
        self._last = line

    def _show_once(self, sentences: Iterable[str]) -> None:
        for sentence in sentences:
            if sentence not in self._shown:
                self._shown.add(sentence)
                self.end()
                say(sentence, err=True)

    def end(self) -> None:
        """Free the line for what comes next."""
        if self.live and self._last:
            write_over("")


def _waiting(operation: Document) -> str:
    """For which app the step waits, since when, how long at most, and what that said last."""
    app, step_s, limit_s = operation.get("waits_for"), operation.get("step_s"), operation.get("limit_s")
    if not app or step_s is None or step_s < SHORT_S:
        return ""
    most = f" of at most {limit_s:.0f} s" if limit_s else " s"
    said = f": {operation['said']}" if operation.get("said") else ""
    return f"  {app}, {step_s:.0f}{most}{said}"


def _bar(percent: float, width: int = 20) -> str:
    full = round(width * min(max(percent, 0), 100) / 100)
    return "━" * full + "╌" * (width - full)


def wait_for(options: Options, condition: str, model: str | None, timeout_s: float) -> Document:
    """The first status in which `condition` (`ready`, `version=V`) holds, also before the daemon has started.

    Raises StillRunning with the reasons why it does not hold yet, Unreachable when no daemon answered by then.
    """
    deadline = time.monotonic() + timeout_s
    status: Document | None = None
    away: Unreachable | None = None
    while True:
        began = time.monotonic()
        left = max(deadline - began, 0.0)
        wait = min(left, LONG_POLL_S)
        parameters = {"wait": f"{wait:.1f}", "for": condition, "model": model}
        try:
            status = api.get(options.find(), "/api/v1/status", timeout_s=wait + ANSWER_S, **parameters)
            away = None
            if holds(condition, status, model):
                return status
        except Unreachable as error:
            away = error
        if time.monotonic() >= deadline:
            break
        # Long polling paces itself; this is for a daemon that is away, or answers at once.
        time.sleep(max(0.0, min(RETRY_S - (time.monotonic() - began), deadline - time.monotonic())))
    if away:
        raise away
    assert status is not None
    raise StillRunning(f"--timeout ran out before {condition.replace('=', ' ')}{_why_not(condition, status, model)}")


def holds(condition: str, status: Document, model: str | None) -> bool:
    """Whether it is `ready`, or `version=V`: the link points there, as mountd placed it, and no operation runs.

    Raises NotFound, UsageError.
    """
    if condition == "ready":
        return bool(status.get("ready"))
    found = _model(status, model)
    linked = found.get("stage") == "linked" and found.get("current") == condition.partition("=")[2]
    drifted = any(
        reason.get("object") == found["name"] and reason.get("code") in DRIFTED
        for reason in status.get("reasons") or []
    )
    busy = any(operation["model"] == found["name"] for operation in _operations(status))
    return linked and not drifted and not busy


def _operations(status: Document) -> list[Document]:
    one = status.get("operation")
    return list(status.get("operations") or ([one] if one else []))


def _model(status: Document, name: str | None) -> Document:
    models: Document = status.get("models") or {}
    if name is None and len(models) == 1:
        name = next(iter(models))
    if name is None:
        raise UsageError("--model is needed", hint=f"one of {', '.join(models)}" if models else "there are no models")
    if name not in models:
        raise NotFound(f"there is no model {name}", hint=f"one of {', '.join(models)}" if models else "there are none")
    return {"name": name, **models[name]}


def _why_not(condition: str, status: Document, model: str | None) -> str:
    lines = [reason["text"] for reason in status.get("reasons") or []]
    if condition != "ready":
        lines.insert(0, f"the live version is {_model(status, model).get('current') or 'none'}")
    return "".join(f"\n  {line}" for line in lines)


def restart(options: Options, name: str, timeout_s: float) -> Document:
    """Restart a mount or an app → its status once it runs again. Raises NotFound, StillRunning, MountdError."""
    path = options.find()
    before = _thing(api.get(path, "/api/v1/status"), name)
    api.post(path, "/api/v1/restart", {"name": name})
    deadline = time.monotonic() + timeout_s
    changed = False
    for now in _states(path, name, deadline):
        changed = changed or _life(now) != _life(before)
        if not changed:
            continue
        if now.get("state") == "running" and now.get("stage", "ready") == "ready":
            return now
        if now.get("state") in {"failed", "backoff"}:
            reason = now.get("reason") or {}
            raise MountdError(
                f"cannot restart {name}: {reason.get('text') or 'it did not start'}",
                hint=str(reason.get("hint") or "") or f"`mountd logs {name}` shows what it said",
            )
    raise StillRunning(f"{name} is not running before --timeout", hint=f"mountd keeps trying; see `mountd logs {name}`")


def _states(path: str, name: str, deadline: float) -> Iterator[Document]:
    while time.monotonic() < deadline:
        try:
            yield _thing(api.get(path, "/api/v1/status"), name)
        except Unreachable:
            if time.monotonic() + RESTART_POLL_S >= deadline:
                raise
        time.sleep(RESTART_POLL_S)


def _life(thing: Document) -> tuple[object, ...]:
    """What differs once the old process has exited."""
    return thing.get("state"), thing.get("since"), thing.get("pid"), thing.get("restarts")


def _thing(status: Document, name: str) -> Document:
    """The mount or app of that name, with the reason for its health."""
    things: Document = {**(status.get("apps") or {}), **(status.get("mounts") or {})}
    if name not in things:
        raise NotFound(f"there is no mount or app {name}", hint=f"one of {', '.join(things)}" if things else "")
    reasons = [reason for reason in status.get("reasons") or [] if reason.get("object") == name]
    return {"reason": reasons[0] if reasons else None, **things[name]}


def watch(draw: Callable[[], None], interval_s: float = 1.0) -> None:
    """Call `draw` at once and each `interval_s`, until Ctrl-C."""
    while True:
        draw()
        time.sleep(interval_s)
