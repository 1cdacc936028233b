"""A mount started with the built command: a real rclone, real FUSE, a real S3 server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mountd.errors import RemoteError, Unavailable
from mountd.mount.bucket import BucketProbe
from mountd.mount.engine import Engine
from mountd.rclone import binary, conf
from mountd.rclone.command import CacheSize, Launch, RcAddress, mount_command
from mountd.rclone.log import LogEvent, parse
from mountd.rclone.rc import NONEXISTENT_DIR, RcClient, StoreFeatures
from mountd.settings.remotes import RemoteSettings
from mountd.settings.schema import ControlSettings, MountSettings, Settings
from tests.support import dies_with_us, hold_port
from tests.support.faults import Failure
from tests.support.proxy import Proxy
from tests.support.s3 import RCLONE, RcloneS3
from tests.support.wait import until

pytestmark = pytest.mark.fuse

CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
SOON_S = 30.0


@dataclass
class Running:
    process: subprocess.Popen[bytes]
    path: Path
    rc: RcClient
    devname: str
    events: list[LogEvent] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    @property
    def mountinfo(self) -> str:
        """The line of our mount point in the kernel's table, "" when nothing is mounted."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return next((line for line in lines if f" {self.path} " in line), "")


async def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    return await asyncio.to_thread(until, condition, timeout_s, what)


@asynccontextmanager
async def mounted(
    tmp_path: Path, remotes: dict[str, dict[str, str]], source: str, **fields: Any
) -> AsyncIterator[Running]:
    directory = tmp_path / "m"
    for each in (directory, directory / "mnt"):
        each.mkdir()
    config = directory / "rclone.conf"
    config.write_text(conf.render(remotes))
    password = secrets.token_hex(16)
    rc = RcAddress("mountd", password, directory / "rc")
    mount = MountSettings.model_validate(
        {"remote": source, "path": str(directory / "mnt"), "cache": {"dir": str(directory / "cache")}} | fields
    )
    remote = RemoteSettings.model_validate(remotes[mount.remote_name])
    devname = f"mountd:{secrets.token_hex(4)}:test"
    settings = Settings.model_construct(
        remotes={mount.remote_name: remote},
        mounts={"test": mount},
        models={},
        apps={},
        control=ControlSettings(socket=directory / "s"),
        state=directory / "state",
        runtime=directory / "run",
    )
    launch = Launch(
        binary=binary.find(RCLONE),
        conf=config,
        devname=devname,
        allow_other=os.geteuid() == 0,
        rc=rc,
        cache=CacheSize(1 << 30, 1 << 20),
    )
    environment = dict(os.environ) | {"AWS_CA_BUNDLE": CA_BUNDLE, "RCLONE_READ_ONLY": "nonsense"}
    command = mount_command(settings, "test", launch, environment)
    assert password not in " ".join(command.argv)
    process = subprocess.Popen(
        dies_with_us(list(command.argv)), env=dict(command.environment), stderr=subprocess.PIPE, cwd="/"
    )
    running = Running(process, mount.path, RcClient(rc), devname, warnings=command.warnings)
    assert process.stderr is not None
    pump = threading.Thread(target=lambda: running.events.extend(map(parse, process.stderr or ())), daemon=True)
    pump.start()
    try:
        await eventually(lambda: running.mountinfo or process.poll() is not None, "the mount")
        assert process.poll() is None, running.events
        yield running
    finally:
        await running.rc.close()
        process.kill()
        subprocess.run(["fusermount3", "-uzq", str(mount.path)], check=False, capture_output=True)
        process.wait()
        pump.join(5)
        process.stderr.close()


