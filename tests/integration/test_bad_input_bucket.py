"""A bucket that cannot be read: each fault is named as what it is, the app waits, and starts once it is repaired."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mountd.demo import hub
from tests.support.daemon import Daemon
from tests.support.faults import ANY, DENIED
from tests.support.not_ready import assert_app_never_started, assert_silent, until_not_ready
from tests.support.proxy import Proxy
from tests.support.s3 import RcloneS3
from tests.support.tls import TlsS3, make_certificate
from tests.support.wait import until

pytestmark = pytest.mark.fuse

REPAIRED_S = 60.0
"""The bucket is asked every 2 s while it does not answer."""


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    directory = tmp_path_factory.mktemp("certificates")
    return {name: make_certificate(directory, name) for name in ("ours", "unknown")}


@pytest.fixture
def bucket(hub_directory: Path, tmp_path: Path) -> Path:
    root = tmp_path / "tls"
    shutil.copytree(hub_directory, root)
    return root


@pytest.fixture
def plain(bucket: Path) -> Iterator[TlsS3]:
    with TlsS3(bucket, None) as server:
        yield server


def assert_recovers(daemon: Daemon) -> None:
    """By itself, with the same rclone, and then the app for the first time."""
    daemon.until_ready(REPAIRED_S)
    until(lambda: (daemon.status()["health"], daemon.reasons()) == ("Healthy", {}), REPAIRED_S, "it to be well")
    status = daemon.status()
    assert status["mounts"]["storage"]["restarts"] == 0
    assert daemon.page()["version"] == "v23"
    assert_silent(daemon)


@pytest.mark.parametrize(
    ("keys", "told", "hint"),
    [
        pytest.param(
            ("NOBODYKNOWS0001", None),
            "InvalidAccessKeyId",
            "access_key_id",
            marks=pytest.mark.thorough,
        ),
        ((None, "mountd-test-secret-9999"), "SignatureDoesNotMatch", "secret_access_key"),
    ],
    ids=["access-key-id", "secret"],
)
@pytest.mark.thorough
def test_wrong_key(
    make_daemon: Callable[..., Daemon],
    store: RcloneS3,
    keys: tuple[str | None, str | None],
    told: str,
    hint: str,
) -> None:
    right = store.access_key_id, store.secret_access_key
    daemon = make_daemon()
    # The other way round, so that the server can be repaired.
    store.set_keys(keys[0] or right[0], keys[1] or right[1])
    daemon.start()
    reason = until_not_ready(daemon, "access-denied", f"store:{hub.BUCKET}", told)
    assert hint in reason["hint"]
    assert (reason["layer"], reason["object"]) == ("bucket", "store")
    assert_app_never_started(daemon)
    assert not os.path.lexists(daemon.link)
    store.set_keys(*right)
    assert_recovers(daemon)


def test_missing_bucket(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    aside = store.directory.parent / "aside"
    (store.directory / hub.BUCKET).rename(aside)
    daemon = make_daemon()
    daemon.start()
    until_not_ready(daemon, "bucket-missing", f"store:{hub.BUCKET}")
    assert daemon.status()["health"] == "Missing"
    assert not os.path.lexists(daemon.link), "an empty directory must never be taken for the model"
    assert_app_never_started(daemon)
    aside.rename(store.directory / hub.BUCKET)
    assert_recovers(daemon)


@pytest.mark.thorough
def test_dead_endpoint(make_daemon: Callable[..., Daemon], store: RcloneS3) -> None:
    store.stop()
    daemon = make_daemon()
    daemon.start()
    reason = until_not_ready(daemon, "bucket-unreachable", "connection refused")
    assert f":{store.port}" in reason["text"]
    assert_app_never_started(daemon)
    store.start()
    assert_recovers(daemon)


@pytest.mark.thorough
def test_unknown_host_name(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon(endpoint="http://no-such-store.invalid")
    daemon.start()
    until_not_ready(daemon, "bucket-unreachable", "no-such-store.invalid")
    assert_app_never_started(daemon)


@pytest.mark.thorough
def test_certificate_that_nobody_trusts(
    make_daemon: Callable[..., Daemon],
    plain: TlsS3,
    certificates: dict[str, tuple[Path, Path]],
) -> None:
    plain.speak(certificates["unknown"])
    daemon = make_daemon(endpoint=f"https://{plain.address}")
    daemon.config["mounts"]["storage"]["options"] = {"ca-cert": str(certificates["ours"][0])}
    daemon.start()
    reason = until_not_ready(daemon, "tls-failure", "x509")
    assert "ca-cert" in reason["hint"]
    assert_app_never_started(daemon)
    plain.speak(certificates["ours"])
    assert_recovers(daemon)


@pytest.mark.thorough
def test_https_to_a_port_without_tls(
    make_daemon: Callable[..., Daemon],
    plain: TlsS3,
    certificates: dict[str, tuple[Path, Path]],
) -> None:
    daemon = make_daemon(endpoint=f"https://{plain.address}")
    daemon.config["mounts"]["storage"]["options"] = {"ca-cert": str(certificates["ours"][0])}
    daemon.start()
    reason = until_not_ready(daemon, "tls-failure", "server gave HTTP response to HTTPS client")
    assert "http://" in reason["hint"]
    assert_app_never_started(daemon)
    plain.speak(certificates["ours"])
    assert_recovers(daemon)


@pytest.mark.thorough
def test_http_to_a_port_with_tls(
    make_daemon: Callable[..., Daemon],
    plain: TlsS3,
    certificates: dict[str, tuple[Path, Path]],
) -> None:
    plain.speak(certificates["ours"])
    daemon = make_daemon(endpoint=f"http://{plain.address}")
    daemon.start()
    reason = until_not_ready(daemon, "tls-failure", "expects TLS")
    assert "https://" in reason["hint"]
    assert_app_never_started(daemon)
    plain.speak(None)
    assert_recovers(daemon)


@pytest.mark.slow
def test_a_wrong_secret_corrected_in_its_file(daemon: Daemon) -> None:
    daemon.secret.write_text("mountd-test-secret-9999")
    daemon.start()
    until_not_ready(daemon, "access-denied", "SignatureDoesNotMatch")
    assert_app_never_started(daemon)
    daemon.secret.write_text(daemon.secret_access_key)
    daemon.until_ready(REPAIRED_S)
    assert_silent(daemon)
    assert "mountd-test-secret-9999" not in daemon.log_text()


@pytest.mark.slow
@pytest.mark.thorough
def test_a_missing_secret_file_that_comes_later(daemon: Daemon) -> None:
    daemon.secret.unlink()
    daemon.start()
    until_not_ready(daemon, "secret-missing", str(daemon.secret))
    assert_app_never_started(daemon)
    assert daemon.mounts() == []
    daemon.secret.write_text(daemon.secret_access_key)
    daemon.until_ready(REPAIRED_S)
    assert_silent(daemon)


@pytest.mark.thorough
def test_a_missing_secret_variable(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon()
    daemon.config["remotes"]["store"]["secret_access_key"] = {"env": "STORE_SECRET_KEY"}
    daemon.start()
    reason = until_not_ready(daemon, "secret-missing", "STORE_SECRET_KEY")
    assert "restart" in reason["hint"]
    assert_app_never_started(daemon)
    assert daemon.stop() == 0
    daemon.environment["STORE_SECRET_KEY"] = daemon.secret_access_key
    daemon.start_ready()
    assert_silent(daemon)


@pytest.mark.thorough
def test_a_fault_is_logged_once_however_long_it_lasts(make_daemon: Callable[..., Daemon], proxy: Proxy) -> None:
    daemon = make_daemon(endpoint=proxy.endpoint)
    proxy.faults.fail = {ANY: DENIED}
    daemon.start()
    until(lambda: proxy.counts.requests.total() >= 4, 60, "some bucket probes")
    (logged,) = daemon.until_events("bucket has a problem")
    assert logged["level"] == "warning"
    assert logged["hint"]
    assert daemon.events("rclone says") == []
    proxy.faults.clear()
    daemon.until_ready(REPAIRED_S)
    assert len(daemon.events("bucket has a problem")) == 1
    assert len(daemon.until_events("bucket answers again")) == 1
