"""What others do today, as real programs: mounts, raw downloads and supervisors, on the same bucket."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mountd.demo import hub
from mountd.fuse.watch import read_table
from tests.support import dies_with_us
from tests.support.s3 import RcloneS3
from tests.support.s3 import environment as plain_environment
from tests.support.wait import until

TOP = Path(__file__).parents[1]
LOADER, DOWNLOADS = Path(__file__).with_name("loader.py"), Path(__file__).with_name("downloads.py")
VENV = TOP / "build" / "peers"
"""For peers that come from PyPI: none of mountd's own dependencies changes for them."""
PACKAGES = {"runai": ["runai-model-streamer[s3]"], "circus": ["circus"]}
INSTALL_LIMIT_S = 600.0
MOUNT_LIMIT_S, END_LIMIT_S, DOWNLOAD_LIMIT_S = 30.0, 30.0, 600.0
MARK = "MOUNTD_BENCH_PLACE"
"""In the environment of whatever a peer starts: rclone detaches itself from the baseline's shell."""

BASELINE_FLAGS = "--vfs-cache-mode writes --allow-other --timeout 1h --transfers 4 --checkers 8 --retries 3"
BASELINE = """\
set -e
rclone mount store:{bucket} {mount} {flags} --daemon
sleep 5
{lsl}ln -sf {mount}/{directory} {link}
exec {app}
"""
LSL = "rclone lsl store:{bucket}/{directory} >/dev/null\n"


