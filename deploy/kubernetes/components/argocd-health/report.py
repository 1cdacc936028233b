"""Writes what this pod's mountd is doing into a ConfigMap, where Argo CD's health check finds it.

It uses only the standard library, and connects only to mountd in this pod and to the Kubernetes API. It writes another
health at once, and a line that has changed with the same health at most once a minute. After any failure it tries again
at the next look; a failure never ends the pod.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

LOOK_S = 10.0
PROGRESS_S = 60.0
"""Not shorter: all pods write the same ConfigMap, and Argo CD refreshes the application each time that it changes."""
TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 1024 * 1024
MAX_TEXT = 300
PREFIX = "health.mountd/"
"""Of the annotation that holds the health of a pod: `health.mountd/index-tts-0: Progressing`."""
ACCOUNT = Path(os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))


def summarize(status: dict[str, Any]) -> tuple[str, str]:
    """mountd's status → health in Argo CD's words, and one line: what runs, how far it is, or why it is not well."""
    if operation := status.get("operation"):
        return "Progressing", _operation(operation)
    health = str(status["health"])
    if health == "Healthy" and not status["ready"]:
        health = "Progressing"
    lines = [_model(name, model) for name, model in status["models"].items()]
    if health != "Healthy" or not lines:
        lines += [str(reason["text"]) for reason in status["reasons"][:1]]
    return health, "; ".join(lines)[:MAX_TEXT]


def _operation(operation: dict[str, Any]) -> str:
    start, target = operation.get("from") or "nothing", operation.get("to")
    line = f"{operation['kind']} {operation.get('model')} {start} → {target}: {operation.get('step')}"
    if operation.get("percent"):
        line += f" {operation['percent']} %"
    return line[:MAX_TEXT]


def _model(name: str, model: dict[str, Any]) -> str:
    line = f"{name} {model.get('current') or 'waits for ' + str(model.get('desired'))} ({model['stage']})"
    if loading := model.get("loading"):
        line += f", {loading['level']} of {loading['version']} {loading['percent']} %"
    if model.get("sync") == "OutOfSync":
        line += f", wanted is {model.get('desired')}"
    if model.get("suspended"):
        line += f", sync suspended: {model['suspended']}"
    return line


def patch(pod: str, found: tuple[str, str] | None) -> dict[str, Any]:
    """The merge patch of the ConfigMap; None: this pod leaves."""
    health, text = found or (None, None)
    return {"metadata": {"annotations": {PREFIX + pod: health}}, "data": {pod: text}}


def is_due(found: tuple[str, str], written: tuple[str, str] | None, age_s: float) -> bool:
    """Whether to write it now; `age_s`: since `written` was written."""
    return written is None or found[0] != written[0] or (found != written and age_s >= PROGRESS_S)


def ask(url: str, token_file: str) -> dict[str, Any]:
    """mountd's status. Raises OSError, ValueError."""
    headers = {"Accept": "application/json"}
    if token_file and Path(token_file).exists():
        headers["Authorization"] = f"Bearer {Path(token_file).read_text('ascii').strip()}"
    request = urllib.request.Request(f"{url}/api/v1/status", headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        status: dict[str, Any] = json.loads(answer.read(MAX_ANSWER_BYTES))
    return status


def write(change: dict[str, Any]) -> None:
    """Raises OSError."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    place = f"namespaces/{os.environ['POD_NAMESPACE']}/configmaps/{os.environ['STATUS_CONFIGMAP']}"
    request = urllib.request.Request(
        f"https://{f'[{host}]' if ':' in host else host}:{port}/api/v1/{place}",
        data=json.dumps(change).encode(),
        method="PATCH",
        headers={
            "Content-Type": "application/merge-patch+json",
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text('ascii').strip()}",
        },
    )
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:
        answer.read(MAX_ANSWER_BYTES)


def main() -> None:
    pod, url = os.environ["POD_NAME"], os.environ["MOUNTD_URL"]
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    written: tuple[str, str] | None = None
    written_at = 0.0
    failure = ""
    while not leaving.is_set():
        try:
            found = summarize(ask(url, os.environ.get("MOUNTD_TOKEN_FILE", "")))
        except (OSError, ValueError, KeyError) as error:
            found = "Progressing", f"mountd does not answer: {error}"[:MAX_TEXT]
        try:
            if is_due(found, written, time.monotonic() - written_at):
                write(patch(pod, found))
                written, written_at, failure = found, time.monotonic(), ""
        except (OSError, ValueError, KeyError) as error:
            if str(error) != failure:
                failure = str(error)
                print(f"cannot write the status: {error}", file=sys.stderr, flush=True)
        leaving.wait(LOOK_S)
    try:
        write(patch(pod, None))
    except (OSError, ValueError, KeyError) as error:
        print(f"cannot remove the status: {error}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
