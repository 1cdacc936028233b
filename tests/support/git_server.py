"""A bare Git repository, served over HTTP on loopback by git's own http-backend; it can refuse, vanish and hang."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

AUTHOR = "Ada Lovelace <ada@example.com>"
LIMIT_S = 30.0
TOO_LONG_S = 3600.0
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "LC_ALL": "C",
}


class GitRepository:
    """`directory`: where the bare repository is made."""

    def __init__(self, directory: Path, *, filters: bool = True) -> None:
        self.directory = directory
        self.git("init", "--quiet", "--bare", "--initial-branch=main", str(directory), inside=False)
        self.git("config", "uploadpack.allowFilter", "true" if filters else "false")

    def git(self, *words: str, data: bytes = b"", inside: bool = True) -> str:
        where = ["--git-dir", str(self.directory)] if inside else []
        done = subprocess.run(
            ["git", *where, *words], input=data, capture_output=True, env=ENVIRONMENT, timeout=LIMIT_S, check=True
        )
        return done.stdout.decode().strip()

    def commit(
        self,
        files: Mapping[str, bytes | str],
        message: str = "Change the version",
        *,
        author: str = AUTHOR,
        branch: str = "main",
        rewrite: bool = False,
        mode: str = "100644",
    ) -> str:
        """On top of the branch, or with `rewrite` instead of all its history → the new commit."""
        ref, now = f"refs/heads/{branch}", int(time.time())
        has = not rewrite and bool(self.git("for-each-ref", ref))
        stream = [f"commit {ref}", f"author {author} {now} +0000", f"committer {author} {now} +0000"]
        text = "\n".join([*stream, f"data {len(message.encode())}", message, *([f"from {ref}^0"] if has else []), ""])
        parts = [text.encode()]
        for path, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            parts.append(f"M {mode} inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
        if rewrite:
            parts.insert(0, f"reset {ref}\n\n".encode())
        self.git("fast-import", "--quiet", "--force", data=b"".join(parts))
        return self.git("rev-parse", ref)


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that was killed has gone in the middle."""


class GitServer:
    """Serves the repository at `url`. `login`: what a client must send, as user:password; `pair`: certificate, key."""

    def __init__(self, repository: GitRepository, *, login: str = "", pair: tuple[Path, Path] | None = None) -> None:
        self.repository = repository
        self.login = login
        self.hangs = self.is_down = self.redirects = False
        self.requests: list[str] = []
        self.authorizations: list[str] = []
        self._released = threading.Event()
        served = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                served._answer(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None: ...

        self._http = _Server(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._scheme = "https" if pair else "http"
        if pair is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pair)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._http.server_port}/{self.repository.directory.name}"

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(f"{request.command} {request.path}")
        self.authorizations.append(request.headers.get("Authorization", ""))
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self.hangs:
            self._released.wait(TOO_LONG_S)
        if self.hangs or self.is_down:
            request.close_connection = True
            return
        if self.redirects:
            self._send(request, 301, {"Location": "http://127.0.0.1:9/elsewhere"}, b"")
            return
        wanted = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and request.headers.get("Authorization") != wanted:
            self._send(request, 401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
            return
        path, _, query = request.path.partition("?")
        environment = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.repository.directory.parent),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, capture_output=True, env=environment, timeout=LIMIT_S, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        self._send(request, int(headers.pop("Status", "200").split()[0]), headers, content)

    def _send(self, request: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
        try:
            request.send_response(status)
            for name, value in headers.items():
                request.send_header(name, value)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            request.close_connection = True

    def close(self) -> None:
        self._released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
