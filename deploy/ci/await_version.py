"""Waits until a version is live, and reports the result: for the end of a pipeline.

    await_version.py VERSION [--timeout 40m] [--after ID] [--via "kubectl exec -n index-tts index-tts-0 -c mountd --"]

Runs where `mountd` reaches the daemon, or where the command of --via does. Prints a report in Markdown. Exit codes are
those of mountd: 0 live, 5 rolled back, 7 refused (nothing was changed), 4 undecided at --timeout.
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
LIVE, LATE, ROLLED_BACK, REFUSED = 0, 4, 5, 7
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


def decide(version: str, status: dict[str, Any], history: Sequence[dict[str, Any]], after: int) -> int | None:
    """The exit code, None while it is undecided. `after`: older operations say nothing about this attempt.

    mountd itself retries what failed for a cause that can pass, such as an outage: that is undecided.
    """
    running = any(each["to"] == version for each in status["operations"])
    if running:
        return None
    if any(model["current"] == version and model["stage"] == "linked" for model in status["models"].values()):
        return LIVE
    for operation in history:
        if operation["to"] == version and operation["id"] > after and operation.get("error"):
            code = operation["error"]["exit"]
            return code if code in (ROLLED_BACK, REFUSED) else None
    return None


def report(version: str, code: int, operation: dict[str, Any] | None) -> str:
    title = {LIVE: "is live", ROLLED_BACK: "was rolled back", REFUSED: "was refused", LATE: "is not decided yet"}[code]
    lines = [f"### {version} {title}", ""]
    if operation:
        lines += ["| | |", "|---|---|"]
        lines.append(f"| from → to | {operation.get('from') or 'nothing'} → {operation['to']} |")
        known = [key for key in ("id", "operator", "source", "started") if operation.get(key)]
        lines += [f"| {key} | {operation[key]} |" for key in known]
        if operation.get("duration_s") is not None:
            lines.append(f"| seconds | {operation['duration_s']:.1f} |")
        if error := operation.get("error"):
            lines.append(f"| why | {error['text']} |")
    return "\n".join(lines)


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
    newest: dict[str, Any] | None = None
    code = None
    while code is None and time.monotonic() < deadline:
        status, document = ask(asked.via, "status"), ask(asked.via, "history", "-n", "50")
        if status and document and "history" in document and "models" in status:
            history = document["history"]
            if after is None:
                after = max((each["id"] for each in history), default=0)
            code = decide(asked.version, status, history, after)
            newest = next((each for each in history if each["to"] == asked.version), None)
        if code is None:
            time.sleep(min(POLL_S, max(0.0, deadline - time.monotonic())))
    code = LATE if code is None else code
    print(report(asked.version, code, newest))
    return code


if __name__ == "__main__":
    sys.exit(main())
