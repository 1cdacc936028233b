"""Is the app ready: it answers, and it is the app that answers, not a stranger on its port."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp

from mountd.app.belonging import Belonging
from mountd.errors import CannotStart, MountdError
from mountd.process import ports, tool
from mountd.process.child import User
from mountd.settings import masking
from mountd.settings.schema import AppSettings
from mountd.settings.supervision import ReadySettings
from mountd.status.snapshot import Reason
from mountd.tls import verifying

HTTP_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 120.0
"""A warm-up request may have to load the whole model."""
INTERVAL_S = 0.2
COMMAND_INTERVAL_S = 2.0


def port_of(ready: ReadySettings | None) -> int | None:
    """The port that the app is expected to listen on, when its readiness says so."""
    if ready is None or ready.http is None:
        return None
    return urlsplit(ready.http).port or 80


async def check_port_free(name: str, port: int | None) -> None:
    """Raises CannotStart when somebody listens where the app is about to."""
    if port is None:
        return
    if await asyncio.to_thread(ports.listeners, port):
        raise _taken(f"cannot start {name}: port {port} is taken by {await asyncio.to_thread(ports.holder, port)}")


def _taken(text: str) -> CannotStart:
    return CannotStart(text, hint="stop it, or give the app another port", code="port-taken")


async def answers(
    app: AppSettings, belonging: Belonging, *, environment: Mapping[str, str], user: User | None, uid: int | None
) -> str:
    """Empty when the app is ready, else why not. Raises CannotStart when it never can be: a stranger has its port.

    `uid`: of a user that nobody else below this daemon has now.
    """
    ready = app.ready
    if ready is None:
        return ""
    if ready.command is not None:
        return await _command(ready.command, app, environment, user)
    assert ready.http is not None
    why = await _http(ready.http)
    if why:
        return why
    port = port_of(ready)
    assert port is not None
    found = await asyncio.to_thread(ports.listeners, port)
    owner = user.uid if user else os.geteuid()
    if await asyncio.to_thread(ports.belongs, found, await belonging.look(), owner):
        return ""
    if found:
        # One that has come loose is the app's all the same; for that many processes have to be looked at.
        if await asyncio.to_thread(ports.belongs, found, await _all_of(belonging, uid), owner):
            return ""
        holder = await asyncio.to_thread(ports.holder, port)
        raise _taken(f"port {port} is answered by {holder}, not by the app")
    return f"nobody listens on port {port} of this machine"


def waiting(name: str, why: str, shown: Reason | None) -> Reason:
    """Of an app that has started; `why` is what `answers` said. What it ended with before (`shown`) says more."""
    if shown is not None and shown.code != WAITING:
        return shown
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, why)), f"see `mountd logs {name}`")
    return Reason(WAITING, f"{name} has started and is not ready yet: {why}", "app", name, hint)


WAITING = "app-starting"
_HINTS = (
    (r" answers 40[13]$", "the page asks for a login: name one in ready.http that needs none, or use ready.command"),
    (r" answers 404$", "there is no such page: correct ready.http"),
    (r" answers 405$", "the page cannot be asked with GET: name another one in ready.http, or use ready.command"),
)


async def _all_of(belonging: Belonging, uid: int | None) -> list[int]:
    try:
        return await belonging.find(uid)
    except MountdError:
        return []  # the look hangs with a process that hangs


async def _http(url: str) -> str:
    """Why not, without the password and the query of `url`: every client of the API sees it."""
    shown = masking.text(url)
    timeout = aiohttp.ClientTimeout(total=HTTP_TIMEOUT_S)
    try:
        # A session each time: a kept connection would go on asking a process that has been replaced.
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(url, allow_redirects=False, ssl=await verifying(url, HTTP_TIMEOUT_S)) as response,
        ):
            return "" if response.status < 400 else f"{shown} answers {response.status}"
    except TimeoutError:
        return f"{shown} does not answer in {HTTP_TIMEOUT_S:g} s"
    except (aiohttp.ClientError, OSError) as error:
        refused = isinstance(error, aiohttp.ClientConnectorError)
        # What aiohttp says may name the address again.
        return f"{shown} refuses connections: it is loading" if refused else f"{shown}: {masking.text(str(error))}"


async def _command(command: list[str], app: AppSettings, environment: Mapping[str, str], user: User | None) -> str:
    directory = str(app.directory)
    try:
        outcome = await tool.run(
            command, timeout_s=COMMAND_TIMEOUT_S, environment=environment, directory=directory, user=user
        )
    except MountdError as error:
        return error.text
    if outcome.not_started is not None:
        return f"the readiness command cannot be run: {outcome.not_started}"
    if outcome.code == 0:
        return ""
    last = outcome.output.splitlines()[-1:] or [""]
    return f"the readiness command ended with {outcome.code}: {last[0][:200]}"
