"""What `doctor` finds out with the keys of a mount: is the bucket addressed as the store wants it, are the keys and the
signature accepted, and may they list and read.

A refusal says which: a store looks at the address first, then at the time and the signature, then at the rights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mountd.cli.examine import Check
from mountd.cli.examine_store import endpoint_of
from mountd.errors import CommandTimeout, RemoteError, Unavailable
from mountd.i18n import M_
from mountd.process import tool
from mountd.rclone.binary import Binary
from mountd.rclone.command import MountCommand, source
from mountd.rclone.failures import classify
from mountd.settings.presets import host_of
from mountd.settings.remotes import RemoteSettings
from mountd.settings.stores import HOST_STYLE, is_path_style

DEADLINE_S = 15.0
_LOG_PREFIX = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d [A-Z]+ *: ", re.MULTILINE)
_PATIENCE = ("--contimeout=5s", "--timeout=10s", "--retries=1", "--low-level-retries=1", "--log-level=ERROR")
_OF_THE_CONNECTION = ("--ca-cert=", "--no-check-certificate", "--s3-")
VERBS = {"lsf": "list", "cat": "read", "copyto": "write", "deletefile": "delete"}
_PATTERN_SIGNS = re.compile(r"([\\*?\[\]{}])")

_KEYS = re.compile(r"SignatureDoesNotMatch|InvalidAccessKeyId|InvalidToken|ExpiredToken|InvalidSecurity")
_RIGHTS = re.compile(r"AccessDenied|AccessForbidden")
_REGION = re.compile(r"AuthorizationHeaderMalformed|the region '[^']*' is wrong")
_OTHER_CAUSE = frozenset({"clock-skew", "credentials-expired", "bucket-slow", "no-processes", "no-memory"})
"""Not of the address: another style would be answered alike."""


@dataclass(frozen=True, slots=True)
class BucketQuestion:
    """How a short rclone asks what one mount's rclone would."""

    command: MountCommand
    binary: Binary
    conf: Path

    async def run(self, *words: str) -> str:
        """What rclone prints. Raises RemoteError with what its answer means; `code` is that of `classify`."""
        connection = [flag for flag in self.command.argv if flag.startswith(_OF_THE_CONNECTION)]
        given = {name: value for name, value in self.command.environment.items() if not name.startswith("RCLONE_RC_")}
        argv = [str(self.binary.path), f"--config={self.conf}", *connection, *_PATIENCE, *words]
        try:
            outcome = await tool.run(argv, timeout_s=DEADLINE_S, environment=given)
        except CommandTimeout:
            hint = "check the network and the endpoint"
            raise RemoteError(f"{words[-1]} did not answer within {DEADLINE_S:g} s", hint=hint) from None
        except Unavailable as error:
            raise RemoteError(error.text, hint=error.hint) from None
        if outcome.code != 0:
            failure = classify(_LOG_PREFIX.sub("", outcome.output))
            verb = VERBS[words[0]]
            raise RemoteError(f"cannot {verb} {words[-1]}: {failure.text}", hint=failure.hint, code=failure.code)
        return outcome.output

    async def list(self, remote: str) -> list[str]:
        """Names at the root of `remote`, directories with a slash. Raises RemoteError."""
        return (await self.run("lsf", remote)).splitlines()


# -- the address and the signature ------------------------------------------------------------------------------------


def accepted(name: str, remote: RemoteSettings, place: str) -> list[Check]:
    """The lines for a store that has answered a listing of `place` (REMOTE:BUCKET…)."""
    if remote.type != "s3":
        return []
    return [
        Check(M_("style of {name}", name=name), "ok", style_text(remote, place)),
        Check(M_("signature of {name}", name=name), "ok", M_("the store accepts the keys and the signature")),
    ]


def style_text(remote: RemoteSettings, place: str) -> str:
    host, bucket = host_of(endpoint_of(remote)), place.partition(":")[2].strip("/").partition("/")[0]
    if is_path_style(remote.options):
        return M_("path style: {host}/{bucket}", host=host, bucket=bucket)
    return M_("host style: {bucket}.{host}", host=host, bucket=bucket)


async def refused(
    name: str, remote: RemoteSettings, place: str, ask: BucketQuestion, error: RemoteError
) -> list[Check]:
    """The lines for a listing of `place` (REMOTE:BUCKET…) that failed: what it failed for."""
    where = M_("bucket of {name}", name=name)
    if remote.type != "s3":
        return [Check(where, "fail", error.text, error.hint)]
    checks = [listing_check(where, place, error)]
    if (signature := signature_check(M_("signature of {name}", name=name), error)) is not None:
        return [*checks, signature]
    if error.code in _OTHER_CAUSE or (style := await style_check(name, remote, place, ask)) is None:
        return checks
    return [*checks, style]


