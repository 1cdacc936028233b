"""Certificates for tests, and an S3 server that speaks TLS with one of them or not at all."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

from tests.support.s3 import RcloneS3


def make_certificate(directory: Path, name: str, *, password: str = "") -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, good for two days: certificate, key (encrypted with a `password`)."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", f"/CN={name}"]
    make += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    make += ["-passout", f"pass:{password}"] if password else ["-nodes"]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    return certificate, key


class TlsS3(RcloneS3):
    """As RcloneS3, on the same port over all restarts; `pair` is the certificate and key to speak TLS with, or None."""

    def __init__(self, directory: Path, pair: tuple[Path, Path] | None) -> None:
        self._pair = pair
        super().__init__(directory)

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def speak(self, pair: tuple[Path, Path] | None) -> None:
        """Restart with another certificate, or without TLS."""
        self.stop()
        self._pair = pair
        self.start()

    def _command(self) -> tuple[list[str], dict[str, str]]:
        argv, extra = super()._command()
        if self._pair is not None:
            argv += ["--cert", str(self._pair[0]), "--key", str(self._pair[1])]
        return argv, extra

    def _answers(self) -> bool:
        if self._pair is None:
            return super()._answers()
        with socket.create_connection((self.host, self.port), timeout=5):
            return True
