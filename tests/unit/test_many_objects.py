"""The store of the benchmark gives its objects as S3 does: page by page, by prefix, and in ranges."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest

from bench.many_objects import ManyObjects
from mountd.demo import hub
from mountd.model import manifest
from tests.support.s3 import client


@pytest.fixture
def store() -> Iterator[ManyObjects]:
    with ManyObjects({"v1": 2500, "v2": 10}, directories=3) as made:
        yield made


@pytest.mark.parametrize("kind", ["list_objects", "list_objects_v2"])
def test_all_of_them_page_by_page(store: ManyObjects, kind: str) -> None:
    s3 = client(store.endpoint, store.access_key_id, store.secret_access_key)
    pages = [*s3.get_paginator(kind).paginate(Bucket=hub.BUCKET, Prefix="cache_hub_v1/")]
    keys = [each["Key"] for page in pages for each in page["Contents"]]
    assert (len(keys), len(pages), keys) == (2501, 3, sorted(keys))
    assert store.reset() == {"LIST": 3}
    below = s3.get_paginator(kind).paginate(Bucket=hub.BUCKET, Prefix="cache_hub_v1/models/", Delimiter="/")
    assert [each["Prefix"] for page in below for each in page["CommonPrefixes"]] == [
        f"cache_hub_v1/models/d0000{number}/" for number in range(3)
    ]


def test_their_bytes_are_those_of_the_manifest(store: ManyObjects) -> None:
    s3 = client(store.endpoint, store.access_key_id, store.secret_access_key)
    of = manifest.parse(s3.get_object(Bucket=hub.BUCKET, Key="cache_hub_v2/MANIFEST.json")["Body"].read())
    assert (of.version, len(of.files), len(of.sha256)) == ("v2", 10, 10)
    path = next(iter(of.files))
    assert s3.head_object(Bucket=hub.BUCKET, Key=f"cache_hub_v2/{path}")["ContentLength"] == of.files[path]
    url = f"{store.endpoint}/{hub.BUCKET}/cache_hub_v2/{path}"
    asked = urllib.request.Request(url, headers={"Range": "bytes=1-3"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert (answer.status, answer.read()) == (206, store.content(f"cache_hub_v2/{path}")[1:4])
