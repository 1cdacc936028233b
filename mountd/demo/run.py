"""`mountd demo`: an S3 server, a small model in two versions, mountd and a stand-in WebUI, until Ctrl-C."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from mountd.client.api import get
from mountd.client.find import demo_directories
from mountd.clock import now_text
from mountd.demo import hub
from mountd.demo.config import ACCESS_KEY_ID, RESULTS, DemoPaths, render
from mountd.errors import CannotStart, MountdError, Unavailable, UsageError, cause_of
from mountd.fuse.watch import read_table
from mountd.process.directories import make_private
from mountd.rclone import binary
from mountd.rclone.private_file import replace

READY_LIMIT_S = 180.0
UNMOUNT_LIMIT_S = 10.0
STOP_LIMIT_S = 60.0
POLL_S = 0.1
_PR_SET_PDEATHSIG = 1


class Terminal(Protocol):
    """What the demo prints with; `say` breaks long lines between words, unless not to `wrap`."""

    def say(self, message: object = "", *, wrap: bool = True) -> None: ...

    def is_narrow(self, needed: int) -> bool: ...


class Interrupted(Exception):
    """Ctrl-C, SIGTERM or a closed terminal: the demo stops in order."""


class Interrupts:
    """Remembers the signals that stop the demo, and raises Interrupted only where that is safe.

    An exception out of a signal handler may come between the start of a child and the `try` that ends it, or in a place
    where Python can only ignore it.
    """

    def __init__(self) -> None:
        self._seen = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # under nohup it stays ignored
                signal.signal(number, self._remember)

    def _remember(self, _number: int, _frame: object) -> None:
        self._seen = True

    def check(self) -> None:
        if self._seen:
            raise Interrupted

    def sleep(self, seconds: float) -> None:
        self.check()
        time.sleep(seconds)
        self.check()


def main(
    terminal: Terminal, *, directory: str | None, port: int | None, s3_port: int | None, http_port: int | None
) -> int:
    """Runs until interrupted; 0 then. Raises MountdError when it cannot begin."""
    interrupts = Interrupts()
    try:
        with _directory(directory) as root:
            places = DemoPaths(root, _port(s3_port, None), _port(port, 7860), _port(http_port, 8780))
            with contextlib.ExitStack() as stack:
                _run(places, stack, interrupts, terminal)
    except Interrupted:
        with contextlib.suppress(OSError):  # the terminal may be gone
            terminal.say("\nStopped: nothing is mounted, nothing runs any more.")
    return 0


def _run(places: DemoPaths, stack: contextlib.ExitStack, interrupts: Interrupts, terminal: Terminal) -> None:
    rclone = binary.find().path
    terminal.say("mountd demo: preparing a small model in two versions …")
    hub.build(places.store)
    interrupts.check()
    secret = _write_files(places)
    s3 = stack.enter_context(
        _child(terminal, "the S3 server", *_s3_command(rclone, places, secret), places.root / "s3.log")
    )
    _wait_for_port(s3, places.s3_port, interrupts)
    run = [sys.executable, "-m", "mountd", "run", "-c", str(places.config)]
    mountd = stack.enter_context(_child(terminal, "mountd", run, dict(os.environ), places.root / "mountd.log"))
    entry = register(places.root, places.socket, mountd.pid)
    stack.callback(entry.unlink, missing_ok=True)
    _wait_until_ready(mountd, places, interrupts, terminal)
    _show_how_to_use(terminal, places)
    while mountd.poll() is None:
        interrupts.sleep(POLL_S)
    _unmount_below(places.root)
    raise Unavailable(f"cannot continue: mountd exited with {mountd.returncode}", hint=f"see {places.root}/mountd.log")


def register(directory: str | Path, socket: str | Path, pid: int) -> Path:
    """Enter the demo of process `pid`, so that `mountd status` finds it by itself → the file that says so.

    Raises CannotStart, also where another user owns the place.
    """
    registry = Path(demo_directories()[0])
    try:
        make_private(registry)
    except OSError as error:
        raise CannotStart(f"cannot register the demo in {registry}: {cause_of(error)}") from None
    except MountdError as error:
        raise CannotStart(f"cannot register the demo: {error.text}", hint=f"remove {registry}") from None
    entry = {"pid": pid, "socket": str(socket), "directory": str(directory), "started": now_text("seconds")}
    path = registry / f"{pid}.json"
    replace(path, json.dumps(entry) + "\n")
    return path


@contextlib.contextmanager
def _directory(named: str | None) -> Iterator[Path]:
    """A new directory, removed on exit unless something failed and its logs are needed; a named one stays."""
    if named is None:
        root = Path(tempfile.mkdtemp(prefix="mountd-demo-"))
        try:
            yield root
        except (Interrupted, UsageError):
            # Never delete through a mount.
            if _mounted_below(root):
                raise Unavailable(f"cannot remove {root}: something is still mounted below it") from None
            shutil.rmtree(root, ignore_errors=True)
            raise
        return
    root = Path(named).absolute()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot use {root} for the demo: {cause_of(error)}") from None
    if any(root.iterdir()) and not (root / "mountd.yaml").exists():
        raise UsageError(f"cannot use {root} for the demo: it is not empty", hint="name an empty or a new directory")
    yield root


def _mounted_below(root: Path) -> list[str]:
    return [entry.mount_point for entry in read_table() if entry.mount_point.startswith(f"{root}/")]


def _unmount_below(root: Path) -> None:
    """What a mountd that was killed has left, and no next start of it clears."""
    for path in _mounted_below(root):
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(["fusermount3", "-uz", path], timeout=UNMOUNT_LIMIT_S, check=False)


def _port(asked: int | None, usual: int | None) -> int:
    for port in (asked,) if asked else (usual, 0):
        if port is None:
            continue
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = sock.getsockname()[1]
            return found
    raise UsageError(f"cannot use port {asked}: another process listens there", hint="name another, or none")


def _write_files(places: DemoPaths) -> str:
    secret = secrets.token_hex(16)
    places.app.mkdir(exist_ok=True)
    for directory in (places.outputs, places.store / RESULTS):
        directory.mkdir(parents=True, exist_ok=True)
    token = f"# The token to log in with is the last word.\noperator demo {secrets.token_urlsafe(24)}\n"
    for path, text in ((places.secret, secret), (places.tokens, token), (places.config, render(places))):
        path.touch(mode=0o600)
        path.write_text(text)
    return secret


def _s3_command(rclone: Path, places: DemoPaths, secret: str) -> tuple[list[str], dict[str, str]]:
    argv = [str(rclone), "serve", "s3", "--addr", f"127.0.0.1:{places.s3_port}", str(places.store)]
    # A whole-file MD5 for each request otherwise; the short cache shows what is put into the directory by hand.
    argv += ["--etag-hash", "", "--dir-cache-time", "1s", "--config", os.devnull]
    # By the environment: an argv is for everybody to read. A list there is CSV, and the pair is one value of it.
    return argv, {"PATH": os.environ.get("PATH", ""), "RCLONE_AUTH_KEY": f'"{ACCESS_KEY_ID},{secret}"'}


@contextlib.contextmanager
def _child(
    terminal: Terminal, name: str, argv: Sequence[str], environment: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a session of its own (a Ctrl-C is for us alone), which also ends when we are killed."""
    libc = ctypes.CDLL(None)
    with log.open("ab") as output:
        process = subprocess.Popen(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0),  # noqa: PLW1509 (one thread)
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            terminal.say(f"{name} does not stop: killing it")
            process.kill()
            process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], port: int, interrupts: Interrupts) -> None:
    deadline = time.monotonic() + 15.0
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        interrupts.sleep(0.02)
    raise Unavailable(f"cannot start the S3 server on port {port}", hint="see s3.log in the demo's directory")


