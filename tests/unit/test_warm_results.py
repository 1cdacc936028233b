"""What comes of a warm: which faults refuse the version, which only this attempt, and why a file was not fetched."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from mountd.errors import MountdError, Refused, RemoteError, Unavailable
from mountd.rclone.command import RcAddress
from mountd.rclone.rc import NONEXISTENT_DIR, RcClient
from mountd.warm.places import MountedDirectory, ServedDirectory
from mountd.warm.plan import FROM_RC, THROUGH_MOUNT
from mountd.warm.results import SHOWN, FetchResult, FileFault, WarmProgress, code_of, raise_faults
from tests.unit.test_rclone_rc import Fake, fake

__all__ = ["fake"]

ENTRY = {"Path": "a", "Name": "a", "Size": 3, "ModTime": "", "IsDir": False}


def fault(code: str, path: str = "a.pth") -> FileFault:
    return FileFault(path, code, "the reason")


@pytest.mark.parametrize(
    ("codes", "kind", "code"),
    [
        (["digest-differs"], Refused, "digest-differs"),
        (["size-differs"], Refused, "size-differs"),
        (["file-missing"], Refused, "file-missing"),
        (["file-unreadable"], Unavailable, "file-unreadable"),
        (["object-archived"], Unavailable, "object-archived"),
        (["file-unreadable", "digest-differs"], Refused, "file-unreadable"),
    ],
)
def test_what_is_not_as_the_manifest_says_refuses_the_version(
    codes: list[str], kind: type[MountdError], code: str
) -> None:
    with pytest.raises(kind) as raised:
        raise_faults(FetchResult(0, tuple(fault(each) for each in codes)))
    assert (type(raised.value), raised.value.code) == (kind, code)
    assert raised.value.hint
    assert "a.pth: the reason" in raised.value.text


def test_without_a_fault_nothing_is_raised_and_of_many_the_first_are_named() -> None:
    raise_faults(FetchResult(7))
    with pytest.raises(Refused) as raised:
        raise_faults(FetchResult(0, tuple(fault("size-differs", f"f{number}\n") for number in range(SHOWN + 2))))
    assert raised.value.text.endswith("and 2 more")
    assert ("f0" in raised.value.text, f"f{SHOWN}" in raised.value.text) == (True, False)
    assert "\n" not in raised.value.text


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (0, "size-differs"),
        (errno.ENOENT, "file-missing"),
        (errno.ENOTDIR, "file-missing"),
        (errno.EIO, "file-unreadable"),
        (errno.EACCES, "file-unreadable"),
    ],
)
def test_what_an_error_of_the_kernel_says_of_a_file(number: int, code: str) -> None:
    assert code_of(number) == code


def test_progress_as_a_part_of_something() -> None:
    part = WarmProgress(3, 10, 1.0, 7.0, 1, 2, 8)
    shifted = part.shifted(5)
    assert (shifted.bytes_done, shifted.bytes_total, shifted.bytes_per_s, shifted.files_total) == (8, 15, 1.0, 2)


# -- where it comes from ----------------------------------------------------------------------------------------------


async def test_a_mounted_directory_asks_who_knows_why_a_file_cannot_be_read() -> None:
    error = RemoteError("it is archived", code="object-archived")

    async def why(path: str) -> RemoteError | None:
        return error if path == "a" else None

    place = MountedDirectory("/mnt/x/v1", why)
    assert (place.source(), place.url("a"), place.keeps, place.sizes) == (
        {"mount": "/mnt/x/v1"}, "", False, THROUGH_MOUNT,
    )  # fmt: skip
    assert [await place.why_unreadable("a"), await place.why_unreadable("b")] == [error, None]
    assert await MountedDirectory("/mnt/x/v1", None).why_unreadable("a") is None


def served(client: RcClient, directory: str = "hub v1") -> ServedDirectory:
    return ServedDirectory(lambda: client.address, "store:bkt/pre", directory, Path("/into"))


def test_objects_are_asked_for_by_their_own_name() -> None:
    address = RcAddress("me", "pw", Path("/run/rc"))
    place = ServedDirectory(lambda: address, "store:bkt/pre", "hub v1", Path("/into"))
    assert place.source() == {"rc": "/run/rc", "authorization": address.authorization, "into": "/into"}
    assert place.url("a #1/caf\udce9.bin") == "/%5Bstore%3Abkt%2Fpre%2F%5D/hub%20v1/a%20%231/caf%E9.bin"
    assert (place.keeps, place.sizes) == (True, FROM_RC)
    root = ServedDirectory(lambda: address, "store:bkt", "", Path("/into"))
    assert root.url("a") == "/%5Bstore%3Abkt%5D/a"


OBJECT = "/%5Bstore%3Abkt%2Fpre%2F%5D/hub%20v1/a"
WELL: dict[str, Any] = {"operations/list": {"list": []}, "operations/stat": {"item": ENTRY}}


@pytest.mark.parametrize(
    ("answers", "given", "code"),
    [
        ({}, (206, b"x"), None),
        ({"operations/list": (500, {"error": "dial tcp: connection refused"})}, (206, b"x"), "bucket-unreachable"),
        ({"operations/stat": {"item": None}}, (404, b""), "object-missing"),
        ({"operations/hashsumfile": (500, {"error": "InvalidObjectState: x"})}, (403, b""), "object-archived"),
    ],
)
async def test_why_an_object_cannot_be_fetched(
    fake: Fake, answers: dict[str, Any], given: tuple[int, bytes], code: str | None
) -> None:
    rclone, client = fake
    rclone.answers |= WELL | answers
    rclone.objects[OBJECT] = given
    found = await served(client).why_unreadable("a")
    assert (found and found.code) == code
    (listed,) = (asked["fs"] for method, asked in rclone.asked if method == "operations/list")
    assert listed == f"store:bkt/pre/{NONEXISTENT_DIR}/", "a bucket that is away says so at once"
    assert {asked["remote"] for method, asked in rclone.asked if method == "operations/stat"} <= {"hub v1/a"}


async def test_an_rclone_that_does_not_answer_says_nothing_of_an_object(tmp_path: Path) -> None:
    nobody = RcClient(RcAddress("me", "pw", tmp_path / "none"))
    with pytest.raises(Unavailable) as raised:
        await served(nobody).why_unreadable("a")
    assert not isinstance(raised.value, RemoteError)
