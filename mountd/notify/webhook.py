"""Posts events to a program: signed, with a deadline, following no redirect."""

from __future__ import annotations

import errno
import re
import ssl
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

import aiohttp

from mountd import __version__
from mountd.errors import cause_of
from mountd.notify import signature
from mountd.notify.cloudevent import CONTENT_TYPE, cloud_event
from mountd.notify.delivery import OutgoingMessage, SenderDeps, Undelivered
from mountd.notify.signature import BadSigningSecret
from mountd.settings.notify import NotifySettings
from mountd.settings.secret import SecretRef
from mountd.text import dumps
from mountd.tls import verifying

AGAIN = frozenset({408, 425, 429})
"""Statuses of 4xx after which another try may succeed."""
LONGEST_RETRY_AFTER_S = 3600.0
_ADDRESS = "correct the address of the webhook, or the receiver"


class WebhookSender:
    def __init__(self, settings: NotifySettings, deps: SenderDeps) -> None:
        self._settings = settings
        self._read_secrets = deps.read_secrets

    async def send(self, message: OutgoingMessage) -> None:
        """Raises Undelivered, CannotStart."""
        references = {key[0]: each for key, each in self._settings.secrets()}
        secrets = await self._read_secrets({str(key): each for key, each in references.items()})
        webhook = self._settings.webhook
        url = secrets["webhook"] if isinstance(webhook, SecretRef) else str(webhook)
        place = _place(url)
        body = dumps(cloud_event(message.notification, id_=message.id, source=message.source)).encode()
        try:
            headers = signature.signed(secrets.get("secret"), message.id, int(time.time()), body)
        except BadSigningSecret as error:
            hint = "write the secret as the receiver has it"
            raise Undelivered(f"cannot sign the webhook: {error}", hint=hint) from None
        status, retry_after_s = await self._post(place, url, headers, body)
        if 200 <= status < 300:
            return
        said = f"cannot deliver to {place}: it answers {status}"
        if 300 <= status < 400:
            raise Undelivered(f"{said}, and mountd follows no redirect", hint=_ADDRESS, is_refusal=True)
        if 400 <= status < 500 and status not in AGAIN:
            raise Undelivered(said, hint=_ADDRESS, is_refusal=True)
        raise Undelivered(said, hint="look at the receiver", retry_after_s=retry_after_s)

    async def _post(self, place: str, url: str, headers: dict[str, str], body: bytes) -> tuple[int, float]:
        """Status, and after how many seconds it wants to be asked again. Raises Undelivered."""
        limit_s = self._settings.timeout_s
        sent = {**headers, "Content-Type": CONTENT_TYPE, "User-Agent": f"mountd/{__version__}"}
        try:
            async with (
                aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=limit_s), trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
                ) as session,
                session.post(
                    url,
                    data=body,
                    headers=sent,
                    allow_redirects=False,
                    proxy=_proxy(url),
                    ssl=await verifying(url, limit_s),
                ) as response,
            ):
                return response.status, _retry_after_s(response.headers.get("Retry-After", ""))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise Undelivered(f"cannot deliver to {place}: {_cause(error, limit_s)}", hint=_hint(error)) from None


def _place(url: str) -> str:
    """The part of an address that is no secret. Raises Undelivered."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        parts, port = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"[\x00-\x20]", url):
        text = "cannot deliver to the webhook: its address is none of http:// or https://"
        raise Undelivered(text, hint=_ADDRESS)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def _proxy(url: str) -> str | None:
    """By http_proxy, https_proxy and no_proxy of mountd's own environment. Not by aiohttp: it would take logins from a
    .netrc as well."""
    parts = urlsplit(url)
    proxies = getproxies_environment()
    host = parts.hostname or ""
    if proxy_bypass(f"{host}:{parts.port}" if parts.port else host):
        return None
    return proxies.get(parts.scheme)


def _retry_after_s(word: str) -> float:
    """Seconds, or a date; 0 for what is neither."""
    if word.isascii() and word.isdigit():
        return min(float(word[:9]), LONGEST_RETRY_AFTER_S)
    try:
        moment = parsedate_to_datetime(word)
    except (ValueError, TypeError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max(0.0, (moment - datetime.now(UTC)).total_seconds()), LONGEST_RETRY_AFTER_S)


def _cause(error: Exception, limit_s: float) -> str:
    """In words that repeat nothing of the address."""
    match error:
        case TimeoutError():
            return f"no answer after {limit_s:g} s"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "TLS fails: its certificate is not accepted, or it does not speak TLS"
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return "the proxy does not connect to it"
        case aiohttp.ClientConnectorError() if error.os_error.errno == errno.ECONNREFUSED:
            return "it refuses connections"
        case aiohttp.ClientConnectorError():
            return f"it cannot be reached: {cause_of(error.os_error)}"
        case aiohttp.ClientOSError() | aiohttp.ServerDisconnectedError() | ConnectionError():
            return "it broke off the connection"
        case OSError():
            return cause_of(error)
    return f"it does not answer in HTTP ({type(error).__name__})"


def _hint(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "set SSL_CERT_FILE in mountd's environment to the authority of the receiver's certificate"
    return "look at the receiver and the network to it; mountd tries again by itself"
