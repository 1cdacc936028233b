"""What a process trusts that has imported aiohttp without reading certificates; when a certificate expires."""

from __future__ import annotations

import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mountd.tls import expiry
from tests.support.tls import make_certificate

CODE = """
from mountd import tls
with tls.unread():
    from aiohttp import connector
import ssl
print(len(connector._SSL_CONTEXT_VERIFIED.get_ca_certs()), connector._SSL_CONTEXT_VERIFIED.verify_mode.name)
print(ssl.SSLContext.load_default_certs.__name__, ssl.create_default_context().verify_mode.name)
"""


def test_nobody_until_somebody_is_asked() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["0", "CERT_REQUIRED", "load_default_certs", "CERT_REQUIRED"]


def test_when_a_certificate_expires(tmp_path: Path) -> None:
    certificate, _ = make_certificate(tmp_path, "own")
    found = expiry(certificate.read_text())
    asked = ["openssl", "x509", "-noout", "-enddate", "-in", str(certificate)]
    said = (
        subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout.partition("=")[2].strip()
    )
    assert found == ssl.cert_time_to_seconds(said)
    assert found == pytest.approx(time.time() + 2 * 86400, abs=600)
    other, _ = make_certificate(tmp_path, "other")
    assert expiry(f"leaf first\n{certificate.read_text()}{other.read_text()}") == found, "a chain begins with it"


@pytest.mark.parametrize("days", ["1", "30000"])  # 82 years: another kind of time
def test_both_kinds_of_time(tmp_path: Path, days: str) -> None:
    path = tmp_path / "c.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", days, "-subj", "/CN=x"]
    subprocess.run(
        [*make, "-keyout", str(tmp_path / "k"), "-out", str(path)], capture_output=True, timeout=60, check=True
    )
    assert expiry(path.read_text()) == pytest.approx(time.time() + int(days) * 86400, abs=600)


def test_what_is_no_certificate_does_not_say() -> None:
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    for text in ("", "no certificate", f"{begin}\nAAAA\n{end}", f"{begin}\n{end}", f"{begin}\nMIIBIjANBg==\n{end}"):
        assert expiry(text) is None
