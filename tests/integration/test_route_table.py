"""Every route and everybody who may ask: the table in docs/security.md is what real sockets answer."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import pwd
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path

import pytest

from mountd.api.roles import Route, RouteAccess
from mountd.api.server import NOBODY
from mountd.settings.schema import ControlSettings
from tests.support.admitted import EVERYWHERE, HERE, OPERATOR, READER, Admitting, admitting
from tests.support.shelf import until

pytestmark = pytest.mark.root

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
STRANGERS_GID = 54321
LIMIT_S = 60.0
# The interpreter may be out of that user's reach, so it is already running when it changes users.
AS_ANOTHER = """
import http.client, json, os, socket, sys
path, uid, gid, routes = json.load(sys.stdin)
os.setgroups([]); os.setresgid(gid, gid, gid); os.setresuid(uid, uid, uid)
answers = []
for method, route in routes:
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(path)
        connection.request(method, route, "[" if method == "POST" else None, {"Origin": "http://localhost"})
        answers.append(connection.getresponse().status)
    except PermissionError:
        answers.append(0)
    connection.close()
print(json.dumps(answers))
"""
Asked = list[tuple[str, str]]


@pytest.fixture
async def api() -> AsyncIterator[Admitting]:
    root = Path(tempfile.mkdtemp(prefix="mountd-t-"))  # tmp_path would not fit into a Unix socket's address
    root.chmod(0o755)
    try:
        async with admitting(root) as found:
            group = grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
            await found.server.listen_unix(ControlSettings(socket=root / "s", group=group))
            await until(lambda: found.hub.status.linked, "v22 to be linked")
            yield found
    finally:
        shutil.rmtree(root)


def asked(routes: Iterable[Route]) -> Asked:
    """Every write has a body that no route takes: who may write gets 400, and nothing changes."""
    examples = {"{id}": "1", "{model}": "hub", "{name}": "app.js"}
    return [(each.method, re.sub(r"{\w+}", lambda found: examples[found[0]], each.path)) for each in routes]


async def over_tcp(api: Admitting, routes: Asked, token: str | None) -> list[int]:
    own = f"http://127.0.0.1:{api.port}"
    return [
        (await api.ask(path, token, method=method, body=b"[" if method == "POST" else None, Origin=own)).status
        for method, path in routes
    ]


async def over_socket(api: Admitting, routes: Asked, uid: int, gid: int) -> list[int]:
    """0: the kernel does not let him connect."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AS_ANOTHER, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    given = json.dumps([str(api.hub.directory / "s"), uid, gid, routes])
    out, _ = await asyncio.wait_for(child.communicate(given.encode()), LIMIT_S)
    found: list[int] = json.loads(out)
    return found


def word(status: int, access: RouteAccess) -> str:
    """As the page has it: whether it is let through, else what it is answered."""
    if access is RouteAccess.SIGNED and status == 401:
        return "signed"
    return {0: "no", 401: "401", 403: "403", 429: "429"}.get(status, "yes")


def rows(routes: Iterable[Route], answers: Mapping[str, list[int]]) -> list[str]:
    found = []
    for at, route in enumerate(routes):
        said = (word(each[at], route.access) for each in answers.values())
        cells = [f"`{route.method} {route.path}`", route.access.value, *said]
        found.append(f"| {' | '.join(cells)} |")
    return found


async def test_the_table_of_the_page_is_what_is_answered(api: Admitting) -> None:
    routes = api.server._routes.table()
    ways, nobody = asked(routes), pwd.getpwnam("nobody")
    answers: dict[str, list[int]] = {}
    await api.listen(listen=HERE)
    answers["nobody, loopback"] = await over_tcp(api, ways, None)
    on_loopback = {token: await over_tcp(api, ways, token) for token in (READER, OPERATOR)}
    await api.listen(listen=EVERYWHERE)
    answers["nobody, elsewhere"] = await over_tcp(api, ways, None)
    for name, token in (("reader", READER), ("operator", OPERATOR)):
        answers[name] = await over_tcp(api, ways, token)
        assert answers[name] == on_loopback[token]
    await api.listen(listen=HERE, behind_proxy=True)
    assert await over_tcp(api, ways, None) == answers["nobody, elsewhere"]
    mine = os.geteuid(), os.getegid()
    answers["control socket"] = await over_socket(api, ways, *mine)
    assert await over_socket(api, ways, nobody.pw_uid, nobody.pw_gid) == answers["control socket"]
    answers["other users"] = await over_socket(api, ways, nobody.pw_uid, STRANGERS_GID)

    written = re.findall(r"^\| `(?:GET|POST) /.*$", PAGE.read_text(), re.MULTILINE)
    assert written == rows(routes, answers)
    assert not any(500 <= each != 503 for statuses in answers.values() for each in statuses)
    assert api.hub.model.committed.suspended is None


@pytest.mark.parametrize("listen", [HERE, EVERYWHERE])
async def test_without_tokens_nobody_writes_over_tcp(api: Admitting, listen: str) -> None:
    routes = api.server._routes.table()
    await api.listen(NOBODY, listen=listen)
    for route, status in zip(routes, await over_tcp(api, asked(routes), None), strict=True):
        if route.access is RouteAccess.SIGNED:
            assert status == 401
            continue
        is_open = route.access is RouteAccess.OPEN or (route.access is RouteAccess.READ and listen == HERE)
        assert (word(status, route.access) == "yes") is is_open, route
        assert is_open or status == 403, route
