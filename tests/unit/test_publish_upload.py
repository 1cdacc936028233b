"""How publishing asks rclone, a script here: which words it gets, what its answers mean, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import MountdError, RemoteError
from mountd.publish import upload
from mountd.publish.plan import Bucket, Stored
from mountd.publish.upload import Access, Store
from tests.support.wait import until_async

SECRET = "mountd-test-secret-0001"
DENIED = '{"level":"error","msg":"AccessDenied: Access Denied","object":"a"}'
AT = "s:b/h/v1/"
SOON_S = 60.0


class Scripted:
    """An rclone that notes its words, environment and directory, and then runs the shell words of `behave`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "rclone"
        self.scratch = root / "scratch"
        self.scratch.mkdir()
        self.lock, self._other = os.pipe()
        self.heard: list[Mapping[str, Any]] = []
        self.path.write_text(
            f"#!/bin/sh\nhere='{root}'\nprintf '%s\\n' \"$*\" >>$here/calls\nenv >$here/environment\n"
            "pwd >$here/directory\n. $here/behaviour\n"
        )
        self.path.chmod(0o755)
        self.behave(":")
        argv = ("rclone", "mount", "s:b", "/mnt", "--ca-cert=/ca.pem", "--s3-no-check-bucket", "--vfs-cache-mode=full")
        environment = {"PATH": os.environ["PATH"], "AWS_X": "1", "RCLONE_RC_PASS": SECRET}
        access = Access(self.path, Path("/x/rclone.conf"), argv, environment, (SECRET,))
        self.store = Store(access, "s:b", "h/v1", scratch=self.scratch, lock=self.lock)

    def behave(self, words: str) -> None:
        (self.root / "behaviour").write_text(f"{words}\n")

    def says(self, *lines: str, code: int) -> None:
        """On stderr, and exits with `code`."""
        (self.root / "lines").write_text("".join(f"{line}\n" for line in lines))
        self.behave(f"cat $here/lines >&2; exit {code}")

    @property
    def calls(self) -> list[str]:
        """Without the words that all have."""
        found = (self.root / "calls").read_text().splitlines() if (self.root / "calls").exists() else []
        return [call.rpartition("--s3-no-check-bucket ")[2] for call in found]

    def read(self, name: str) -> str:
        return (self.root / name).read_text()

    def close(self) -> None:
        for descriptor in (self.lock, self._other):
            os.close(descriptor)


@pytest.fixture
def rclone(tmp_path: Path) -> Iterator[Scripted]:
    made = Scripted(tmp_path)
    yield made
    made.close()


# -- what it is given -------------------------------------------------------------------------------------------------


def test_each_call_goes_to_the_bucket_as_the_mount_does_and_holds_no_secret(rclone: Scripted) -> None:
    asyncio.run(rclone.store.read("x"))
    (call,) = rclone.read("calls").splitlines()
    words = call.split()
    assert words[0] == "--config=/x/rclone.conf"
    assert {"--ca-cert=/ca.pem", "--s3-no-check-bucket", "--use-json-log", "--retries=3"} <= set(words)
    assert {"--stats=1s", "--ask-password=false"} <= set(words), "so that it is never silent for long"
    assert not {"--vfs-cache-mode=full", "mount", "/mnt"} & set(words)
    assert "AWS_X=1" in rclone.read("environment")
    assert "RCLONE_" not in rclone.read("environment")
    assert SECRET not in call + rclone.read("environment")
    assert rclone.read("directory") == "/\n"


def test_it_keeps_the_lock_and_stops_with_its_publisher(rclone: Scripted) -> None:
    """A publisher that is killed must not leave an rclone that goes on, nor let another begin beside one."""
    ask = "import ctypes; found = ctypes.c_int(); ctypes.CDLL(None).prctl(2, ctypes.byref(found)); print(found.value)"
    lock = f"/proc/self/fd/{rclone.lock}"
    rclone.behave(f"test \"$(readlink {lock})\" = '{os.readlink(lock)}' && exec {sys.executable} -I -S -c '{ask}'")
    assert asyncio.run(rclone.store.read("x")) == f"{signal.SIGTERM.value}\n".encode()


