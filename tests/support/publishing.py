"""`mountd publish` as a process, the rclone it runs as a test scripts it, and what the store then holds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from mountd.demo import hub
from mountd.errors import NotFound
from mountd.model import manifest
from mountd.model.content import Content
from mountd.model.layout import Layout
from mountd.model.look import inspect
from mountd.rclone.keys import BucketEntry
from tests.support import dies_with_us
from tests.support.daemon import BUNDLED_RCLONE, Daemon, Result
from tests.support.memory_disk import MemoryDisk
from tests.support.s3 import RcloneS3, S3Server

LAYOUT = Layout("cache_hub_{version}")
REQUIRED = ("models/gpt.pth",)
GPT = "models/gpt.pth"
TOP = Path(__file__).parents[2]


class BucketDisk(MemoryDisk):
    """The bucket as the daemon asks it: what `inspect` needs of a mount, without one."""

    root = "/"

    def __init__(self, store: S3Server) -> None:
        super().__init__()
        self._s3 = store.client

    async def list_bucket(self, directory: str, *, recursive: bool = False) -> list[BucketEntry]:
        found: list[BucketEntry] = []
        more: dict[str, str] = {}
        while True:
            page = self._s3.list_objects_v2(Bucket=hub.BUCKET, Prefix=f"{directory}/", **more)
            for each in page.get("Contents", ()):
                found.append(BucketEntry(each["Key"], each["Key"].rpartition("/")[2], each["Size"], False))
            if not page["IsTruncated"]:
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def object(self, path: str) -> bytes | None:
        with contextlib.suppress(self._s3.exceptions.NoSuchKey):
            data: bytes = self._s3.get_object(Bucket=hub.BUCKET, Key=path)["Body"].read()
            return data
        return None


def look(store: S3Server, version: str) -> Content | None:
    """What the daemon would say of the version; None when there is nothing."""
    try:
        return asyncio.run(inspect(BucketDisk(store), LAYOUT, version, REQUIRED))
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
        """From the next run on; the count starts at zero."""
        for name, text in (("before", before), ("after", after), ("count", "0"), ("calls", "")):
            (self._place / name).write_text(text)

    @property
    def calls(self) -> list[str]:
        return (self._place / "calls").read_text().splitlines()


def scripted(machine: Daemon) -> Scripted:
    script = Scripted(machine.root / "scripted", BUNDLED_RCLONE)
    machine.config["rclone"]["binary"] = str(script.path)
    machine.write_config()
    return script


def removal_of_marks(store: RcloneS3, version: str) -> str:
    """Shell words that do what a take-over does, and as it does: what is removed behind the server is listed on."""
    given = (store.endpoint, store.access_key_id, store.secret_access_key)
    code = (
        f"from tests.support.s3 import client; s3 = client(*{given!r}); bucket = {hub.BUCKET!r};"
        f" found = s3.list_objects_v2(Bucket=bucket, Prefix='cache_hub_{version}/{manifest.MARKER}');"
        " [s3.delete_object(Bucket=bucket, Key=each['Key']) for each in found['Contents']]"
    )
    return f"PYTHONPATH={shlex.quote(str(TOP))} " + shlex.join([sys.executable, "-c", code])


def check_published(store: RcloneS3, version: str, source: Path) -> None:
    """Byte-identical, manifest true, no mark, visible."""
    assert tree(at(store, version)) == tree(source)
    content = look(store, version)
    assert content is not None
    assert (content.complete, content.verified, content.problems) == (True, True, ()), content
    parsed = manifest.parse((at(store, version) / manifest.NAME).read_bytes())
    assert parsed.files == {path: len(data) for path, data in tree(source).items()}


def leftovers(machine: Daemon) -> list[str]:
    place = machine.root / "state" / "publish"
    return os.listdir(place) if place.exists() else []


def new_version(root: Path, hub_directory: Path) -> Path:
    """A version that the bucket does not hold, with names and links of all kinds."""
    shutil.copytree(hub_directory / hub.BUCKET / "cache_hub_v23", root)
    (root / "声音 模型#2.txt").write_text("你好")
    (root / "empty").touch()
    (root / "link.pth").symlink_to(GPT)
    (root / "linked").symlink_to("tokenizer")
    return root