async def test_the_command_mounts(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "v1").mkdir(parents=True)
    (source / "v1" / "a").write_text("hello")
    async with mounted(tmp_path, {"disk": {"type": "local"}}, f"disk:{source}", umask="022") as running:
        assert f" fuse.rclone {running.devname} ro," in running.mountinfo
        options = (await running.rc.call("vfs/stats"))["opt"]
        assert options["CacheMode"] in (3, "full")
        assert (options["CacheMaxSize"], options["ReadOnly"], options["Umask"]) == (1 << 30, True, 0o022)
        await running.rc.vfs_refresh()
        await running.rc.vfs_refresh("v1", recursive=True)
        with pytest.raises(RemoteError) as caught:
            await running.rc.vfs_refresh("nope")
        assert caught.value.code == "directory-missing"
        for items in (
            await running.rc.list(f"disk:{source}", "v1"),
            await running.rc.probe_bucket(f"disk:{source}", SOON_S, "v1"),
        ):
            assert [(item.name, item.size, item.is_dir) for item in items] == [("a", 5, False)]
        assert await asyncio.to_thread((running.path / "v1" / "a").read_text) == "hello"
        stats = await running.rc.vfs_stats()
        assert stats.disk_cache is not None
        assert stats.disk_cache.files == 1
        assert (Path(stats.disk_cache.metadata) / "v1" / "a").is_file()
        assert (await running.rc.core_stats()).moved_bytes == 5

        for stranger in (
            RcAddress("mountd", "wrong", running.rc.address.socket),
            RcAddress("", "", running.rc.address.socket),
        ):
            client = RcClient(stranger)
            with pytest.raises(Unavailable, match=r"\(40[13]\)"):
                await client.vfs_stats()
            await client.close()

        running.process.send_signal(signal.SIGTERM)
        await eventually(lambda: running.process.poll() is not None, "the end of rclone")
        # 0 in one of ten: its own unmount ends the mount, and that races with the exit of the signal handler.
        assert running.process.returncode in (143, 0)
        await eventually(lambda: not running.mountinfo, "the end of the mount")
        await eventually(lambda: any("Signal received" in event.text for event in running.events), "the log")
        assert all(event.keys.get("source") for event in running.events), "a line that is not JSON"
        assert all(running.rc.address.password not in event.text for event in running.events)


async def test_a_usage_error_is_printed_on_stderr() -> None:
    argv = [str(RCLONE), "--config", os.devnull, "mount", "a:", "/nowhere", "--no-such-flag"]
    ended = await asyncio.to_thread(subprocess.run, argv, env=binary.clean_environment(), capture_output=True)
    assert ended.returncode == 2
    assert parse(ended.stderr.splitlines()[-1]) == LogEvent("error", "Fatal error: unknown flag: --no-such-flag")


def s3(endpoint: str, **more: str) -> dict[str, str]:
    return {
        "type": "s3",
        "provider": "Other",
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": RcloneS3.access_key_id,
        "secret_access_key": RcloneS3.secret_access_key,
    } | more


def probe_of(rc: RcClient, remote: str) -> BucketProbe:
    engine = SimpleNamespace(rc=rc, mount=SimpleNamespace(remote=remote))
    return BucketProbe(cast(Engine, engine), lambda change: None)


async def asked(rc: RcClient, remote: str) -> str:
    """What the bucket probe finds: "" or the code of its reason."""
    bucket = probe_of(rc, remote)
    usable = await bucket.ask()
    assert usable == (bucket.status.reason is None)
    return bucket.status.reason.code if bucket.status.reason else ""