def test_reading_writing_and_deleting(rclone: Scripted) -> None:
    rclone.behave(
        'case "$*" in\n*" cat "*) printf data ;;\n*" copyto "*) cp $here/scratch/object $here/sent ;;\n'
        '*" delete "*) cp $here/scratch/names $here/gone ;;\nesac'
    )
    store = rclone.store
    assert asyncio.run(store.read("MANIFEST.json")) == b"data"
    asyncio.run(store.write("m", b"\x00\xff"))
    asyncio.run(store.remove(["声 #1", "a"]))
    asyncio.run(store.remove([]))
    assert rclone.calls == [
        "cat s:b/h/v1/MANIFEST.json",
        f"copyto --ignore-times {rclone.scratch}/object s:b/h/v1/m",
        f"delete --files-from-raw={rclone.scratch}/names {AT}",
    ], "nothing is deleted where nothing is named"
    assert (rclone.root / "sent").read_bytes() == b"\x00\xff"
    assert rclone.read("gone") == "声 #1\na\n"


def test_sending(rclone: Scripted) -> None:
    rclone.says('{"level":"info","msg":"Copied (new)","object":"a"}', "no JSON", "[1]", code=0)
    asyncio.run(rclone.store.send("/root", ["a", "b"], 3, rclone.heard.append))
    (call,) = rclone.calls
    assert call.endswith(f" /root {AT}")
    flags = {"copy", "--ignore-times", "--no-traverse", "--copy-links", "--transfers=3"}
    assert {*flags, f"--files-from-raw={rclone.scratch}/names"} == set(call.split()[:-2])
    assert [record["object"] for record in rclone.heard] == ["a"]
    assert (rclone.scratch / "names").read_text() == "a\nb\n"


def test_reading_back(rclone: Scripted) -> None:
    rclone.behave(f"printf '%s  %s\\n' {'0' * 64} a {'1' * 64} 'b  c'; echo '{{\"msg\":\"x\",\"stats\":{{}}}}' >&2")
    assert asyncio.run(rclone.store.sha256(["a", "b  c"], 5, rclone.heard.append)) == {"a": "0" * 64, "b  c": "1" * 64}
    (call,) = rclone.calls
    assert call.startswith("hashsum sha256 ")
    assert {"--download", "--checkers=5", "--transfers=5"} <= set(call.split()), "the store's own hashes prove nothing"
    assert [record["msg"] for record in rclone.heard] == ["x"]


def test_looking(rclone: Scripted) -> None:
    rclone.behave("""echo '[{"Path":"a","Size":3,"Hashes":{"md5":"m"}}]'""")
    assert asyncio.run(rclone.store.look()) == Bucket({"a": Stored(3, "m")}, False, frozenset())
    (call,) = rclone.calls
    assert call.startswith("lsjson ")
    assert {"--recursive", "--files-only", "--hash", "--hash-type=md5", AT} <= set(call.split())


# -- what its answers mean --------------------------------------------------------------------------------------------


def test_a_directory_that_is_not_there_is_empty_and_a_bucket_that_is_not_there_is_a_mistake(rclone: Scripted) -> None:
    missing = 'echo \'{"level":"error","msg":"directory not found"}\' >&2; exit 3'
    rclone.behave(f'case "$*" in *" lsjson "*) {missing} ;; esac; echo x')
    assert asyncio.run(rclone.store.look()).empty
    assert rclone.calls[1] == "lsf --max-depth=1 s:b"
    rclone.behave(missing)
    with pytest.raises(RemoteError) as refused:
        asyncio.run(rclone.store.look())
    assert "s:b/h/v1" in refused.value.text


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda store: store.look(), "s:b/h/v1"),
        (lambda store: store.read("x"), "s:b/h/v1/x"),
        (lambda store: store.write("x", b""), "s:b/h/v1/x"),
        (lambda store: store.remove(["y", "x"]), "s:b/h/v1/x"),
        (lambda store: store.send("/root", ["x"], 1, lambda _: None), "s:b/h/v1"),
        (lambda store: store.sha256(["x"], 1, lambda _: None), "s:b/h/v1"),
    ],
    ids=["look", "read", "write", "remove", "send", "sha256"],
)
def test_what_fails_is_said_by_its_code_without_secrets(
    rclone: Scripted, call: Callable[[Store], Coroutine[Any, Any, object]], where: str
) -> None:
    rclone.says(DENIED.replace("Access Denied", f"no {SECRET}"), '{"level":"info","msg":"later"}', code=1)
    with pytest.raises(RemoteError) as failed:
        asyncio.run(call(rclone.store))
    assert (failed.value.code, bool(failed.value.hint)) == ("access-denied", True)
    assert f"{where}: " in failed.value.text
    assert SECRET not in failed.value.text + failed.value.hint


