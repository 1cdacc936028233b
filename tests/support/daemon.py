"""A real daemon for tests: its own directories and ports, its command line, and an end that leaves nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from mountd.client.api import get
from mountd.demo import hub
from mountd.process.instance import Instance
from tests.support import cgroups, dies_with_us, hold_port
from tests.support.wait import until

BUNDLED_RCLONE = Path(sys.prefix) / "bin" / "rclone"
DEBIAN_RCLONE = Path("/usr/bin/rclone")
WEBUI = Path(hub.__file__).with_name("webui.py")
READY_S = 60.0
LOGGED_S = 30.0
STOP_S = 60.0
ANSWER_S = 30.0
# The product also looks at its links each ten seconds: without that net only what it hears of makes it heal one.
ONLY_BY_EVENTS = """
import sys
from mountd.cli.main import main
from mountd.model import link_guard
link_guard.TICK_S = 600.0
sys.exit(main())
"""
# The product waits for evidence no longer than a repair can: on a busy machine rclone may not have answered by then.
PATIENT_EVIDENCE = """
import sys
from mountd.cli.main import main
from mountd.mount import evidence
evidence.COLLECT_S, evidence.ASK_S, evidence.DUMP_S, evidence.WRITE_S = 20.0, 5.0, 5.0, 5.0
sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command of mountd ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Daemon:
    """`mountd run` over a bucket with the demo's hub; `config` may be changed before `start`."""

    endpoint: str
    access_key_id: str
    secret_access_key: str
    rclone: Path = BUNDLED_RCLONE
    webui: tuple[str, ...] = ()
    """further words for the stand-in's command line"""
    environment: dict[str, str] = field(default_factory=dict)
    program: tuple[str, ...] = (sys.executable, "-m", "mountd")
    wrap: tuple[str, ...] = ()
    """a command that ends in `exec` of what follows it, such as one that enters a namespace of its own"""
    stderr: int | None = None
    """a descriptor for it instead of the log"""

    def __post_init__(self) -> None:
        # Not pytest's tmp_path: its long names would not fit into a Unix socket's address.
        self.root = Path(tempfile.mkdtemp(prefix="mountd-t-"))
        self._web_port, self._http_port = hold_port(), hold_port()
        self.web_port: int = self._web_port.getsockname()[1]
        self.http_port: int = self._http_port.getsockname()[1]
        self.secret = self.root / "secret"
        self.secret.touch(mode=0o600)
        self.secret.write_text(self.secret_access_key)
        self.app = self.root / "index-tts"
        self.app.mkdir()
        self.link = self.app / "cache_hub"
        self.mount = self.root / "mnt"
        self.socket = self.root / "run" / "mountd.sock"
        self.log = self.root / "mountd.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.config: dict[str, Any] = self._config()

    def _config(self) -> dict[str, Any]:
        python = sys.executable
        return {
            "remotes": {
                "store": {
                    "type": "s3",
                    "provider": "Other",
                    "endpoint": self.endpoint,
                    "access_key_id": self.access_key_id,
                    "secret_access_key": {"file": str(self.secret)},
                }
            },
            "mounts": {
                "storage": {
                    "remote": f"store:{hub.BUCKET}",
                    "path": str(self.mount),
                    "cache": {"dir": str(self.root / "cache"), "min_free": "1%"},
                }
            },
            "models": {
                "cache_hub": {
                    "mount": "storage",
                    "directory": "cache_hub_{version}",
                    "link": str(self.link),
                    "version": "v23",
                    "required": ["models/gpt.pth"],
                    "watch": {"for": "0s"},
                }
            },
            "apps": {
                "webui": {
                    "command": [
                        *(python, str(WEBUI), "--port", str(self.web_port), "--model_dir", "./cache_hub"),
                        *self.webui,
                    ],
                    "directory": str(self.app),
                    "environment": {"HF_HUB_OFFLINE": "1"},
                    "needs": ["cache_hub"],
                    "ready": {"http": f"http://127.0.0.1:{self.web_port}/config", "timeout": "60s"},
                    "stop": {"signal": "SIGINT", "grace": "5s"},
                }
            },
            "rclone": {"binary": str(self.rclone)},
            "control": {"socket": str(self.socket)},
            "http": {"listen": f"127.0.0.1:{self.http_port}"},
            "state": str(self.root / "state"),
            "runtime": str(self.root / "run"),
        }

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def instance(self) -> Instance:
        return Instance.of(self.root / "state", self.root / "run")

    @property
    def config_file(self) -> Path:
        return self.root / "mountd.yaml"

    def write_config(self) -> Path:
        """As a person writes it; every scalar may be quoted, mountd reads text anyway.

        As a whole, for on a busy machine half of it could be noticed; a link to it stays.
        """
        file = self.config_file.resolve()
        new = file.with_suffix(".new")
        new.write_text(yaml.safe_dump(self.config, allow_unicode=True, sort_keys=False))
        new.replace(file)
        return self.config_file

    def start(self) -> None:
        """Spawns the daemon and returns at once."""
        assert self.process is None
        self.write_config()
        # The variables of this environment stay (an AWS_CA_BUNDLE among them is a good test); what would change the
        # choice of a daemon or of a flag goes.
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("MOUNTD_", "RCLONE_", "NOTIFY_"))
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                dies_with_us([*self.wrap, *self.program, "run", "-c", str(self.config_file)]),
                env={**kept, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log if self.stderr is None else self.stderr,
                start_new_session=True,
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit code after a graceful stop."""
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(STOP_S)
        self.process = None
        return code

    def wait_exit(self, timeout_s: float = 60.0) -> int:
        """For a daemon that ends by itself."""
        assert self.process is not None
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    def start_ready(self) -> dict[str, Any]:
        self.start()
        return self.until_ready()

    def close(self) -> None:
        """Nothing of it runs or is mounted afterwards, whatever the test did."""
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.end_leftovers()
        self._web_port.close()
        self._http_port.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def end_leftovers(self) -> None:
        """By the marks of this instance only."""
        if self.processes():
            self._end_processes()
        cgroups.clear(self.instance.id)
        for point in reversed(self.mounts()):
            subprocess.run(["fusermount3", "-uz", point], timeout=60, check=False)

    def _end_processes(self) -> None:
        orphans = Path(sys.modules["mountd.process.instance"].__file__ or "").with_name("orphans.py")
        subprocess.run([sys.executable, "-I", "-S", str(orphans), self.instance.id], timeout=60, check=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self.show_log()
        self.close()

    def show_log(self) -> None:
        if self.log.exists():
            print(f"--- the log of {self.root}\n{self.log_text()[-8000:]}")

    # -- looking --------------------------------------------------------------------------------------------------

    def log_text(self) -> str:
        return self.log.read_text(errors="replace")

    def own_log_text(self) -> str:
        """Its log without what the apps said: theirs ends in a traceback when a stop
        meets a Python that still imports."""
        said = [line for line in self.log_text().splitlines() if '"event": "app says"' not in line]
        return "\n".join(said)

    def events(self, phrase: str) -> list[dict[str, Any]]:
        """The lines of its log with this phrase."""
        found = []
        for line in self.log_text().splitlines():
            if f'"{phrase}"' not in line:  # most are another one, and this is asked repeatedly
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if event.get("event") == phrase:
                found.append(event)
        return found

    def until_events(self, phrase: str, count: int = 1, **fields: object) -> list[dict[str, Any]]:
        """Those of them with these fields, once there are `count`: a thread writes the log, a moment after what it
        reports can be seen elsewhere."""

        def enough() -> list[dict[str, Any]] | None:
            found = [each for each in self.events(phrase) if all(each.get(key) == fields[key] for key in fields)]
            return found if len(found) >= count else None

        return until(enough, LOGGED_S, f"{count} lines {phrase!r}")

    def mounts(self) -> list[str]:
        """Mount points below this daemon's root."""
        with open("/proc/self/mountinfo") as table:
            points = [line.split()[4] for line in table]
        return [point for point in points if point.startswith(f"{self.root}/")]

    def processes(self) -> list[int]:
        """Living processes that carry this instance's mark."""
        mark = f"MOUNTD_INSTANCE={self.instance.id}".encode()
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                        found.append(int(entry))
                except OSError:
                    continue
        return found

    def command_lines(self) -> dict[int, bytes]:
        """Of those processes, by pid; a word ends with NUL. One that ends meanwhile is left out."""
        found = {}
        for pid in self.processes():
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
        return found

    def cli(self, *words: str, timeout_s: float = 120.0, environment: dict[str, str] | None = None) -> Result:
        done = subprocess.run(
            [sys.executable, "-m", "mountd", "--socket", str(self.socket), *words],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **(environment or {})},
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def status(self) -> dict[str, Any]:
        """Asked over the socket: a command for each look at it would keep the machine busy with starting Python."""
        return get(str(self.socket), "/api/v1/status", timeout_s=ANSWER_S)

    def reasons(self) -> dict[str, dict[str, str]]:
        """Why it is not ready, by code."""
        return {reason["code"]: reason for reason in self.status()["reasons"]}

    def until_ready(self, timeout_s: float = READY_S) -> dict[str, Any]:
        def ready() -> dict[str, Any] | None:
            assert self.process is not None
            assert self.process.poll() is None, f"mountd ended with {self.process.returncode}"
            status = self.status()
            return status if status["ready"] else None

        found = until(ready, timeout_s, "mountd to be ready", every_s=0.1)
        assert found is not None
        return found

    def until_reason(self, code: str, timeout_s: float = READY_S) -> dict[str, str]:
        found = until(lambda: self.reasons().get(code), timeout_s, f"the reason {code}", every_s=0.1)
        assert found is not None
        return found

    def page(self, path: str = "/config") -> dict[str, Any]:
        """What the app answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=ANSWER_S) as answer:
            document: dict[str, Any] = json.load(answer)
            return document
