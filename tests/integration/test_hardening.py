"""What once ended, froze or misled the daemon: each case a fault that an operator meets."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import yaml

from tests.support.cache_disk import remove_in_use
from tests.support.daemon import WEBUI, Daemon
from tests.support.s3 import RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.thorough
def test_an_app_that_waits_for_its_mount_costs_nothing(daemon: Daemon, store: RcloneS3) -> None:
    before = daemon.start_ready()
    store.stop()
    os.kill(before["mounts"]["storage"]["pid"], signal.SIGKILL)
    os.kill(before["apps"]["webui"]["pid"], signal.SIGKILL)
    until(lambda: daemon.status()["apps"]["webui"]["state"] == "backoff", 60, "the app to wait")
    until(lambda: daemon.status()["mounts"]["storage"]["stage"] == "answering", 60, "the mount to wait for its bucket")
    began, used = time.monotonic(), cpu_s(before["pid"])
    until(lambda: time.monotonic() - began > 4, 10, "some time to have passed", every_s=0.5)
    share = (cpu_s(before["pid"]) - used) / (time.monotonic() - began)
    assert share < 0.3, "it spins"
    store.start()
    daemon.until_ready()


@pytest.mark.thorough
def test_a_removed_cache_directory_is_made_again(daemon: Daemon) -> None:
    before = daemon.start_ready()
    remove_in_use(daemon.root / "cache")
    os.kill(before["mounts"]["storage"]["pid"], signal.SIGKILL)
    until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 60, "the mount to be back")
    daemon.until_ready()


@pytest.mark.thorough
def test_a_log_that_nobody_reads_does_not_matter(daemon: Daemon) -> None:
    """First it stalls with a chatty app, then its reader goes away."""
    daemon.config["apps"]["chatty"] = {"command": ["yes", "a line of no importance"]}
    reader, writer = os.pipe()
    daemon.write_config()
    daemon.process = subprocess.Popen(
        [sys.executable, "-m", "mountd", "run", "-c", str(daemon.config_file)], stderr=writer, start_new_session=True
    )
    os.close(writer)
    try:
        daemon.until_ready()
        slowest = 0.0
        for _ in range(10):
            began = time.monotonic()
            daemon.status()
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 10.0
    finally:
        os.close(reader)
    os.kill(daemon.status()["apps"]["webui"]["pid"], signal.SIGKILL)
    until(lambda: daemon.status()["apps"]["webui"]["restarts"] == 1, 60, "the app to be back")
    assert daemon.stop() == 0


@pytest.mark.thorough
def test_connections_that_say_nothing_do_not_use_up_the_descriptors(daemon: Daemon) -> None:
    daemon.start_ready()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        for _ in range(1500):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", daemon.http_port), 30)))
        pid = daemon.status()["pid"]
        until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 400, 60, "the oldest connections to be dropped")
        assert daemon.status()["ready"] is True


@pytest.mark.thorough
def test_an_app_keeps_the_limits_that_mountd_was_given(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(wrap=("prlimit", "--nofile=1024:4096"))
    status = daemon.start_ready()
    assert resource.prlimit(status["pid"], resource.RLIMIT_NOFILE) == (4096, 4096)
    assert resource.prlimit(status["apps"]["webui"]["pid"], resource.RLIMIT_NOFILE) == (1024, 4096)


@pytest.mark.root
def test_an_app_of_another_user_gets_ready_without_ptrace(make_daemon: Callable[..., Daemon]) -> None:
    """As root in a container, which may not look into the processes of others."""
    daemon = make_daemon(wrap=("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"))
    daemon.config["apps"]["webui"]["user"] = "nobody"
    # A Python and a program that this user can get at, wherever the checkout lies.
    for name in ("webui.py", "webui.html"):
        shutil.copy(WEBUI.with_name(name), daemon.root)
    daemon.config["apps"]["webui"]["command"][:2] = ["/usr/bin/python3", str(daemon.root / "webui.py")]
    daemon.root.chmod(0o755)
    status = daemon.start_ready()
    assert Path(f"/proc/{status['apps']['webui']['pid']}").stat().st_uid != 0


@pytest.mark.thorough
def test_a_journal_that_cannot_write_is_reported_and_undone(daemon: Daemon) -> None:
    daemon.webui = ()
    daemon.config["apps"]["webui"]["command"] += ["--load-seconds", "3"]
    daemon.start_ready()
    with subprocess.Popen(
        [sys.executable, "-m", "mountd", "--socket", str(daemon.socket), "switch", "v22"], stderr=subprocess.PIPE
    ) as switching:
        until(lambda: (daemon.status()["operation"] or {}).get("step") == "ready", 60, "the app to start")
        with closing(sqlite3.connect(daemon.root / "state" / "mountd.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            until(lambda: daemon.events("operation failed"), 40, "the switch to fail")
            other.execute("ROLLBACK")
        switching.wait(60)
    assert switching.returncode != 0
    status = daemon.until_ready()
    assert status["models"]["cache_hub"]["current"] == "v23"
    assert daemon.page()["version"] == "v23"
    assert os.readlink(daemon.link).endswith("cache_hub_v23")


@pytest.mark.thorough
@pytest.mark.slow
def test_changed_credentials_reach_a_running_mount(daemon: Daemon, store: RcloneS3) -> None:
    daemon.config["mounts"]["storage"]["health"] = {"backend": "2s"}
    daemon.start_ready()
    store.set_keys(store.access_key_id, "another-secret-of-today")
    store.restart()
    daemon.until_reason("access-denied")
    daemon.secret.write_text("another-secret-of-today")
    until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 60, "the mount to take the new credentials")
    until(lambda: daemon.status()["ready"] and daemon.status()["health"] == "Healthy", 60, "all to be well")


@pytest.mark.thorough
def test_an_edited_version_is_asked_for_until_it_is_live(daemon: Daemon, store: RcloneS3) -> None:
    daemon.start_ready()
    assert daemon.stop() == 0
    daemon.config["models"]["cache_hub"]["version"] = "v22"
    store.stop()
    daemon.start()
    daemon.until_reason("bucket-unreachable")
    assert daemon.stop() == 0
    store.start()
    daemon.start()
    assert daemon.cli("wait", "--for", "version=v22", "--timeout", "60s").code == 0


@pytest.mark.root
def test_a_mount_that_cannot_be_cleaned_says_so(daemon: Daemon) -> None:
    daemon.start_ready()
    subprocess.run(["mount", "-t", "tmpfs", "mountd-test", str(daemon.mount)], check=True)
    try:
        reason = daemon.until_reason("cannot-unmount")
        assert "mountd-test (tmpfs)" in reason["text"]
        assert reason["hint"]
        assert daemon.status()["health"] == "Degraded"
    finally:
        subprocess.run(["umount", str(daemon.mount)], check=True)
    until(lambda: daemon.status()["mounts"]["storage"]["restarts"] == 1, 60, "the mount to be back")


@pytest.mark.thorough
def test_a_hung_rclone_is_found_while_it_starts(daemon: Daemon, store: RcloneS3) -> None:
    store.stop()
    daemon.start()
    daemon.until_reason("bucket-unreachable")
    rclone = daemon.status()["mounts"]["storage"]["pid"]
    os.kill(rclone, signal.SIGSTOP)
    until(lambda: daemon.status()["mounts"]["storage"]["pid"] not in (None, rclone), 60, "rclone to be replaced")
    store.start()
    daemon.until_ready()


@pytest.mark.thorough
def test_signals_without_a_meaning_are_harmless(daemon: Daemon) -> None:
    status = daemon.start_ready()
    assert daemon.process is not None
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        daemon.process.send_signal(number)
    assert daemon.status()["pid"] == status["pid"]
    assert daemon.status()["ready"] is True


@pytest.mark.thorough
@pytest.mark.slow
def test_a_first_version_is_remembered_once_the_journal_can_be_written(daemon: Daemon, store: RcloneS3) -> None:
    daemon.config["apps"] = {}
    store.stop()
    daemon.start()
    daemon.until_reason("bucket-unreachable")
    database = daemon.root / "state" / "mountd.db"
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        store.start()
        daemon.until_reason("journal-unusable")
        other.execute("ROLLBACK")

    def committed() -> bool:
        with closing(sqlite3.connect(database, timeout=30)) as journal:
            return journal.execute("SELECT current FROM models").fetchall() == [("v23",)]

    until(committed, 60, "the version to be committed", every_s=0.2)
    until(lambda: daemon.status()["health"] == "Healthy", 60, "all to be well")


@pytest.mark.thorough
@pytest.mark.root
def test_rights_do_not_follow_the_umask_of_who_starts_it(make_daemon: Callable[..., Daemon]) -> None:
    """As the app's user: through the parents of the mount point, the mount and the link, to what is there."""
    daemon = make_daemon(wrap=("sh", "-c", 'umask 077; exec "$@"', "sh"))
    daemon.root.chmod(0o755)
    daemon.app.chmod(0o755)
    daemon.mount = daemon.root / "made" / "by" / "mountd"
    daemon.config["mounts"]["storage"]["path"] = str(daemon.mount)
    daemon.config["apps"]["webui"] |= {"umask": "027"}
    pid = daemon.start_ready()["apps"]["webui"]["pid"]
    reading = subprocess.run(
        ["cat", str(daemon.link / "config.yaml")],
        user="nobody",
        group="nogroup",
        extra_groups=[],
        timeout=60,
        check=False,
    )
    assert reading.returncode == 0
    assert "Umask:\t0027" in Path(f"/proc/{pid}/status").read_text().splitlines()
    daemon.config["apps"]["webui"]["user"] = "nobody"
    asked = daemon.root / "doctor.yaml"  # the running one goes on with its own
    asked.write_text(yaml.safe_dump(daemon.config))

    def access() -> tuple[str, str]:
        found = daemon.cli("doctor", "-c", str(asked), "-o", "json").json["checks"]
        (check,) = (each for each in found if each["name"] == "access of webui")
        return check["result"], check["text"]

    result, text = access()
    assert (result, str(daemon.link) in text) == ("ok", True)
    daemon.mount.parent.chmod(0o700)
    assert access() == ("fail", f"user nobody cannot enter {daemon.mount.parent}")
