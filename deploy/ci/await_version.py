"""Waits until a version is live, and reports the result: for the end of a pipeline.

    await_version.py VERSION [--timeout 40m] [--after ID] [--via "kubectl exec -n index-tts index-tts-0 -c mountd --"]

Runs where `mountd` reaches the daemon, or where the command of --via does. Prints a report in Markdown. Exit codes are
those of mountd: 0 live, 5 rolled back, 7 refused (nothing was changed), 1 given up after another failure, 4 undecided
at --timeout. 5, 7 and 1 come as soon as mountd does not try the version again by itself, also when that was decided
before this began.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

POLL_S = 5.0
ASK_S = 60.0
LIVE, GIVEN_UP, LATE, ROLLED_BACK, REFUSED = 0, 1, 4, 5, 7
CHANGES = ("switch", "rollback")
REASONS_SHOWN = 5
UNITS = {"s": 1, "m": 60, "h": 3600}


def ask(via: Sequence[str], *words: str) -> dict[str, Any] | None:
    """The JSON document of a mountd command; None when mountd cannot be asked now, such as while a pod is replaced."""
    try:
        done = subprocess.run([*via, "mountd", *words, "-o", "json"], capture_output=True, timeout=ASK_S, check=False)
        document: dict[str, Any] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        print(f"cannot ask mountd: {error}", file=sys.stderr, flush=True)
        return None
    return document


def decide(
    version: str, status: dict[str, Any], history: Sequence[dict[str, Any]], after: int
) -> tuple[int, str] | None:
    """The exit code and its cause, None while it is undecided.

    For a version that a file or Git declares the status alone decides: mountd calls it `pending` for as long as it
    tries, also between two tries, and gives the reason `switch-failed` after the last one. For a version that a person
    asked for the operation decides; one up to the id `after` says nothing about this attempt.
    """
    models = status["models"]
    if any(each["to"] == version for each in status["operations"]):
        return None
    if any(is_live(version, name, status) for name in models):
        return LIVE, ""
    if any(model["pending"] == version for model in models.values()):
        return None
    last = newest(version, history)
    error = (last or {}).get("error") or {}
    code = error.get("exit")
    for reason in status["reasons"]:
        model = models.get(reason["object"])
        if reason["code"] == "switch-failed" and model and model["desired"] == version:
            return code if code in (ROLLED_BACK, REFUSED) else GIVEN_UP, f"{reason['text']} ({reason['hint']})"
    declared = any(model["desired"] == version for model in models.values())
    if not declared and last and last["id"] > after and code in (ROLLED_BACK, REFUSED):
        return code, error["text"]
    return None


def is_live(version: str, name: str, status: dict[str, Any]) -> bool:
    """The model `name` is at `version`, and each app that needs it runs, unless a person has stopped it."""
    model = status["models"][name]
    apps = [app for app in status["apps"].values() if name in app["needs"] and not app["stopped"]]
    is_linked = model["current"] == version and model["stage"] == "linked"
    return is_linked and all(app["state"] == "running" for app in apps)


def newest(version: str, history: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The last switch to it."""
    return next((each for each in history if each["to"] == version and each["kind"] in CHANGES), None)


def report(version: str, code: int, why: str, operation: dict[str, Any] | None) -> str:
    titles = {
        LIVE: "is live",
        ROLLED_BACK: "was rolled back",
        REFUSED: "was refused",
        GIVEN_UP: "was given up",
        LATE: "is not decided yet",
    }
    lines = [f"### {version} {titles[code]}", ""]
    rows = {}
    if operation:
        rows["from → to"] = f"{operation.get('from') or 'nothing'} → {operation['to']}"
        rows |= {key: operation[key] for key in ("id", "operator", "source", "started") if operation.get(key)}
        if operation.get("duration_s") is not None:
            rows["seconds"] = f"{operation['duration_s']:.1f}"
    if why:
        rows["why"] = why
    if rows:
        lines += ["| | |", "|---|---|", *(f"| {key} | {cell(value)} |" for key, value in rows.items())]
    return "\n".join(lines)


def cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def seconds(text: str) -> float:
    if not (found := re.fullmatch(r"(\d+)([smh])", text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 40m or 1h")
    return float(found[1]) * UNITS[found[2]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Wait until a version is live, or rolled back.")
    parser.add_argument("version")
    parser.add_argument("--timeout", type=seconds, default="40m")
    parser.add_argument(
        "--after", type=int, help="an operation: it and older ones do not count [default: the newest one now]"
    )
    parser.add_argument("--via", type=shlex.split, default=[], help="a command that runs another one where mountd is")
    asked = parser.parse_args()
    deadline = time.monotonic() + asked.timeout
    after: int | None = asked.after
    last: dict[str, Any] | None = None
    why = "mountd could not be asked"
    verdict = None
    while verdict is None and time.monotonic() < deadline:
        status, document = ask(asked.via, "status"), ask(asked.via, "history", "-n", "50")
        if status and document and "history" in document and "models" in status:
            history = document["history"]
            if after is None:
                after = max((each["id"] for each in history), default=0)
            verdict = decide(asked.version, status, history, after)
            last = newest(asked.version, history)
            why = "; ".join(each["text"] for each in status["reasons"][:REASONS_SHOWN])
        if verdict is None:
            time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))
    code, why = verdict or (LATE, why)
    print(report(asked.version, code, why, last))
    return code


if __name__ == "__main__":
    sys.exit(main())
