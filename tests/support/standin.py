"""A stand-in for the daemon: plain HTTP from the standard library on a Unix socket."""

import json
import socketserver
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = Callable[["Asked"], tuple[int, object]]


class Asked:
    def __init__(self, method: str, target: str, body: bytes) -> None:
        parts = urlsplit(target)
        self.what = f"{method} {parts.path}"
        self.query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.body: Any = json.loads(body) if body else None


class StandIn:
    """`answers`: "GET /path" → a function of what was asked that gives HTTP status and document.

    A list is sent as a stream of lines, bytes as they are.
    """

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.asked: list[Asked] = []
        self.answers: dict[str, Answer] = {}
        self.status = STATUS
        self.answers["GET /api/v1/status"] = lambda _: (200, self.status)
        self.answers["GET /api/v1/history"] = lambda _: (200, {"schema": 1, "history": [], "next": None})
        self._server: socketserver.BaseServer | None = None

    def start(self) -> None:
        standin = self

        class Handler(BaseHTTPRequestHandler):
            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                asked = Asked(self.command, self.path, self.rfile.read(length))
                standin.asked.append(asked)
                status, document = standin.answers[asked.what](asked)
                if not status:
                    return  # closes the connection without an answer
                self.send_response(status)
                if isinstance(document, bytes):
                    self.end_headers()
                    self.wfile.write(document)
                    return
                if isinstance(document, list):
                    self.end_headers()
                    for line in document:
                        self.wfile.write(json.dumps(line).encode() + b"\n")
                    return
                data = json.dumps(document).encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A client that went away is none: what is printed would stand in the output of the next test."""

        self._server = Server(self.path, Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            Path(self.path).unlink(missing_ok=True)
            self._server = None


STATUS: dict[str, Any] = {
    "schema": 1,
    "version": "0.1.0",
    "pid": 812,
    "uptime_s": 3723.0,
    "ready": True,
    "health": "Degraded",
    "reasons": [
        {
            "code": "bucket-unreachable",
            "text": "cannot list 存储桶: refused",
            "layer": "bucket",
            "object": "compshare",
            "hint": "check the network",
        },
        {"code": "x", "text": "something of no layer", "layer": "", "object": "", "hint": ""},
    ],
    "remotes": {"compshare": {"health": "Degraded"}},
    "mounts": {
        "storage": {
            "state": "running",
            "stage": "ready",
            "health": "Healthy",
            "path": "/mnt/存储",
            "remote": "c:b",
            "pid": 830,
            "restarts": 1,
            "since": "2026-01-01T00:00:00Z",
            "cache": {"bytes_used": 1536, "files": 2, "uploads_queued": 0},
        }
    },
    "models": {
        "cache_hub": {
            "stage": "linked",
            "health": "Healthy",
            "current": "v22",
            "previous": None,
            "desired": "v22",
            "sync": "Synced",
            "link": "/srv/hub",
            "target": "/mnt/x",
            "digest": "ab",
            "verified": True,
            "warmed_percent": 100,
        }
    },
    "apps": {
        "webui": {
            "state": "running",
            "ready": True,
            "health": "Healthy",
            "pid": 901,
            "restarts": 0,
            "versions": {"cache_hub": "v22"},
        }
    },
    "operation": None,
    "operations": [],
}

OPERATION: dict[str, Any] = {
    "schema": 1, "id": 17,
    "kind": "switch", "model": "cache_hub", "from": "v22", "to": "v23", "operator": "root", "source": "cli",
    "step": "warm", "percent": 40, "eta_s": 3.0, "started": "2026-01-01T00:00:00Z", "finished": None, "result": None,
    "reason": None, "duration_s": None, "cause": None, "error": None,
}  # fmt: skip


def error(status: int, exit_code: int, text: str, hint: str = "", holder: str = "") -> Answer:
    document = {"schema": 1, "error": {"exit": exit_code, "text": text, "hint": hint, "holder": holder}}
    return lambda _: (status, document)


def accept(standin: StandIn, *steps: Mapping[str, object], path: str = "/api/v1/switch", **answer: object) -> None:
    """Let the daemon take a switch, whose operation then is at each of `steps` in turn, for ever at the last."""
    left = [{**OPERATION, **step} for step in steps]

    def poll(_: Asked) -> tuple[int, object]:
        return 200, left.pop(0) if len(left) > 1 else left[0]

    accepted = {"schema": 1, "operation": OPERATION, "unchanged": False, "timeout_s": 30, **answer}
    standin.answers[f"POST {path}"] = lambda _: (202, accepted)
    standin.answers["GET /api/v1/operations/17"] = poll


COMMITTED = {"finished": "2026-01-01T00:01:00Z", "result": "committed", "duration_s": 12.34, "step": "commit"}
