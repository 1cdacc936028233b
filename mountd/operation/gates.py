"""The gates that a new version must pass: an HTTP answer, a command, a value of Prometheus."""

from __future__ import annotations

import errno
import json
import math
import shlex
import ssl
from collections.abc import Mapping

import aiohttp

from mountd.errors import CommandTimeout, GateFailed, Unavailable
from mountd.process import tool
from mountd.process.child import User
from mountd.settings import masking
from mountd.settings.gates import GateSettings
from mountd.tls import verifying

MAX_ANSWER_BYTES = 1024 * 1024
MAX_WORDS = 100
MAX_SAID = 200
_NO_PROMETHEUS = "what answers there is no Prometheus"


class NoValue(Exception):
    """The answer does not hold exactly one value; the text says what it holds."""


def words(gate: GateSettings) -> str:
    """The gate in one short line without secrets: `http URL`, `command …`, `prometheus QUERY <= 3`."""
    if gate.http is not None:
        return _short(f"http {masking.text(gate.http)}")
    if gate.command is not None:
        return _short(f"command {shlex.join(masking.command(gate.command))}")
    return _short(f"prometheus {gate.query} <= {gate.max:g}")


async def check(
    gate: GateSettings,
    *,
    number: int,
    model: str,
    version: str,
    environment: Mapping[str, str],
    directory: str = "/",
    user: User | None = None,
) -> None:
    """Asks the gate once; returns when `version` passes, at the latest after its timeout. `number`: its place, from 1.

    A command gets `environment` with MOUNTD_MODEL and MOUNTD_VERSION added. Raises GateFailed.
    """
    try:
        if gate.command is not None:
            given = {**environment, "MOUNTD_MODEL": model, "MOUNTD_VERSION": version}
            await _command(gate.command, gate.timeout, given, directory, user)
        elif gate.http is not None:
            await _http(gate.http, gate.timeout)
        else:
            await _prometheus(gate)
    except GateFailed as failed:
        raise GateFailed(
            f"gate {number} ({words(gate)}) failed: {failed.text}",
            hint=failed.hint,
            code=failed.code,
            retryable=failed.retryable,
        ) from None


async def _command(
    argv: list[str], timeout_s: float, environment: Mapping[str, str], directory: str, user: User | None
) -> None:
    try:
        outcome = await tool.run(argv, timeout_s=timeout_s, environment=environment, directory=directory, user=user)
    except CommandTimeout as error:
        raise GateFailed(f"no end after {timeout_s:g} s{_last(error.output)}") from None
    except Unavailable as error:
        raise GateFailed(error.text, code="gate-unanswered", retryable=True) from None
    if outcome.not_started is not None:
        raise GateFailed(_clean(outcome.not_started.text), code="gate-unanswered")
    if outcome.code != 0:
        raise GateFailed(f"{outcome}{_last(outcome.output)}")


async def _http(url: str, timeout_s: float) -> None:
    try:
        status, _ = await _get(url, {}, timeout_s, most=0)
    except (aiohttp.ClientConnectorDNSError, aiohttp.ClientSSLError, ssl.SSLError) as error:
        raise GateFailed(_cause(error, timeout_s), code="gate-unanswered", retryable=True) from None
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        raise GateFailed(_cause(error, timeout_s)) from None
    if status >= 400:
        raise GateFailed(f"it answers {status}")


async def _prometheus(gate: GateSettings) -> None:
    assert gate.query is not None
    assert gate.max is not None
    try:
        status, body = await _get(f"{gate.prometheus}/api/v1/query", {"query": gate.query}, gate.timeout)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        text = f"{gate.prometheus}: {_cause(error, gate.timeout)}"
        raise GateFailed(text, code="gate-unanswered", retryable=True) from None
    if len(body) > MAX_ANSWER_BYTES:
        raise GateFailed("its answer is over 1 MiB: aggregate the query to one figure", code="gate-unanswered")
    try:
        value = value_of(body)
    except NoValue as error:
        text = f"{error} (HTTP {status})" if status >= 400 else str(error)
        # 4xx and a wrong answer stay what they are; a Prometheus that starts, or its proxy, answers 5xx.
        raise GateFailed(_clean(text), code="gate-unanswered", retryable=status >= 500) from None
    if value > gate.max:
        raise GateFailed(f"it is {value:g}, more than {gate.max:g}")


def value_of(body: bytes) -> float:
    """Of Prometheus' answer to an instant query: a scalar, or a vector's one sample; may be +Inf. Raises NoValue."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    match document:
        case {"status": "error"}:
            raise NoValue(f"Prometheus answers {document.get('errorType')}: {document.get('error')}")
        case {"data": {"resultType": "matrix" | "string" as kind, "result": [*_]}}:
            raise NoValue(f"the query gives a {kind}, not one figure")
        case {"data": {"resultType": "vector", "result": []}}:
            raise NoValue("the query gives no sample: nothing has been measured")
        case {"data": {"resultType": "vector", "result": [_, _, *_] as samples}}:
            raise NoValue(f"the query gives {len(samples)} samples, not one: aggregate it, such as with max()")
        case {"data": {"resultType": "vector", "result": [{"histogram": _}]}}:
            raise NoValue("the query gives a histogram, not one figure: use histogram_quantile()")
        case {"data": {"resultType": "vector", "result": [{"value": [_, str(text)]}]}}:
            return _figure(text)
        case {"data": {"resultType": "scalar", "result": [_, str(text)]}}:
            return _figure(text)
    raise NoValue(_NO_PROMETHEUS)


def _figure(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise NoValue(_NO_PROMETHEUS) from None
    if math.isnan(value) or value == -math.inf:
        raise NoValue(f"the query gives {text}, not a figure: nothing has been measured, or it divides by 0")
    return value


async def _get(
    url: str, parameters: Mapping[str, str], timeout_s: float, *, most: int = MAX_ANSWER_BYTES
) -> tuple[int, bytes]:
    """Status and body, of which little more than `most` bytes is read. No proxy, no redirect, no kept connection."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    body = bytearray()
    async with (
        aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
        session.get(url, params=parameters, allow_redirects=False, ssl=await verifying(url, timeout_s)) as response,
    ):
        while len(body) <= most and (chunk := await response.content.read(64 * 1024) if most else b""):
            body += chunk
        return response.status, bytes(body)


def _cause(error: Exception, timeout_s: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer after {timeout_s:g} s"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return _clean(f"TLS fails: {getattr(error, 'certificate_error', None) or error}")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno != errno.ECONNRESET:
        refused = error.os_error.errno == errno.ECONNREFUSED
        return "it refuses connections" if refused else f"it cannot be reached: {error.strerror}"
    if isinstance(error, aiohttp.ClientOSError | aiohttp.ServerDisconnectedError | ConnectionError):
        return "it broke off the connection"
    return _clean(f"it does not answer in HTTP: {masking.text(str(error))}")


def _last(output: str) -> str:
    """`: ` and the last line that is not empty."""
    said = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    return f": {_clean(said)}" if said else ""


def _short(text: str) -> str:
    text = _clean(" ".join(text.split()))
    return text if len(text) <= MAX_WORDS else f"{text[: MAX_WORDS - 1]}…"


def _clean(text: str) -> str:
    """As one line for a log or terminal, whatever a program has printed."""
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text[:MAX_SAID])