class NotInstalled(Exception):
    """A peer that is not on this machine; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one run of a peer lives, and the bucket that it reads: `endpoint`, through the shaping proxy."""

    root: Path
    endpoint: str
    store: RcloneS3
    rclone: Path
    version: str = "v23"

    @property
    def mount(self) -> Path:
        return self.root / "mnt"

    @property
    def link(self) -> Path:
        return self.root / "cache_hub"

    @property
    def directory(self) -> str:
        return f"cache_hub_{self.version}"

    @property
    def model(self) -> Path:
        """The version, through the peer's mount."""
        return self.mount / self.directory

    def environment(self) -> dict[str, str]:
        """Of everything that runs here; the keys are in files that only we can read."""
        config = self.root / "rclone.conf"
        keys = self.store.access_key_id, self.store.secret_access_key
        _write_private(
            config,
            f"[store]\ntype = s3\nprovider = Other\nendpoint = {self.endpoint}\n"
            f"access_key_id = {keys[0]}\nsecret_access_key = {keys[1]}\n",
        )
        own = {"RCLONE_CONFIG": str(config), "RCLONE_CACHE_DIR": str(self.root / "cache"), MARK: str(self.root)}
        own |= {"AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1], "AWS_EC2_METADATA_DISABLED": "true"}
        found = plain_environment(self.root) | own
        return found | {"PATH": f"{self.rclone.parent}:{found['PATH']}"}


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def loader(*words: object) -> list[str]:
    return [sys.executable, "-I", "-S", str(LOADER), *map(str, words)]


# -- mounts -------------------------------------------------------------------------------------------------------


@contextmanager
def _spawned(place: Place, argv: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own; nothing that it has started or mounted is left afterwards."""
    place.mount.mkdir(parents=True, exist_ok=True)
    with (place.root / "log").open("ab") as log:
        process = subprocess.Popen(
            dies_with_us([*argv]),
            env=place.environment(),
            cwd=place.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _end(process, place)


def _end(process: subprocess.Popen[bytes], place: Place) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
    if is_mounted(place.mount):
        subprocess.run(["fusermount3", "-uz", place.mount], timeout=END_LIMIT_S, check=False)
    deadline = time.monotonic() + END_LIMIT_S
    while left := marked(place.root):
        if time.monotonic() > deadline - END_LIMIT_S + 5:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert time.monotonic() < deadline, f"processes {left} do not end"
        process.poll()
        time.sleep(0.05)
    process.wait(END_LIMIT_S)


def marked(root: Path) -> list[int]:
    """The living processes of a place."""
    mark, found = f"{MARK}={root}".encode(), []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
    return found


def is_mounted(path: Path) -> bool:
    return any(entry.mount_point == str(path) for entry in read_table())


@contextmanager
def baseline(place: Place, app: Sequence[str], *, lsl: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """The script everyone copies; the process becomes the app."""
    names = {"bucket": hub.BUCKET, "mount": place.mount, "link": place.link, "directory": place.directory}
    script = BASELINE.format(**names, flags=BASELINE_FLAGS, lsl=LSL.format(**names) if lsl else "", app=shlex.join(app))
    with _spawned(place, ["sh", "-c", script]) as process:
        yield process


@contextmanager
def mounted(place: Place, argv: Sequence[str]) -> Iterator[None]:
    """A mount that stays in the foreground. Raises AssertionError when it does not come up."""
    with _spawned(place, argv) as process:

        def is_there() -> bool:
            assert process.poll() is None, f"{argv[0]} ended: {(place.root / 'log').read_text(errors='replace')[-500:]}"
            return is_mounted(place.mount)

        until(is_there, MOUNT_LIMIT_S, f"{argv[0]} to mount", every_s=0.01)
        yield


def plain_mount(place: Place, *flags: str) -> list[str]:
    """`rclone mount` with its documented defaults, and `flags`."""
    return [str(place.rclone), "mount", f"store:{hub.BUCKET}", str(place.mount), *flags]


def baseline_mount(place: Place) -> list[str]:
    """The flags of the baseline, in the foreground."""
    return plain_mount(place, *shlex.split(BASELINE_FLAGS))


def s3fs_mount(place: Place) -> list[str]:
    """s3fs with its defaults. Raises NotInstalled when it is not installed."""
    if not (program := shutil.which("s3fs")):
        raise NotInstalled("not installed: sudo apt-get install s3fs")
    password = place.root / "s3fs-password"
    _write_private(password, f"{place.store.access_key_id}:{place.store.secret_access_key}\n")
    options = f"url={place.endpoint},use_path_request_style,passwd_file={password}"
    return [program, hub.BUCKET, str(place.mount), "-f", "-o", options]


# -- raw downloads ------------------------------------------------------------------------------------------------


def download(place: Place, way: str, prefix: str) -> float:
    """All below `prefix` (for `runai` that file) with 16 connections into `root/raw`, which is removed again → seconds.

    Raises NotInstalled when the way is not installed, RuntimeError when it fails.
    """
    target = place.root / "raw"
    if way == "rclone":
        argv = [str(place.rclone), "copy", f"store:{hub.BUCKET}/{prefix}", str(target), "--transfers", "16"]
        argv += ["--multi-thread-streams", "16", "--multi-thread-cutoff", "16M", "--multi-thread-chunk-size", "8M"]
    else:
        python = VENV / "bin" / "python" if way == "runai" else Path(sys.executable)
        if not python.exists() or (way == "runai" and not _has_module(python, "runai_model_streamer")):
            raise NotInstalled("not installed: ./dev bench load --install")
        argv = [str(python), str(DOWNLOADS), way, place.endpoint, hub.BUCKET, prefix, str(target)]
    began = time.monotonic()
    try:
        done = subprocess.run(
            dies_with_us(argv),
            env=place.environment(),
            cwd=place.root,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_LIMIT_S,
            check=False,
        )
        lasted_s = time.monotonic() - began
    finally:
        shutil.rmtree(target, ignore_errors=True)
    if done.returncode:
        raise RuntimeError(f"{way} ended with {done.returncode}: {(done.stderr.splitlines() or [''])[-1][:300]}")
    return lasted_s if way == "rclone" else float(json.loads(done.stdout)["seconds"])


def _has_module(python: Path, name: str) -> bool:
    words = [str(python), "-c", f"import importlib.util, sys; sys.exit(not importlib.util.find_spec({name!r}))"]
    return subprocess.run(words, timeout=60, check=False).returncode == 0


# -- supervisors --------------------------------------------------------------------------------------------------

SUPERVISORD = """\
[supervisord]
logfile={root}/supervisord.log
pidfile={root}/supervisord.pid
nodaemon=true
[program:mount]
command={mount}
[program:app]
command={app}
"""
CIRCUS = """\
[circus]
check_delay = 5
endpoint = ipc://{root}/circus.endpoint
pubsub_endpoint = ipc://{root}/circus.pubsub
[watcher:mount]
cmd = {mount}
copy_env = true
[watcher:app]
cmd = {app}
copy_env = true
"""


@contextmanager
def supervised(place: Place, kind: str, app: Sequence[str]) -> Iterator[list[int]]:
    """supervisord or circus with a mount and an app, started side by side → their own processes, not the programs'.

    Raises NotInstalled when it is not installed.
    """
    program = shutil.which("supervisord") if kind == "supervisord" else str(VENV / "bin" / "circusd")
    if not program or not Path(program).exists():
        how = "sudo apt-get install supervisor" if kind == "supervisord" else "./dev bench load --install"
        raise NotInstalled(f"not installed: {how}")
    config = place.root / f"{kind}.conf"
    text = SUPERVISORD if kind == "supervisord" else CIRCUS
    _write_private(config, text.format(root=place.root, mount=shlex.join(baseline_mount(place)), app=shlex.join(app)))
    argv = [program, "-c", str(config)] if kind == "supervisord" else [program, str(config)]
    with _spawned(place, argv):
        until(lambda: is_mounted(place.mount), MOUNT_LIMIT_S, f"{kind} to mount", every_s=0.1)
        until(lambda: len(marked(place.root)) >= 3, MOUNT_LIMIT_S, f"{kind} to start the app")
        yield [pid for pid in marked(place.root) if not is_program(pid)]


def is_app(pid: int) -> bool:
    """The app, or a process that is gone."""
    return LOADER.name in _words(pid)


def is_program(pid: int) -> bool:
    """The app or the mount, or a process that is gone."""
    return is_app(pid) or "rclone\0mount" in _words(pid)


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return LOADER.name


# -- installing ---------------------------------------------------------------------------------------------------


def install(say: Callable[[str], None]) -> None:
    """Peers that are not there; what cannot be installed is reported, and its rows then say so."""
    if not shutil.which("s3fs"):
        say(f"s3fs: {_ran(['apt-get', 'install', '-y', '-qq', '--no-install-recommends', 's3fs'])}")
    if not (VENV / "bin" / "python").exists():
        say(f"{VENV.relative_to(TOP)}: {_ran([sys.executable, '-m', 'venv', str(VENV)])}")
    for name, packages in PACKAGES.items():
        words = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        say(f"{name}: {_ran([*words, *packages])}")


def _ran(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not installed: {error}"
    return (
        "installed" if not done.returncode else f"not installed: {(done.stderr.strip() or 'failed').splitlines()[-1]}"
    )


def versions() -> dict[str, str]:
    """Of the peers that are installed, for the figures' head."""
    asked: dict[str, list[str]] = {"s3fs": ["s3fs", "--version"], "supervisord": ["supervisord", "--version"]}
    asked |= {
        name: [str(VENV / "bin" / "python"), "-c", f"from importlib.metadata import version; print(version({name!r}))"]
        for name in ("circus", "runai-model-streamer")
    }
    found: dict[str, Any] = {}
    for name, argv in asked.items():
        with contextlib.suppress(OSError, subprocess.SubprocessError, IndexError):
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=True)
            found[name] = done.stdout.splitlines()[0].strip()
    return found
