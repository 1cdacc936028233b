"""S3 servers for tests: `rclone serve s3` over a directory, which checks keys, and moto, which knows more of S3."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import boto3
from botocore.config import Config

from tests.support import dies_with_us, hold_port
from tests.support.wait import until

RCLONE = Path(sys.prefix) / "bin" / "rclone"
START_TIMEOUT_S = 60.0
ACCESS_KEY_ID, SECRET_ACCESS_KEY = "MOUNTDTESTKEY0001", "mountd-test-secret-0001"  # rclone refuses very short ones


@lru_cache
def client(endpoint: str, access_key_id: str, secret_access_key: str) -> Any:
    """A boto3 S3 client that asks the environment nothing and gives up fast; cached, as making one costs 50 ms."""
    session = boto3.session.Session(
        aws_access_key_id=access_key_id, aws_secret_access_key=secret_access_key, region_name="us-east-1"
    )
    config = Config(
        s3={"addressing_style": "path"},
        connect_timeout=5,
        read_timeout=30,
        retries={"total_max_attempts": 1},
        # By default boto3 sends checksums in trailers, which S3-compatible services often do not know.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    return session.client("s3", endpoint_url=endpoint, config=config)


def environment(home: Path) -> dict[str, str]:
    """For a child: nothing of ours but the path.

    AWS_CA_BUNDLE stops Debian's rclone, AWS_* and RCLONE_* change what a child does, proxies take requests elsewhere.
    """
    return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8"}


class S3Server(ABC):
    """A server process on one port over all its restarts; runs from now on until `close` or the end of a `with`."""

    access_key_id = ACCESS_KEY_ID
    secret_access_key = SECRET_ACCESS_KEY

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="mountd-s3-")
        self._held = hold_port()
        self.host, self.port = self._held.getsockname()
        self.endpoint = f"http://{self.host}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    @abstractmethod
    def _command(self) -> tuple[list[str], dict[str, str]]:
        """The argv, and what the environment holds besides."""

    @property
    def client(self) -> Any:
        return client(self.endpoint, self.access_key_id, self.secret_access_key)

    @property
    def log(self) -> str:
        path = Path(self._home.name, "log")
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is stopped"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it answers a signed request."""
        assert self._process is None, "the server runs already"
        argv, extra = self._command()
        home = Path(self._home.name)
        with (home / "log").open("ab") as log:
            process = self._process = subprocess.Popen(
                dies_with_us(argv),
                env=environment(home) | extra,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=home,
            )
        name = type(self).__name__
        until(
            lambda: process.poll() is not None or self._answers(),
            START_TIMEOUT_S,
            f"{name} at {self.endpoint}",
        )
        if process.poll() is not None:
            raise RuntimeError(f"{name} exited with {process.returncode}:\n{self.log}")

    def _answers(self) -> bool:
        return "Buckets" in self.client.list_buckets()

    def stop(self) -> None:
        """Kill it: to its clients an outage. From here on connections are refused. Stopping twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        self.stop()
        self._held.close()
        self._home.cleanup()

    def create_bucket(self, bucket: str) -> None:
        self.client.create_bucket(Bucket=bucket)

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def upload(self, bucket: str, directory: Path) -> None:
        """Every file below `directory`, keyed by its path there."""
        s3 = self.client
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                s3.upload_file(str(path), bucket, path.relative_to(directory).as_posix())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class RcloneS3(S3Server):
    """`rclone serve s3` over `directory`: its directories are the buckets. What changes on disk shows within 0.1 s."""

    def __init__(self, directory: Path, rclone: Path = RCLONE) -> None:
        self.directory = directory
        self._rclone = rclone
        self._more_keys: tuple[tuple[str, str], ...] = ()
        super().__init__()

    def set_keys(self, access_key_id: str, secret_access_key: str, *more: tuple[str, str]) -> None:
        """Restart with other keys, so that clients with the former ones get 403; `more` are accepted as well."""
        self.access_key_id, self.secret_access_key = access_key_id, secret_access_key
        self._more_keys = more
        self.restart()

    def _command(self) -> tuple[list[str], dict[str, str]]:
        argv = [str(self._rclone), "serve", "s3", str(self.directory.absolute())]
        argv += ["--addr", f"{self.host}:{self.port}", "--config", os.devnull]
        argv += ["--etag-hash", ""]  # else each request hashes the whole file
        argv += ["--dir-cache-time", "100ms", "--poll-interval", "0"]
        pairs = [(self.access_key_id, self.secret_access_key), *self._more_keys]
        row = io.StringIO()
        csv.writer(row, quoting=csv.QUOTE_ALL).writerow(",".join(pair) for pair in pairs)
        return argv, {"RCLONE_AUTH_KEY": row.getvalue().strip()}  # not in argv, where `ps` would show it


class MotoS3(S3Server):
    """moto's server: in memory, so a restart forgets everything; accepts any keys."""

    def _command(self) -> tuple[list[str], dict[str, str]]:
        return [str(Path(sys.prefix) / "bin" / "moto_server"), "-H", self.host, "-p", str(self.port)], {}


# As a bucket that encrypts everything with keys of KMS: the ETag looks like an MD5 and is none, another one each time.
_KMS = """
import sys, uuid
from moto.s3.models import FakeKey
from moto.server import main
plain = FakeKey.etag.fget
def etag(self):
    if not hasattr(self, "of_kms"):
        self.of_kms = uuid.uuid4().hex
    _, dash, parts = plain(self).strip('"').partition("-")
    return f'"{self.of_kms}{dash}{parts}"'
FakeKey.etag = property(etag)
main(sys.argv[1:])
"""


class KmsS3(MotoS3):
    """moto, with ETags as Amazon S3 has them for objects that are encrypted with keys of KMS."""

    def _command(self) -> tuple[list[str], dict[str, str]]:
        return [sys.executable, "-c", _KMS, "-H", self.host, "-p", str(self.port)], {}
