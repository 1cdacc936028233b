"""What doctor finds out from a store: real ones, and one that refuses in the words of real ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.cli import examine_bucket, examine_store
from mountd.cli.examine import Check
from mountd.settings.load import Places, parse
from tests.support.refusing_store import RefusingStore
from tests.support.s3 import ACCESS_KEY_ID, RCLONE, SECRET_ACCESS_KEY, MotoS3, RcloneS3

OBJECTS = {"hub_v1/MANIFEST.json": b"{}", "hub_v1/models/gpt [1]{2}.pth": b"x" * 5000, "hub_v1/empty": b""}
HOST = "http://oss-cn-test.example.com"
"""Reached through the store itself, as a proxy."""


@pytest.fixture
def store() -> Iterator[RefusingStore]:
    with RefusingStore(objects=dict(OBJECTS)) as found:
        yield found


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


Examine = Callable[..., dict[str, Check]]


@pytest.fixture
def examine(tmp_path: Path) -> Examine:
    """The lines about the store and the bucket, by name."""

    def run(
        endpoint: str, *, remote: str = "s:data", directory: str = "hub_{version}", **options: Any
    ) -> dict[str, Check]:
        given = {"type": "s3", "provider": "Other", "endpoint": endpoint, "access_key_id": ACCESS_KEY_ID}
        text = yaml.safe_dump(
            {
                "remotes": {"s": {**given, "secret_access_key": SECRET_ACCESS_KEY, **options}},
                "mounts": {"m": {"remote": remote, "path": f"{tmp_path}/m"}},
                "models": {"h": {"mount": "m", "directory": directory, "link": f"{tmp_path}/h", "version": "v1"}},
                "rclone": {"binary": str(RCLONE)},
                "allow_plain_secrets": True,
            }
        )
        settings = parse(text, "x.yaml", Places(tmp_path / "state", tmp_path / "cache", tmp_path / "run")).settings

        async def checks() -> list[Check]:
            binary, _ = await examine_bucket.rclone(settings)
            assert binary is not None
            return [*await examine_store.stores(settings), *await examine_bucket.buckets(settings, binary)]

        found = asyncio.run(checks())
        assert SECRET_ACCESS_KEY not in str(found)
        return {check.name: check for check in found}

    return run


def results(checks: dict[str, Check]) -> dict[str, str]:
    return {name: check.result for name, check in checks.items()}


WELL = {
    "clock of s": "ok",
    "style of m": "ok",
    "signature of m": "ok",
    "bucket of m": "ok",
    "versions of h": "ok",
    "read of m": "ok",
}


def test_a_store_that_gives_what_is_asked(store: RefusingStore, examine: Examine) -> None:
    found = examine(store.address)
    assert results(found) == WELL
    assert found["style of m"].text == "path style: 127.0.0.1/data"
    assert "MANIFEST.json" in found["read of m"].text
    assert [each.key for each in store.asked if not each.is_list] == ["hub_v1/MANIFEST.json"]


@pytest.mark.parametrize("server", [MotoS3, RcloneS3])
def test_real_servers(server: type[MotoS3] | type[RcloneS3], tmp_path: Path, examine: Examine) -> None:
    (tmp_path / "s3").mkdir()
    with MotoS3() if server is MotoS3 else RcloneS3(tmp_path / "s3") as real:
        real.create_bucket("data")
        for key, data in OBJECTS.items():
            real.put("data", key, data)
        assert results(examine(real.endpoint)) == WELL
        missing = examine(real.endpoint, remote="s:other")
        assert results(missing) == {"clock of s": "ok", "bucket of m": "fail"}
        if server is RcloneS3:
            refused = examine(real.endpoint, secret_access_key="another-secret-0001")
            assert (refused["signature of m"].result, refused["bucket of m"].result) == ("fail", "fail")


def test_a_name_with_signs_of_patterns_is_read_as_it_is(store: RefusingStore, examine: Examine) -> None:
    del store.objects["hub_v1/MANIFEST.json"]
    found = examine(store.address)
    assert (found["read of m"].result, "gpt [1]{2}.pth" in found["read of m"].text) == ("ok", True)


@pytest.mark.parametrize(
    ("code", "signature", "hint"),
    [
        ("SignatureDoesNotMatch", "fail", "secret_access_key"),
        ("InvalidAccessKeyId", "fail", "access_key_id"),
        ("ExpiredToken", "fail", "renew"),
        ("RequestTimeTooSkewed", "fail", "timedatectl"),
        ("AuthorizationHeaderMalformed", "fail", "region"),
        ("AccessDenied", "ok", "s3:ListBucket"),
    ],
)
def test_what_a_refused_listing_says(
    store: RefusingStore, examine: Examine, code: str, signature: str, hint: str
) -> None:
    store.refuse = {"list": code} if code == "AccessDenied" else {"list": code, "get": code}
    found = examine(store.address)
    assert (found["bucket of m"].result, found["signature of m"].result) == ("fail", signature)
    assert hint in (found["bucket of m"] if signature == "ok" else found["signature of m"]).hint
    assert "style of m" not in found
    # Who may read but not list: the manifest of the wanted version is where it must be.
    assert found.get("read of m", Check("", "fail", "")).result == ("ok" if code == "AccessDenied" else "fail")


def test_keys_that_may_list_and_not_read(store: RefusingStore, examine: Examine) -> None:
    store.refuse = {"get": "AccessDenied"}
    found = examine(store.address)
    assert results(found) == {**WELL, "read of m": "fail"}
    assert "s3:GetObject" in found["read of m"].hint


def test_an_archived_file_is_named(store: RefusingStore, examine: Examine) -> None:
    store.refuse = {"get": "InvalidObjectState"}
    found = examine(store.address)
    assert (found["read of m"].result, "archived" in found["read of m"].text) == ("fail", True)


@pytest.mark.parametrize(("minutes", "result"), [(-20, "fail"), (20, "fail"), (5, "warn"), (0, "ok")])
def test_the_clock(store: RefusingStore, examine: Examine, minutes: int, result: str) -> None:
    store.skew = timedelta(minutes=minutes)
    if abs(minutes) > 15:
        store.refuse = {"list": "RequestTimeTooSkewed"}
    check = examine(store.address)["clock of s"]
    assert (check.result, "behind" in check.text) == (result, minutes > 0)


# -- where the bucket's name stands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["SecondLevelDomainForbidden", "NoSuchBucket"])
def test_a_store_that_wants_the_host_style(
    store: RefusingStore, examine: Examine, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setenv("http_proxy", store.address)
    store.takes, store.wrong_style = ("host",), code
    found = examine(HOST)
    assert (found["bucket of m"].result, found["style of m"].result) == ("fail", "fail")
    assert "force_path_style: false" in found["style of m"].hint
    right = examine(HOST, force_path_style="false")
    assert results(right) == WELL
    assert right["style of m"].text == "host style: data.oss-cn-test.example.com"


@pytest.mark.parametrize("provider", ["AWS", "Other"])
def test_a_store_that_wants_the_path_style(
    store: RefusingStore, examine: Examine, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    monkeypatch.setenv("http_proxy", store.address)
    store.takes, store.wrong_style = ("path",), "NoSuchBucket"
    found = examine(HOST, provider=provider, force_path_style="false")
    assert (found["bucket of m"].result, found["style of m"].result) == ("fail", "fail")
    assert "force_path_style: true" in found["style of m"].hint
    assert ("provider: Other" in found["style of m"].hint) is (provider == "AWS")


def test_a_store_that_lists_its_buckets_in_place_of_the_objects(
    store: RefusingStore, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not know the host name with the bucket in it: rclone finds nothing in the answer, and no error."""
    monkeypatch.setenv("http_proxy", store.address)
    answer = store.answer
    buckets = b"<ListAllMyBucketsResult><Buckets><Bucket><Name>data</Name></Bucket></Buckets></ListAllMyBucketsResult>"
    monkeypatch.setattr(store, "answer", lambda asked: (200, buckets) if asked.style == "host" else answer(asked))
    found = examine(HOST, provider="AWS")
    assert results(found) == {"clock of s": "ok", "style of m": "fail"}


def test_an_empty_bucket_is_empty(store: RefusingStore, examine: Examine) -> None:
    store.objects.clear()
    found = results(examine(store.address))
    assert found == {"clock of s": "ok", "style of m": "ok", "signature of m": "ok", "bucket of m": "warn"}


def test_another_backend_has_neither_style_nor_signature(tmp_path: Path, examine: Examine) -> None:
    (tmp_path / "data" / "hub_v1").mkdir(parents=True)
    (tmp_path / "data" / "hub_v1" / "x").write_text("x")
    found = examine("", type="local", remote=f"s:{tmp_path}/data")
    assert results(found) == {"bucket of m": "ok", "versions of h": "ok", "read of m": "ok"}
