"""The TCP port: where it listens, who may ask there, and with which certificate it speaks TLS."""

from __future__ import annotations

import ipaddress

from pydantic import Field

from mountd.settings.fields import Listen
from mountd.settings.secret import SecretRef
from mountd.settings.section import Section


class TlsSettings(Section):
    """A certificate with those that lead to its authority, and its key; both in PEM, read again when they change."""

    certificate: SecretRef
    key: SecretRef


class HttpSettings(Section):
    """`/healthz`, `/readyz`, `/metrics` and the dashboard's page for everybody; all else by tokens, reading on loopback
    without one."""

    listen: Listen = "127.0.0.1:8780"
    tokens: SecretRef | None = Field(
        None, description="where lines `reader NAME TOKEN` and `operator NAME TOKEN` stand; read again when it changes"
    )
    tls: TlsSettings | None = Field(None, description="speak only TLS; default: plain text")
    behind_proxy: bool = Field(
        False,
        description="what comes to the port comes from a proxy on another network: reading needs a token on loopback,"
        " too, every Host is answered, and wrong tokens are counted by the last address in X-Forwarded-For",
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
