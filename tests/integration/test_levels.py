"""How much of a version is on this machine: its data read ahead and checked, or pinned; and what needs no bucket."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mountd.client.api import get
from mountd.demo import hub
from mountd.fuse import table
from mountd.fuse.watch import read_table
from mountd.mount.read_ahead import DEVICES, FAR_KIB
from tests.support.daemon import Daemon
from tests.support.mapped import add_large
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

MODEL_BYTES = 12 * 1024**2
SOON_S = 60.0


@pytest.fixture
def machine(store: RcloneS3, proxy: Proxy, make_daemon: Callable[..., Daemon]) -> Daemon:
    """v23 has a large file."""
    add_large(store.directory / hub.BUCKET, MODEL_BYTES)
    daemon = make_daemon(endpoint=proxy.endpoint)
    daemon.config["models"]["cache_hub"]["watch"] = {"for": "0s"}
    return daemon


def warm(daemon: Daemon, **keys: Any) -> None:
    daemon.config["models"]["cache_hub"]["warm"] = keys


def model(daemon: Daemon) -> dict[str, Any]:
    found: dict[str, Any] = daemon.status()["models"]["cache_hub"]
    return found


def data_events(daemon: Daemon) -> list[str]:
    """Oldest first."""
    found = get(str(daemon.socket), "/api/v1/events?object=cache_hub&limit=1000", timeout_s=SOON_S)["events"]
    return [each["code"] for each in found if each["code"].startswith("data-")]


def target(daemon: Daemon) -> str:
    return os.readlink(daemon.link)


def bytes_of(daemon: Daemon, version: str) -> int:
    manifest = json.loads((daemon.mount / f"cache_hub_{version}" / "MANIFEST.json").read_bytes())
    return sum(file["size"] for file in manifest["files"])


def test_data_are_read_ahead_once(machine: Daemon, proxy: Proxy) -> None:
    machine.start_ready()
    before = proxy.counts.object_bytes
    ended = machine.cli("warm", "v22", "--level", "data", "-o", "json")
    assert (ended.code, ended.json["kind"], ended.json["result"]) == (0, "warm", "done")
    fetched = proxy.counts.object_bytes - before
    total = bytes_of(machine, "v22")
    assert total * 0.9 <= fetched <= total * 1.1 + 64 * 1024
    assert machine.cli("warm", "v22", "--level", "data").code == 0
    assert proxy.counts.object_bytes - before <= fetched + 64 * 1024
    assert target(machine).endswith("cache_hub_v23")
    assert model(machine)["current"] == "v23"
    assert data_events(machine) == []


def test_a_version_whose_bytes_differ_is_refused(machine: Daemon, store: RcloneS3) -> None:
    """The same size, other bytes: nothing but the digest shows it."""
    file = next(path for path in sorted((store.directory / hub.BUCKET / "cache_hub_v22").rglob("*.pth")))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    warm(machine, level="data")
    machine.start_ready()
    ended = machine.cli("switch", "v22")
    assert ended.code == 7
    assert (model(machine)["current"], target(machine).rpartition("_")[2]) == ("v23", "v23")
    pinned = machine.cli("warm", "v22", "--level", "pin")
    assert pinned.code == 7
    assert not (machine.root / "state" / "pins" / "trees" / "cache_hub" / "v22").exists()


@pytest.mark.thorough
def test_an_app_waits_for_the_level_that_it_needs(machine: Daemon, proxy: Proxy) -> None:
    warm(machine, level="data")
    status = machine.start_ready()
    assert status["models"]["cache_hub"]["level"] == "data"
    assert proxy.counts.object_bytes >= MODEL_BYTES


def test_an_app_that_starts_before_the_data_are_here(machine: Daemon, proxy: Proxy) -> None:
    warm(machine, level="data")
    machine.config["apps"]["webui"]["needs"] = [{"model": "cache_hub", "level": "metadata"}]
    machine.start_ready()
    until(lambda: model(machine)["level"] == "data", SOON_S, "the data to be loaded behind it")
    assert machine.status()["apps"]["webui"]["restarts"] == 0
    assert proxy.counts.object_bytes >= MODEL_BYTES
    until(lambda: data_events(machine) == ["data-loading", "data-loaded"], SOON_S, "the events")


def read_ahead_kib(daemon: Daemon) -> int | None:
    """Of the kernel, in the mount; None: nothing is mounted now."""
    entry = table.at(read_table(), str(daemon.mount))
    try:
        return int((DEVICES / entry.device / "read_ahead_kb").read_text()) if entry else None
    except FileNotFoundError:
        return None


@pytest.mark.skipif(not os.access(DEVICES, os.W_OK), reason="only root may change how far the kernel reads ahead")
def test_the_kernel_reads_further_ahead_once_the_data_are_here(machine: Daemon) -> None:
    machine.start_ready()
    assert (read_ahead_kib(machine) or FAR_KIB) < FAR_KIB
    machine.stop()
    warm(machine, level="data")
    machine.start_ready()
    until(lambda: read_ahead_kib(machine) == FAR_KIB, SOON_S, "the kernel to read further ahead")
    pid = machine.status()["mounts"]["storage"]["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: machine.status()["mounts"]["storage"]["pid"] not in (None, pid), SOON_S, "another rclone")
    until(lambda: read_ahead_kib(machine) == FAR_KIB, SOON_S, "the same in the mount of the next rclone")


def test_a_pinned_version_needs_neither_mount_nor_bucket(machine: Daemon, proxy: Proxy) -> None:
    warm(machine, level="pin")
    status = machine.start_ready()
    found = status["models"]["cache_hub"]
    tree = machine.root / "state" / "pins" / "trees" / "cache_hub" / "v23"
    assert (found["pinned"], found["level"], target(machine)) == (True, "pin", str(tree))
    app = status["apps"]["webui"]["pid"]
    os.kill(status["mounts"]["storage"]["pid"], signal.SIGKILL)
    until(
        lambda: machine.status()["mounts"]["storage"]["pid"] not in (None, status["mounts"]["storage"]["pid"]),
        SOON_S,
        "a new rclone",
    )
    until(lambda: machine.status()["ready"], SOON_S, "it to be ready")
    assert machine.status()["apps"]["webui"]["pid"] == app, "the app reads nothing of the mount"
    assert machine.stop() == 0
    proxy.down()
    shutil.rmtree(machine.root / "run")
    machine.start()
    assert machine.until_ready()["ready"]
    assert target(machine) == str(tree)
    assert (machine.link / "MANIFEST.json").is_file(), "a pinned version is a whole one"
    until(lambda: machine.status()["health"] == "Degraded", SOON_S, "status to say that the bucket is away")
    assert machine.status()["ready"]


def test_a_switch_fetches_what_the_versions_do_not_share(machine: Daemon, proxy: Proxy, store: RcloneS3) -> None:
    bucket = store.directory / hub.BUCKET
    shared = sum(path.stat().st_size for path in (bucket / "cache_hub_v23").rglob("*") if path.is_file())
    shutil.copytree(bucket / "cache_hub_v23", bucket / "cache_hub_v24")
    manifest = bucket / "cache_hub_v24" / "MANIFEST.json"
    manifest.write_text(manifest.read_text().replace('"v23"', '"v24"'))
    warm(machine, level="pin")
    machine.start_ready()
    before = proxy.counts.object_bytes
    assert machine.cli("switch", "v24").code == 0
    assert proxy.counts.object_bytes - before < shared * 0.05
    assert target(machine).endswith("/cache_hub/v24")
    assert machine.cli("rollback").code == 0
    assert target(machine).endswith("/cache_hub/v23")


def test_what_lies_here_already_is_not_fetched(machine: Daemon, proxy: Proxy, store: RcloneS3, tmp_path: Path) -> None:
    shutil.copytree(store.directory / hub.BUCKET / "cache_hub_v23", tmp_path / "bundle" / "checkpoints")
    warm(machine, level="pin", adopt=[str(tmp_path / "bundle")])
    machine.start_ready()
    assert model(machine)["pinned"]
    assert proxy.counts.object_bytes < MODEL_BYTES * 0.05


@pytest.mark.thorough
def test_back_from_pinned_to_the_mount(machine: Daemon) -> None:
    warm(machine, level="pin")
    machine.start_ready()
    pid = machine.status()["apps"]["webui"]["pid"]
    warm(machine, level="metadata")
    machine.write_config()
    assert machine.cli("reload").code == 0
    until(lambda: target(machine) == str(machine.mount / "cache_hub_v23"), SOON_S, "the link to lead to the mount")
    until(lambda: not any((machine.root / "state" / "pins" / "objects").glob("*/*")), SOON_S, "the copy to be removed")
    assert machine.status()["apps"]["webui"]["pid"] == pid


@pytest.mark.thorough
def test_a_switch_ends_a_warm_of_its_model(machine: Daemon, proxy: Proxy) -> None:
    machine.start_ready()
    proxy.faults.total_bytes_per_s = 10_000
    assert machine.cli("warm", "v22", "--level", "data", "--no-wait").code == 0
    until(lambda: (machine.status()["operation"] or {}).get("step") == "warm", SOON_S, "the warm to load data")
    assert machine.cli("switch", "v22", "--no-wait").code == 0
    proxy.faults.clear()
    assert machine.cli("wait", "--for", "version=v22", "--timeout", "60s").code == 0
    entries = {each["kind"]: each["result"] for each in machine.cli("history", "-o", "json").json["history"]}
    assert entries["switch"] == "committed"
    assert entries["warm"] == "cancelled"


def corrupt(file: Path) -> None:
    """As a failing disk does it: other bytes of the same length."""
    os.chmod(file, 0o644)
    with file.open("r+b") as data:
        data.seek(file.stat().st_size // 2)
        byte = data.read(1)
        data.seek(-1, os.SEEK_CUR)
        data.write(bytes([byte[0] ^ 1]))


@pytest.mark.shown_by("data")
@pytest.mark.parametrize("level", ["data", "pin"])
def test_what_was_damaged_on_this_machine_is_fetched_again_before_a_switch(machine: Daemon, level: str) -> None:
    warm(machine, level=level)
    machine.start_ready()
    assert machine.cli("warm", "v22").code == 0
    root = machine.root / ("cache/vfs" if level == "data" else "state/pins/trees/cache_hub/v22")
    (file,) = (path for path in root.rglob("models/gpt.pth") if "v22" in str(path))
    right = file.read_bytes()
    corrupt(file)
    assert machine.cli("switch", "v22").code == 0
    assert (machine.link / "models" / "gpt.pth").read_bytes() == right