def test_a_failure_before_there_is_a_log_is_understood_as_well(rclone: Scripted) -> None:
    rclone.says("2026/01/01 00:00:00 CRITICAL: Failed to create file system: AccessDenied: x", code=1)
    with pytest.raises(RemoteError) as failed:
        asyncio.run(rclone.store.look())
    assert failed.value.code == "access-denied"


def test_a_file_that_changes_while_it_is_sent_is_no_failure_of_the_bucket(rclone: Scripted) -> None:
    text = "Failed to copy: can't copy - source file is being updated (size changed from 1 to 2)"
    for code in (1, 0):
        rclone.says(f'{{"level":"error","msg":"{text}","object":"a"}}', code=code)
        with pytest.raises(MountdError, match=r"/root: .* a: ") as failed:
            asyncio.run(rclone.store.send("/root", ["a"], 1, rclone.heard.append))
        assert not isinstance(failed.value, RemoteError)


def test_an_answer_is_bounded(rclone: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MAX_ANSWER_BYTES", 4)
    rclone.behave("printf 1234")
    assert asyncio.run(rclone.store.read("x")) == b"1234"
    rclone.behave("printf 12345")
    with pytest.raises(RemoteError):
        asyncio.run(rclone.store.read("x"))


def test_a_line_of_any_length_stops_nothing(rclone: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MAX_LINE_BYTES", 1000)
    rclone.says("x" * 50_000, DENIED, code=1)
    with pytest.raises(RemoteError) as failed:
        asyncio.run(rclone.store.look())
    assert failed.value.code == "access-denied"


def test_an_rclone_that_is_not_there(rclone: Scripted) -> None:
    rclone.path.unlink()
    with pytest.raises(RemoteError, match=f"{rclone.path}: no such file"):
        asyncio.run(rclone.store.look())


# -- how it ends ------------------------------------------------------------------------------------------------------


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_rclone_that_is_silent_has_hung(rclone: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = rclone.root / "pid"
    rclone.behave("echo $$ >$here/pid; exec sleep 600")

    async def look() -> None:
        looking = asyncio.create_task(rclone.store.look())
        await until_async(lambda: pid.exists() and pid.read_text(), SOON_S, "rclone to run")
        monkeypatch.setattr(upload, "SILENT_S", 0)
        await looking

    with pytest.raises(RemoteError) as failed:
        asyncio.run(look())
    assert failed.value.code == "rclone-error"
    assert not runs(int(rclone.read("pid")))


@pytest.mark.parametrize("deaf", [False, True])
def test_one_that_is_interrupted_stops_it_gracefully_and_then_for_certain(
    rclone: Scripted, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    monkeypatch.setattr(upload, "STOP_S", 0.2 if deaf else SOON_S)
    trap = "" if deaf else "echo >$here/withdrawn; exit 1"
    rclone.behave(f"trap '{trap}' TERM; echo $$ >$here/pid; echo '{{\"msg\":\"x\"}}' >&2; while :; do sleep 0.05; done")

    async def interrupt() -> None:
        sending = asyncio.create_task(rclone.store.send("/root", ["a"], 1, rclone.heard.append))
        began = time.monotonic()
        while not rclone.heard:
            assert time.monotonic() - began < SOON_S
            await asyncio.sleep(0.01)
        sending.cancel()
        await asyncio.wait({sending}, timeout=SOON_S)
        assert sending.cancelled()

    asyncio.run(interrupt())
    assert not runs(int(rclone.read("pid")))
    assert (rclone.root / "withdrawn").exists() is not deaf