async def test_the_store_is_asked_once_and_failures_are_distinguished(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "bkt" / "pre" / "v1").mkdir(parents=True)
    (data / "bkt" / "pre" / "v1" / "a").write_text("hello")
    (data / "bkt" / "top").write_text("x")
    for number in range(1001):
        (data / "big" / f"{number}").mkdir(parents=True)
    (data / "empty").mkdir()
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    await asyncio.to_thread(subprocess.run, make, check=True, capture_output=True)
    nobody = hold_port()
    with contextlib.ExitStack() as servers:
        store = servers.enter_context(RcloneS3(data))
        proxy = servers.enter_context(Proxy(store.endpoint))
        tls = servers.enter_context(TlsS3(data, key, certificate))
        servers.callback(nobody.close)
        remotes = {
            "ok": s3(proxy.endpoint),
            "disk": {"type": "local"},
            "key": s3(store.endpoint, access_key_id="NOBODYKNOWS01"),
            "secret": s3(store.endpoint, secret_access_key="somethingelse01"),
            "dead": s3(f"http://127.0.0.1:{nobody.getsockname()[1]}"),
            "dns": s3("http://nothere.invalid"),
            "tls": s3(tls.replace("http:", "https:")),
            "plain": s3(tls),
            "notls": s3(store.endpoint.replace("http:", "https:")),
        }
        async with mounted(tmp_path, remotes, "ok:bkt/pre") as running:
            rc = running.rc
            proxy.reset_counts()
            items = await rc.list("ok:bkt")
            assert sorted((item.path, item.is_dir) for item in items) == [("pre", True), ("top", False)]
            items = await rc.list("ok:bkt/pre", "v1")
            assert [(item.path, item.size) for item in items] == [("v1/a", 5)]
            items = await rc.list("ok:bkt/pre", recursive=True)
            assert [item.path for item in items if not item.is_dir] == ["v1/a"]
            assert proxy.counts.requests == {"GET": 3}, "one request for each listing, no HEAD"
            proxy.reset_counts()
            items = await rc.probe_bucket("ok:bkt", SOON_S, "")
            assert sorted((item.name, item.is_dir) for item in items) == [("pre", True), ("top", False)]
            items = await rc.probe_bucket("ok:bkt/pre", SOON_S, "v1")
            assert [(item.name, item.size) for item in items] == [("a", 5)]
            assert proxy.counts.requests == {"GET": 2}, "one request for each listing, no HEAD"
            assert await rc.features("ok:bkt/pre", SOON_S) == StoreFeatures(has_buckets=True, reports_room=False)
            assert await rc.features("disk:/", SOON_S) == StoreFeatures(has_buckets=False, reports_room=True)
            for remote in ("ok:big", "ok:bkt/pre", "ok:empty"):
                proxy.reset_counts()
                assert await asked(rc, remote) == ""
                assert proxy.counts.requests == {"GET": 1, "HEAD": 1}, "however much there is; the HEAD only once"
            assert await asked(rc, "ok:") == ""
            assert await asked(rc, f"disk:{data}") == ""
            assert await asked(rc, f"disk:{data}/nothing") == "bucket-missing"
            proxy.faults.fail = {"LIST": Failure(403, "AccessDenied", where=lambda it: NONEXISTENT_DIR in it.target)}
            bucket = probe_of(rc, "ok:bkt")
            for requests in (2, 1):
                proxy.reset_counts()
                assert await bucket.ask(), "keys that may list the root alone"
                assert proxy.counts.requests == {"GET": requests}
            proxy.faults.clear()
            for remote, code in {
                "ok:nobucket": "bucket-missing",
                "key:bkt": "access-denied",
                "secret:bkt": "access-denied",
                "dead:bkt": "bucket-unreachable",
                "dns:bkt": "bucket-unreachable",
                "tls:bkt": "tls-failure",
                "plain:bkt": "tls-failure",
                "notls:bkt": "tls-failure",
            }.items():
                with pytest.raises(RemoteError) as caught:
                    await rc.probe_bucket(remote, SOON_S, "")
                assert (remote, caught.value.code) == (remote, code), caught.value.text
                assert caught.value.hint
                assert (remote, await asked(rc, remote)) == (remote, code)

            proxy.latency_s = 30.0
            started = asyncio.get_running_loop().time()
            with pytest.raises(RemoteError) as caught:
                await rc.probe_bucket("ok:bkt", 1.0, "")
            assert caught.value.code == "bucket-slow"
            assert asyncio.get_running_loop().time() - started < 20
            proxy.latency_s = 0.0
            assert await rc.probe_bucket("ok:bkt", SOON_S, "")


class TlsS3:
    """`rclone serve s3` behind a certificate that nobody trusts; gives its address with http://."""

    def __init__(self, data: Path, key: Path, certificate: Path) -> None:
        self._held = hold_port()
        port = self._held.getsockname()[1]
        self._address = f"http://127.0.0.1:{port}"
        argv = [str(RCLONE), "--config", os.devnull, "serve", "s3", str(data), "--addr", f"127.0.0.1:{port}"]
        argv += ["--cert", str(certificate), "--key", str(key)]
        environment = binary.clean_environment() | {
            "RCLONE_AUTH_KEY": f'"{RcloneS3.access_key_id},{RcloneS3.secret_access_key}"'
        }
        self._process = subprocess.Popen(
            dies_with_us(argv), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/"
        )

    def __enter__(self) -> str:
        port = self._held.getsockname()[1]

        def accepts() -> bool:
            with socket.create_connection(("127.0.0.1", port), 1):
                return True

        until(accepts, 60, "the TLS server")
        return self._address

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._held.close()