async def style_check(name: str, remote: RemoteSettings, place: str, ask: BucketQuestion) -> Check | None:
    """Whether the bucket holds something in the other style, where it holds nothing in the remote's; None if not.

    A store that takes the host name for its own lists its buckets in place of the objects, and rclone finds none.
    """
    try:
        if remote.type != "s3" or not await ask.list(source(in_other_style(place, remote))):
            return None
    except RemoteError:
        return None
    where = M_("style of {name}", name=name)
    if is_path_style(remote.options):
        text = M_("the store wants the bucket in the host name, and the remote has it in the path")
        return Check(where, "fail", text, M_("write force_path_style: false, or the store's preset"))
    text = M_("the store wants the bucket in the path, and the remote has it in the host name")
    if _is_bound(remote):
        hint = M_("write force_path_style: true and provider: Other, or the store's preset")
        return Check(where, "fail", text, hint)
    return Check(where, "fail", text, M_("write force_path_style: true, or the store's preset"))


def listing_check(where: str, place: str, error: RemoteError) -> Check:
    if _RIGHTS.search(error.text):
        cause = error.text.rpartition(": ")[2]
        text = M_("the keys may not list {place}: {cause}", place=place, cause=cause)
        return Check(where, "fail", text, M_("allow them to list the bucket: s3:ListBucket"))
    return Check(where, "fail", error.text, error.hint)


def signature_check(where: str, error: RemoteError) -> Check | None:
    """What the refusal of a listing says of keys and signature; None when it says nothing."""
    if error.code == "clock-skew":
        return Check(where, "fail", M_("signed at a time that the store does not take for now"), error.hint)
    if _KEYS.search(error.text):
        return Check(where, "fail", error.text.partition(": ")[2], error.hint)
    if _REGION.search(error.text):
        text = M_("signed for another region than the bucket's")
        return Check(where, "fail", text, M_("correct region of the remote"))
    if _RIGHTS.search(error.text):
        return Check(where, "ok", M_("the store knows the keys: what it refuses is a right"))
    return None


def in_other_style(place: str, remote: RemoteSettings) -> str:
    """`REMOTE:BUCKET…` with the bucket's name at the other place of requests, as a connection string of rclone."""
    name, _, path = place.partition(":")
    if is_path_style(remote.options):
        return f"{name},force_path_style=false:{path}"
    free = ",provider=Other" if _is_bound(remote) else ""  # of others rclone knows only the host style
    return f"{name}{free},force_path_style=true:{path}"


def _is_bound(remote: RemoteSettings) -> bool:
    return remote.options.get("provider") in HOST_STYLE


# -- the right to read ------------------------------------------------------------------------------------------------


async def read(name: str, directory: str, ask: BucketQuestion, *, depth: int) -> Check | None:
    """One byte of the smallest file in `directory` (REMOTE:PATH, which can be listed), or so many levels below it; None
    when there is none."""
    where = M_("read of {name}", name=name)
    try:
        words = ("--files-only", "--recursive", f"--max-depth={depth}", "--format=sp", "--separator=;")
        listed = await ask.run("lsf", *words, source(directory))
        sizes = {path: int(size) for size, _, path in (line.partition(";") for line in listed.splitlines())}
        path = min((path for path, size in sizes.items() if size > 0), key=lambda path: (sizes[path], path), default="")
        if not path:
            return None
        # By its directory: rclone takes an object that it may not look at for a directory that is not there.
        above, _, last = path.rpartition("/")
        only = "--include=/" + _PATTERN_SIGNS.sub(r"\\\1", last)
        inside = f"{directory.rstrip('/')}/{above}" if above else directory
        await ask.run("cat", "--count=1", "--discard", "--max-depth=1", only, source(inside))
    except RemoteError as error:
        if _RIGHTS.search(error.text):
            cause = error.text.rpartition(": ")[2]
            text = M_("the keys may list {place}, but not read there: {cause}", place=directory, cause=cause)
            return Check(where, "fail", text, M_("allow them to read its objects: s3:GetObject"))
        return Check(where, "fail", error.text, error.hint)
    except ValueError:  # a name with a line end
        return None
    return Check(where, "ok", M_("a byte of {path} was read", path=path))


async def read_unlisted(name: str, place: str, files: Iterable[str], ask: BucketQuestion) -> Check | None:
    """Where the keys may not list: whether they may read one of these files below `place`; None when none is read."""
    for file in files:
        if await can_read(name, place, file, ask):
            text = M_("a byte of {path} was read, although it cannot be listed", path=file)
            return Check(M_("read of {name}", name=name), "ok", text)
    return None


async def can_read(name: str, place: str, file: str, ask: BucketQuestion) -> bool:
    """Whether the first byte of `file` below `place` can be read, with no right to list."""
    names = ask.conf.with_name(f"{name}.names")
    names.write_text(f"{file}\n", "utf-8")
    try:
        # By a list of names: else rclone lists the directory that a file is in.
        words = ("--count=1", "--no-traverse", f"--files-from-raw={names}")
        byte = await ask.run("cat", *words, source(place))
    except RemoteError:
        return False
    return bool(byte)  # of a file that is not there it prints nothing, and says nothing