def _wait_until_ready(
    mountd: subprocess.Popen[bytes], places: DemoPaths, interrupts: Interrupts, terminal: Terminal
) -> None:
    deadline = time.monotonic() + READY_LIMIT_S
    shown, reasons = "", ""
    while time.monotonic() < deadline:
        if mountd.poll() is not None:
            last = (places.root / "mountd.log").read_text(errors="replace").strip().splitlines()[-3:]
            raise Unavailable("cannot start mountd:\n  " + "\n  ".join(last))
        with contextlib.suppress(MountdError):
            status = get(str(places.socket), "/api/v1/status", timeout_s=5.0)
            if status["ready"]:
                return
            stage = _stage(status)
            if stage != shown:
                terminal.say(f"  {stage}")
                shown = stage
            reasons = "; ".join(reason["text"] for reason in status["reasons"])
        interrupts.sleep(POLL_S)
    raise Unavailable(f"cannot get ready in {READY_LIMIT_S:g} s: {reasons}", hint=f"see {places.root}/mountd.log")


def _stage(status: dict[str, dict[str, dict[str, str]]]) -> str:
    mount, model, app = (status[kind][name] for kind, name in _PARTS)
    return f"mount {mount['state']} ({mount['stage']}) · model {model['stage']} · webui {app['state']}"


_PARTS = (("mounts", "storage"), ("models", "cache_hub"), ("apps", "webui"))


def _show_how_to_use(terminal: Terminal, places: DemoPaths) -> None:
    old, new = hub.VERSIONS
    program, sock = _program(), shlex.quote(str(places.socket))
    mountd, once = f"{program} --socket {sock}", ""
    page = f"http://127.0.0.1:{places.web_port}/"
    if terminal.is_narrow(len(f"  {mountd} switch {old}")):  # a command that is broken cannot be copied
        mountd, once = program, f"  export MOUNTD_SOCKET={sock}\n"
    terminal.say(
        f"""
Ready. 一切就绪。

  the WebUI       {page}  (version {new})
  the bucket      http://127.0.0.1:{places.s3_port}/{hub.BUCKET}  ({places.store}/{hub.BUCKET})
  the mount       {places.mount}
  the link        {places.app}/cache_hub
  the results     {places.outputs}  → {places.store}/{RESULTS}
  the dashboard   http://127.0.0.1:{places.http_port}/  (its token: the last word of {places.tokens})
  mountd          its log: {places.root}/mountd.log
"""
    )
    terminal.say(
        f"""Try, in another terminal:

{once}  {mountd} status
  {mountd} versions
  {mountd} switch {old}
  curl -s {page}config
  {mountd} rollback
  {mountd} logs webui

Ctrl-C stops it and leaves nothing behind.""",
        wrap=False,
    )


def _program() -> str:
    """What to type for this mountd in the directory where the demo was started."""
    beside = os.path.join(os.path.dirname(sys.executable), "mountd")
    if shutil.which("mountd") == beside:
        return "mountd"
    if not os.access(beside, os.X_OK):  # installed for one user, or run from its source
        return f"{shlex.quote(sys.executable)} -m mountd"
    relative = os.path.relpath(beside)
    return shlex.quote(beside if relative.startswith("..") else relative)
