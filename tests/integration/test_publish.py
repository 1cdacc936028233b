"""`mountd publish` against a real store: killed at any point, raced, refused; what is seen meanwhile and at the end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from mountd.demo import hub
from mountd.errors import NotFound
from mountd.model import manifest
from mountd.model.content import Content, inspect
from mountd.model.layout import Layout
from mountd.rclone.rc import Item
from tests.support import dies_with_us
from tests.support.daemon import BUNDLED_RCLONE, Daemon, Result
from tests.support.s3 import MotoS3, RcloneS3, S3Server
from tests.support.wait import until

LAYOUT = Layout("cache_hub_{version}")
REQUIRED = ("models/gpt.pth",)
GPT = "models/gpt.pth"


class BucketDisk:
    """The bucket as the daemon asks it: what `inspect` needs of a mount, without one."""

    root = "/"

    def __init__(self, store: S3Server) -> None:
        self._s3 = store.client

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[Item]:
        found: list[Item] = []
        more: dict[str, str] = {}
        while True:
            page = self._s3.list_objects_v2(Bucket=hub.BUCKET, Prefix=f"{directory}/", **more)
            for each in page.get("Contents", ()):
                found.append(Item(each["Key"], each["Key"].rpartition("/")[2], each["Size"], False))
            if not page["IsTruncated"]:
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def refresh(self, directory: str, *, recursive: bool = False) -> None:
        """Nothing is cached here."""

    async def read(self, path: str, length: int, *, offset: int = 0) -> bytes:
        data: bytes = self._s3.get_object(Bucket=hub.BUCKET, Key=path)["Body"].read()
        return data[offset : offset + length]


def look(store: S3Server, version: str) -> Content | None:
    """What the daemon would say of the version; None when there is nothing."""
    try:
        return asyncio.run(inspect(BucketDisk(store), LAYOUT, version, REQUIRED))  # type: ignore[arg-type]
    except NotFound:
        return None


def tree(root: Path) -> dict[str, bytes]:
    """Every file below, through links, without the manifest."""
    found = {
        os.path.relpath(os.path.join(base, name), root): Path(base, name).read_bytes()
        for base, _, names in os.walk(root, followlinks=True)
        for name in names
    }
    return {path: data for path, data in found.items() if path != manifest.NAME}


def at(store: RcloneS3, version: str) -> Path:
    return store.directory / hub.BUCKET / f"cache_hub_{version}"


def command(machine: Daemon, directory: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "mountd", "publish", str(directory), *words, "-c", str(machine.config_file)]


def publish(machine: Daemon, directory: Path, *words: str) -> Result:
    done = subprocess.run(command(machine, directory, *words), capture_output=True, text=True, timeout=90, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert machine.secret_access_key not in done.stdout + done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


def start(machine: Daemon, directory: Path, *words: str) -> subprocess.Popen[str]:
    """In a process group of its own, as a shell starts a job."""
    return subprocess.Popen(
        dies_with_us(command(machine, directory, *words)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


class Scripted:
    """A real rclone that runs the shell words of `before` and `after` around each call of publish; `$n` counts them."""

    def __init__(self, directory: Path, rclone: Path) -> None:
        directory.mkdir()
        self.path, self._place = directory / "rclone", directory
        self.path.write_text(
            f'#!/bin/sh\ncase " $* " in *" --use-json-log "*) ;; *) exec \'{rclone}\' "$@" ;; esac\n'
            f"cd '{directory}'\nn=$(($(cat count) + 1))\necho $n >count\necho \"$*\" >>calls\n"
            f". ./before\n'{rclone}' \"$@\"\ncode=$?\n. ./after\nexit $code\n"
        )
        self.path.chmod(0o755)
        self.behave()

    def behave(self, *, before: str = "", after: str = "") -> None:
        """From the next run on; the count begins anew."""
        for name, text in (("before", before), ("after", after), ("count", "0"), ("calls", "")):
            (self._place / name).write_text(text)

    @property
    def calls(self) -> list[str]:
        return (self._place / "calls").read_text().splitlines()


@contextmanager
def watched(store: RcloneS3, version: str, source: Path) -> Iterator[list[str]]:
    """All the time the version is either not complete for the daemon, or byte by byte the whole of `source`."""
    wanted = tree(source)
    wrong: list[str] = []
    end = threading.Event()

    def watch() -> None:
        while True:
            last = end.is_set()
            content = look(store, version)
            if content is not None and content.complete and tree(at(store, version)) != wanted:
                wrong.append(f"complete too early: {sorted(content.files)}")
                return
            if last:
                return
            end.wait(0.02)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield wrong
    finally:
        end.set()
        watching.join()
    assert wrong == []


def check_published(store: RcloneS3, version: str, source: Path) -> None:
    """Byte-identical, manifest true, no mark, visible."""
    assert tree(at(store, version)) == tree(source)
    content = look(store, version)
    assert content is not None
    assert (content.complete, content.verified, content.problems) == (True, True, ())
    parsed = manifest.parse((at(store, version) / manifest.NAME).read_bytes())
    assert parsed.files == {path: len(data) for path, data in tree(source).items()}


def leftovers(machine: Daemon) -> list[str]:
    place = machine.root / "state" / "publish"
    return os.listdir(place) if place.exists() else []


@pytest.fixture
def source(tmp_path: Path, hub_directory: Path) -> Path:
    """A version that the bucket does not hold, with names and links of all kinds."""
    root = tmp_path / "v24"
    shutil.copytree(hub_directory / hub.BUCKET / "cache_hub_v23", root)
    (root / "声音 模型#2.txt").write_text("你好")
    (root / "empty").touch()
    (root / "link.pth").symlink_to(GPT)
    (root / "linked").symlink_to("tokenizer")
    return root


@pytest.fixture
def machine(make_daemon: Callable[..., Daemon]) -> Daemon:
    """A configuration, state and rclone of their own; no daemon runs."""
    daemon = make_daemon()
    daemon.write_config()
    return daemon


def scripted(machine: Daemon, rclone: Path = BUNDLED_RCLONE) -> Scripted:
    script = Scripted(machine.root / "scripted", rclone)
    machine.config["rclone"]["binary"] = str(script.path)
    machine.write_config()
    return script


def test_publish_again_and_never_otherwise(
    make_daemon: Callable[..., Daemon], store: RcloneS3, source: Path, each_rclone: Path
) -> None:
    machine = make_daemon(rclone=each_rclone)
    machine.write_config()
    dry = publish(machine, source, "v24", "--dry-run", "-o", "json")
    assert (dry.code, dry.json["result"], dry.json["digest"]) == (0, "would-publish", ""), dry
    assert not at(store, "v24").exists()

    done = publish(machine, source, "v24", "-o", "json", "--download-check")
    assert done.code == 0, done
    check_published(store, "v24", source)
    document = done.json
    files = tree(source)
    size = sum(map(len, files.values()))
    assert (document["result"], document["checked"]) == ("published", "download")
    assert (document["files"], document["bytes"]) == (len(files), size)
    assert document["sent"] == {"files": len(files), "bytes": size}
    assert document["left_out"] == [manifest.NAME]
    whole = (at(store, "v24") / manifest.NAME).read_bytes()
    assert document["digest"] == manifest.digest(whole)
    assert leftovers(machine) == []

    again = publish(machine, source, "v24")
    assert (again.code, "published already" in again.out) == (0, True), again
    assert (at(store, "v24") / manifest.NAME).read_bytes() == whole
    (source / "empty").write_text("not any more")
    other = publish(machine, source, "v24", "--take-over")
    assert (other.code, "empty differs" in other.err) == (7, True), other
    (source / "empty").write_text("")
    check_published(store, "v24", source)

    # One object is lost: what the manifest promises is sent again, and the version is the same.
    (at(store, "v24") / GPT).unlink()
    mended = publish(machine, source, "v24", "-o", "json")
    assert (mended.code, mended.json["sent"]["files"]) == (0, 1), mended
    assert (at(store, "v24") / manifest.NAME).read_bytes() == whole
    check_published(store, "v24", source)
    assert leftovers(machine) == []


def test_refusals(machine: Daemon, store: RcloneS3, source: Path, tmp_path: Path) -> None:
    before = tree(store.directory)
    (tmp_path / "no").mkdir()
    for words, code, why in (
        ((str(source), "latest"), 2, "tomorrow"),
        ((str(source), "../v1"), 2, "a version is"),
        ((str(source), "v24", "--model", "other"), 3, "cannot find model other"),
        ((str(tmp_path / "none"), "v24"), 3, "no such directory"),
        ((str(tmp_path / "no"), "v24"), 7, "no files"),
    ):
        done = publish(machine, Path(words[0]), *words[1:])
        assert (done.code, why in done.err) == (code, True), done
    # A version that was uploaded by hand may be in use: it gets no mark.
    (at(store, "v23") / manifest.NAME).unlink()
    done = publish(machine, source, "v23")
    assert (done.code, "did not send" in done.err) == (7, True), done
    (at(store, "v23") / "more").write_text("somebody's")
    done = publish(machine, source, "v23", "--take-over")
    assert (done.code, "holds files" in done.err, "more" in done.err) == (7, True, True), done
    assert look(store, "v23").complete  # type: ignore[union-attr]
    (at(store, "v23") / "more").unlink()
    assert publish(machine, source, "v23", "--take-over").code == 0
    check_published(store, "v23", source)

    machine.config["mounts"]["storage"]["remote"] = "store:no-such-bucket"
    machine.write_config()
    done = publish(machine, source, "v24")
    assert (done.code, "bucket" in done.err) == (1, True), done
    machine.config["mounts"]["storage"]["remote"] = f"store:{hub.BUCKET}"
    machine.secret.write_text("of somebody else")
    machine.write_config()
    done = publish(machine, source, "v24")
    assert (done.code, "refused the credentials" in done.err) == (1, True), done
    after = tree(store.directory)
    assert {path for path in after if "v24" in path} == set()
    assert {path for path in before if "v22" in path} == {path for path in after if "v22" in path}


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("when", [pytest.param("before", marks=pytest.mark.long), "after"])
def test_killed_at_every_call(machine: Daemon, store: RcloneS3, source: Path, when: str) -> None:
    """The group is killed around the first call of rclone, then the second …, until a run gets to its end."""
    rclone = scripted(machine)
    with watched(store, "v24", source) as wrong:
        calls: Sequence[str] = ()
        for point in range(1, 30):
            rclone.behave(**{when: f"[ $n -lt {point} ] || kill -9 0"})
            running = start(machine, source, "v24")
            _, said = running.communicate(timeout=60)
            calls = rclone.calls
            assert wrong == []
            if running.returncode == 0:
                break
            assert running.returncode == -9, said
        else:
            pytest.fail(f"never ended: {calls}")
        assert point > 5
    check_published(store, "v24", source)
    assert leftovers(machine) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_random_moments(make_daemon: Callable[..., Daemon], store: RcloneS3, source: Path) -> None:
    """Slow enough that many of the moments lie within the sending."""
    chance = random.Random(4)
    machine = make_daemon()
    rclone = scripted(machine)
    rclone.behave(before='case "$*" in *" copy "*) export RCLONE_BWLIMIT=1M ;; esac')
    killed = 0
    for version in ("v24", "v25"):
        with watched(store, version, source) as wrong:
            for _ in range(6):
                running = start(machine, source, version)
                try:
                    running.communicate(timeout=chance.uniform(0.5, 3.5))
                except subprocess.TimeoutExpired:
                    os.killpg(running.pid, signal.SIGKILL)
                    running.communicate()
                    killed += 1
                assert wrong == []
            done = publish(machine, source, version)
            assert done.code == 0, done
        check_published(store, version, source)
    assert killed > 2


@pytest.mark.slow
def test_two_at_once(make_daemon: Callable[..., Daemon], store: RcloneS3, source: Path, tmp_path: Path) -> None:
    """On two machines, with other content: at most one wins, and then all of it is his."""
    other = tmp_path / "other"
    shutil.copytree(source, other, symlinks=True)
    (other / "config.yaml").write_bytes((source / "config.yaml").read_bytes()[::-1])  # the same size
    (other / "only-here").write_text("x")
    machines = [(make_daemon(), source), (make_daemon(), other)]
    for machine, _ in machines:
        machine.write_config()
    for version in ("v30", "v31"):
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda each, version=version: publish(*each, version), machines))  # type: ignore[misc]
        codes = [result.code for result in results]
        assert codes.count(0) <= 1, results
        assert set(codes) <= {0, 6, 7}, results
        if 0 in codes:
            check_published(store, version, machines[codes.index(0)][1])
        else:
            assert look(store, version) is None
            assert publish(*machines[0], version).code == 0
            check_published(store, version, source)


def test_an_interrupted_one_is_taken_over(
    make_daemon: Callable[..., Daemon], store: RcloneS3, source: Path, tmp_path: Path
) -> None:
    first, second = make_daemon(), make_daemon()
    second.write_config()
    rclone = scripted(first)
    rclone.behave(after='case "$*" in *" copy "*) kill -9 0 ;; esac')
    start(first, source, "v24").communicate(timeout=60)
    # What it left holds secrets, until the next run; no command line ever did.
    place = first.root / "state" / "publish"
    (conf,) = place.glob("*/private/rclone.conf")
    assert [path.stat().st_mode & 0o777 for path in (place, conf.parent, conf)] == [0o700, 0o700, 0o600]
    assert not any(first.secret_access_key in call for call in rclone.calls)
    other = tmp_path / "other"
    shutil.copytree(source, other, symlinks=True)
    (other / "empty").unlink()
    busy = publish(second, other, "v24", "-o", "json")
    error = json.loads(busy.out)["error"]
    assert (busy.code, error["exit"], "on" in error["holder"], "--take-over" in error["hint"]) == (6, 6, True, True)
    assert [name for name in os.listdir(at(store, "v24")) if manifest.is_marker(name)]
    content = look(store, "v24")
    assert content is not None
    assert "is being published" in content.problems[0]

    taken = publish(second, other, "v24", "--take-over", "-o", "json")
    assert (taken.code, taken.json["deleted"]) == (0, ["empty"]), taken
    check_published(store, "v24", other)
    rclone.behave()
    late = publish(first, source, "v24")
    assert (late.code, "empty is new" in late.err) == (7, True), late
    check_published(store, "v24", other)
    assert leftovers(second) == leftovers(first) == []


def test_the_one_that_lost_its_mark_ends(machine: Daemon, store: RcloneS3, source: Path) -> None:
    """Taken over while it still sent: it must not write a manifest."""
    rclone = scripted(machine)
    rclone.behave(after=f"case \"$*\" in *' copy '*) rm '{at(store, 'v24')}'/.mountd-publishing-* ;; esac")
    done = publish(machine, source, "v24")
    assert (done.code, "taken it over" in done.err) == (6, True), done
    assert not (at(store, "v24") / manifest.NAME).exists()


def test_a_file_that_changes_meanwhile(machine: Daemon, store: RcloneS3, source: Path) -> None:
    rclone = scripted(machine)
    rclone.behave(before=f"case \"$*\" in *' copy '*) echo changed >'{source}/config.yaml' ;; esac")
    done = publish(machine, source, "v24")
    assert (done.code, "config.yaml" in done.err, "changed" in done.err) == (1, True, True), done
    assert not look(store, "v24").complete  # type: ignore[union-attr]
    # What was sent under the former name of the content is sent again, and what is gone here goes there.
    (source / "empty").unlink()
    rclone.behave()
    again = publish(machine, source, "v24", "-o", "json")
    assert (again.code, again.json["sent"]["files"], again.json["deleted"]) == (0, 1, ["empty"]), again
    check_published(store, "v24", source)


def test_bytes_that_the_store_got_wrong(machine: Daemon, store: RcloneS3, source: Path) -> None:
    """This store tells no hash: reading back finds it, and the next run mends it."""
    rclone = scripted(machine)
    wrong = at(store, "v24") / "config.yaml"
    rclone.behave(after=f"case \"$*\" in *' copy '*) tr a-z b-za <'{wrong}' >x; cat x >'{wrong}' ;; esac")
    done = publish(machine, source, "v24", "--download-check")
    assert (done.code, "config.yaml was read back as something else" in done.err) == (1, True), done
    assert not look(store, "v24").complete  # type: ignore[union-attr]
    rclone.behave()
    again = publish(machine, source, "v24", "--download-check", "-o", "json")
    assert (again.code, again.json["sent"]["files"]) == (0, 1), again
    check_published(store, "v24", source)


def test_hashes_of_the_store_are_believed(make_daemon: Callable[..., Daemon], source: Path, each_rclone: Path) -> None:
    """An interrupted run's object was replaced by one of the same size: the ETag tells."""
    with MotoS3() as moto:
        moto.create_bucket(hub.BUCKET)
        machine = make_daemon(endpoint=moto.endpoint, rclone=each_rclone)
        rclone = scripted(machine, each_rclone)
        rclone.behave(after='case "$*" in *" copy "*) kill -9 0 ;; esac')
        start(machine, source, "v24").communicate(timeout=60)
        key = "cache_hub_v24/config.yaml"
        moto.put(hub.BUCKET, key, (source / "config.yaml").read_bytes()[::-1])
        rclone.behave()
        done = publish(machine, source, "v24", "-o", "json")
        assert (done.code, done.json["checked"], done.json["sent"]["files"]) == (0, "hash", 1), done
        content = look(moto, "v24")
        assert content is not None
        assert content.verified
        assert (
            moto.client.get_object(Bucket=hub.BUCKET, Key=key)["Body"].read() == (source / "config.yaml").read_bytes()
        )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)], ids=str
)
def test_an_rclone_does_not_outlive_its_publisher(
    machine: Daemon, store: RcloneS3, source: Path, number: signal.Signals, code: int
) -> None:
    """It must not go on to send beside the next run."""
    rclone = scripted(machine)
    rclone.behave(before="case \"$*\" in *' copy '*) echo $$ >pid; exec sleep 60 ;; esac")
    running = start(machine, source, "v24")
    try:
        pid = machine.root / "scripted" / "pid"
        until(lambda: pid.exists() and pid.read_text().strip(), 30.0, "rclone to send")
        if number == signal.SIGTERM:
            busy = publish(machine, source, "v24")
            assert (busy.code, "another run" in busy.err) == (6, True), busy
        if number == signal.SIGINT:
            os.killpg(running.pid, number)  # as a terminal does
        else:
            running.send_signal(number)
        _, said = running.communicate(timeout=30)
        assert (running.returncode, "Traceback" in said) == (code, False), said
        assert ("run the same command again" in said) is (number != signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{pid.read_text().strip()}"), 10.0, "its rclone to end")
    finally:
        running.kill()
        running.communicate()
    content = look(store, "v24")
    assert content is not None
    assert not content.complete
    if number == signal.SIGKILL:
        rclone.behave()
        assert publish(machine, source, "v24").code == 0
        check_published(store, "v24", source)
