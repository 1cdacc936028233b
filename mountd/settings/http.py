"""The TCP port: where it listens, who may ask there, and with which certificate it speaks TLS."""

from __future__ import annotations

import ipaddress

from pydantic import Field

from mountd.settings.fields import Listen
from mountd.settings.secret import SecretRef
from mountd.settings.section import Section


class TlsSettings(Section):
    """Certificate and key of the TCP port, both in PEM. mountd reads them again when they change."""

    certificate: SecretRef = Field(description="the certificate, followed by the intermediate ones")
    key: SecretRef = Field(description="its private key, which others must not be able to read")


class HttpSettings(Section):
    """The TCP port: dashboard, probes, metrics and the API.

    `/healthz`, `/readyz`, `/metrics` and the dashboard's page are open to everybody. All else needs a token; reading
    on loopback needs none.
    """

    listen: Listen = Field("127.0.0.1:8780", description="address and port")
    tokens: SecretRef | None = Field(
        None,
        description="file with lines `reader NAME TOKEN` or `operator NAME TOKEN`; mountd reads it again when it"
        " changes; default: nobody writes over TCP, and only programs of this machine read",
    )
    tls: TlsSettings | None = Field(None, description="speak only TLS; default: plain text")
    behind_proxy: bool = Field(
        False,
        description="requests come through a proxy: each read needs a token, on loopback too, every Host is answered,"
        " and wrong tokens are counted by the last address in X-Forwarded-For",
    )

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine reach it, and act for nobody else."""
        return is_loopback(self.address[0]) and not self.behind_proxy


def is_loopback(host: str) -> bool:
    """Whether that name or address means this machine; nobody is asked for the name."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
