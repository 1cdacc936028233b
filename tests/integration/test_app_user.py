"""An app that runs as another user: who that is may take long to find out, and what it leaves may be hard to see."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import pytest

from mountd.app import user as app_user
from mountd.app.app import App
from mountd.daemon.secret_files import SecretFiles
from mountd.errors import CannotStart, Unavailable
from mountd.process import tool
from mountd.process import user as user_script
from mountd.process.instance import Instance
from mountd.settings.load import Places, parse
from mountd.status.board import Board
from mountd.status.snapshot import Snapshot
from tests.support.daemon import Daemon
from tests.support.wait import until, until_async

SOON_S = 30.0
PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))
TEXT = """
remotes: {s: {type: s3, endpoint: "http://x"}}
mounts: {m: {remote: "s:b", path: /m}}
apps: {webui: {command: [sleep, "60"], user: nobody, restart: {backoff: {initial: 50ms}}}}
"""


async def test_a_user_as_the_machine_knows_it() -> None:
    entry = pwd.getpwnam("nobody")
    user = await tool.find_user("nobody", timeout_s=SOON_S)
    assert user is not None
    assert (user.name, user.uid, user.gid, user.home) == ("nobody", entry.pw_uid, entry.pw_gid, entry.pw_dir)
    assert user.groups == tuple(os.getgrouplist("nobody", entry.pw_gid))
    assert await tool.find_user("mountd-t-nobody", timeout_s=SOON_S) is None
    with pytest.raises(Unavailable, match="user nobody"):
        await tool.find_user("nobody", timeout_s=0.0)


FINDS = """
import asyncio
from mountd.process import tool
found = asyncio.run(tool.find_user("nobody", timeout_s=60.0))
print(found and (found.name, len(found.groups), len(set(found.groups))))
"""


@pytest.mark.root
def test_a_user_in_many_groups_where_the_linker_complains(tmp_path: Path) -> None:
    """In a mount namespace whose /etc says so; `ld.so.preload` makes each program write a line to stderr."""
    lines = (f"g{number}:x:{1_000_000 + number}:nobody\n" for number in range(5000))
    (tmp_path / "group").write_text("".join(lines))
    (tmp_path / "ld.so.preload").write_text("/no/such/library.so\n")
    for name in ("passwd", "nsswitch.conf", "ld.so.cache"):
        shutil.copy(f"/etc/{name}", tmp_path)
    script = 'mount --bind "$1" /etc && exec "$2" -c "$3"'
    words = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable, FINDS]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert "ld.so" in done.stderr
    assert done.stdout == "('nobody', 5001, 5001)\n"


async def test_an_answer_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "user.py"
    said = "said by a module of the name service"
    script.write_text(f"print('=', '{{', '{said}', sep=chr(10))")
    monkeypatch.setattr(user_script, "__file__", str(script))
    with pytest.raises(Unavailable, match=said):
        await tool.find_user("nobody", timeout_s=SOON_S)


@pytest.mark.root
async def test_a_slow_directory_service_holds_up_the_app_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(Snapshot())
    settings = parse(TEXT, "test.yaml", PLACES).settings
    app = App(
        "webui",
        settings,
        instance=Instance.create(tmp_path / "state", tmp_path / "run"),
        board=board,
        read_secrets=SecretFiles(list).read,
    )
    monkeypatch.setattr(app_user, "USER_LIMIT_S", 0.0)  # over before any service answers, however late this process is
    running = asyncio.create_task(app.run())
    try:
        app.want()
        await board.wait_until(lambda now: now.apps["webui"].reason is not None, SOON_S)
        reason = board.snapshot.apps["webui"].reason
        assert reason is not None
        assert (reason.code, reason.text) == (
            "no-user",
            "cannot start webui: cannot look up user nobody: no answer in 0 s",
        )
        monkeypatch.undo()
        await board.wait_until(lambda now: now.apps["webui"].pid is not None, SOON_S)
        pid = board.snapshot.apps["webui"].pid
        nobody = pwd.getpwnam("nobody").pw_uid
        await until_async(lambda: os.stat(f"/proc/{pid}").st_uid == nobody, SOON_S, "it to be its user")
        await app.stop()
    finally:
        running.cancel()
        await asyncio.wait([running])
        await tool.end_orphans(app._instance.id)
    assert running.cancelled()


async def test_whom_an_app_can_run_as(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await app_user.resolve_user("webui", None) is None
    mine = pwd.getpwuid(os.geteuid()).pw_name
    assert await app_user.resolve_user("webui", mine) is None, "that is mountd's own user"
    with pytest.raises(CannotStart) as missing:
        await app_user.resolve_user("webui", "mountd-t-nobody")
    assert (missing.value.code, "mountd-t-nobody" in missing.value.hint) == ("no-user", True)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    with pytest.raises(CannotStart) as refused:
        await app_user.resolve_user("webui", "nobody")
    assert ("root" in refused.value.text, "`user:`" in refused.value.hint) == (True, True)


def proc(pid: int, name: str) -> str:
    """Of a process that may have ended meanwhile."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    return ""


@pytest.mark.thorough
@pytest.mark.root
def test_what_came_loose_ends_with_its_own_app_alone(make_daemon: Callable[..., Daemon]) -> None:
    """As root in a container, which cannot read the marks of what other users run: it is known by its user, while no
    other app of that user is up. (A kernel of today lets CAP_SYS_ADMIN read them, too; without it nothing is mounted.)
    """
    dropped = "-sys_ptrace,-perfmon,-sys_admin"
    daemon = make_daemon(wrap=("setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"))
    detaches = ["sh", "-c", "setsid -f sleep 300; exec sleep 300"]
    users = {"asr": "nobody", "tts": "nobody", "alone": "games"}
    daemon.config["apps"] = {name: {"command": detaches, "user": user} for name, user in users.items()}

    def loose(name: str, but: Collection[int] = ()) -> set[int]:
        app = daemon.status()["apps"][name]["pid"]
        others = [pid for pid in daemon.processes() if app is not None and pid != app and pid not in but]
        return {
            pid for pid in others if f"MOUNTD_NAME={name}\0" in proc(pid, "environ") and "sleep" in proc(pid, "comm")
        }

    daemon.start()
    until(daemon.socket.exists, 60, "the daemon to be up")
    before = {name: until(partial(loose, name), 60, f"what {name} detaches") for name in users}
    for name in ("asr", "alone"):
        assert daemon.cli("restart", name).code == 0
        until(partial(loose, name, but=before[name]), 60, f"{name} to be up again")
    left = set(daemon.processes())
    assert not before["alone"] & left, "what it had left itself"
    assert before["tts"] <= left, "another app's"
    daemon.stop()
    assert daemon.processes() == []
