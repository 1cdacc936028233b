"""How far a store's clock is off, and what doctor makes of the network to it, with connections on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mountd.cli.examine_store import (
    clock_check,
    endpoint_of,
    goes_through_proxy,
    in_use,
    is_internal,
    network_check,
    skew_s,
)
from mountd.settings.load import Places, parse
from mountd.settings.presets import PRESETS, StoreAddress, address_of
from mountd.settings.remotes import RemoteSettings
from tests.support import hold_port

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("sent", "received", "expected"),
    [
        (0.0, 0.2, 0.0),
        (0.9, 1.0, 0.0),  # the store's second lasts until 1.0
        (1.5, 1.6, 0.5),
        (-0.1, 0.1, 0.0),
        (-2.0, -1.5, -1.5),
        (-30.0, 30.0, 0.0),  # a slow answer says nothing
        (900.0, 901.0, 899.0),
        (-1000.0, -990.0, -990.0),
    ],
)
def test_how_far_a_clock_is_off_at_least(sent: float, received: float, expected: float) -> None:
    assert skew_s(at(sent), at(received), NOON) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("skew", "result", "part"),
    [
        (0, "ok", "same time"),
        (5, "ok", "5 s ahead of"),
        (-59, "ok", "59 s behind"),
        (60, "warn", "60 s ahead of"),
        (-899, "warn", "899 s behind"),
        (900, "fail", "15 minutes"),
        (-90000, "fail", "90000 s behind"),
    ],
)
def test_the_line_of_a_clock(skew: float, result: str, part: str) -> None:
    check = clock_check("clock of s", skew)
    assert (check.result, part in check.text, bool(check.hint)) == (result, True, result != "ok")


@pytest.mark.parametrize(
    ("options", "endpoint"),
    [
        ({"endpoint": "https://x.example.com:9000"}, "https://x.example.com:9000"),
        ({"endpoint": "x.example.com"}, "https://x.example.com"),
        ({"provider": "AWS", "region": "eu-central-1"}, "https://s3.eu-central-1.amazonaws.com"),
        ({"provider": "AWS"}, "https://s3.us-east-1.amazonaws.com"),
        ({"provider": "AWS", "region": "cn-north-1"}, "https://s3.cn-north-1.amazonaws.com.cn"),
        ({"endpoint": {"env": "ENDPOINT"}}, ""),
    ],
)
def test_where_a_remote_asks(options: dict[str, object], endpoint: str) -> None:
    assert endpoint_of(RemoteSettings.model_validate({"type": "s3", **options})) == endpoint


def test_the_stores_behind_mounts_and_outboxes_are_asked_once() -> None:
    text = """
remotes:
  a: {type: s3, endpoint: "http://a"}
  b: {type: crypt, remote: "a:x", password: {env: P}}
  c: {type: s3, endpoint: "http://c"}
  d: {type: local}
  e: {type: s3, endpoint: "http://e"}
mounts:
  m: {remote: "b:", path: /m}
  n: {remote: "a:y", path: /n}
  o: {remote: "d:/", path: /o}
outbox:
  p: {directory: /p, remote: "e:x"}
  q: {directory: /q, remote: "b:/q"}
"""
    settings = parse(text, "x.yaml", Places(Path("/s"), Path("/c"), Path("/r"))).settings
    assert [name for name, _ in in_use(settings)] == ["a", "e"]


@pytest.mark.parametrize(
    ("peer", "internal"),
    [
        ("10.0.0.1", True),
        ("100.118.28.50", True),
        ("127.0.0.1", True),
        ("fd00::1", True),
        ("47.110.1.1", False),
        ("", False),
    ],
)
def test_which_addresses_are_internal(peer: str, internal: bool) -> None:
    assert is_internal(peer) is internal


def test_a_proxy_of_the_environment_says_nothing_of_the_way_from_here() -> None:
    assert not goes_through_proxy({"no_proxy": "*", "https_proxy": ""})
    assert goes_through_proxy({"HTTPS_PROXY": "http://p:3128"})
    assert goes_through_proxy({"all_proxy": "socks5://p"})


# -- the network ------------------------------------------------------------------------------------------------------


@pytest.fixture
def answers() -> Iterator[str]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    with closing(hold_port()) as held:
        yield f"http://127.0.0.1:{held.getsockname()[1]}"


def known(endpoint: str) -> StoreAddress:
    found = address_of(endpoint)
    assert found is not None
    return found


def network(endpoint: str, address: StoreAddress, *, by_preset: bool = True) -> tuple[str, str, str]:
    check = asyncio.run(network_check("network of s", endpoint, address, by_preset=by_preset))
    assert check is not None
    return check.result, check.text, check.hint


def test_a_public_address_where_the_internal_one_answers(answers: str, silent: str) -> None:
    public = "https://oss-cn-hangzhou.aliyuncs.com"
    address = known(public)
    result, text, hint = network(public, replace(address, internal=answers))
    assert (result, "127.0.0.1 answers from here" in text, "network: internal" in hint) == ("warn", True, True)
    _, _, hint = network(public, replace(address, internal=answers), by_preset=False)
    assert f"endpoint: {answers}" in hint
    result, text, hint = network(public, replace(address, internal=silent))
    assert (result, "does not answer from here" in text, hint) == ("ok", True, "")


def test_an_internal_address(answers: str, silent: str) -> None:
    address = known("https://oss-cn-hangzhou-internal.aliyuncs.com")
    assert address.network == "internal"
    assert network(answers, address)[0] == "ok"
    result, text, hint = network(silent, address)
    assert (result, "cn-hangzhou" in text, "network: public" in hint) == ("fail", True, True)
    assert "endpoint: https://oss-cn-hangzhou.aliyuncs.com" in network(silent, address, by_preset=False)[2]


def test_one_name_for_both_networks(answers: str, silent: str) -> None:
    address = known("https://cos.ap-shanghai.myqcloud.com")
    result, text, _ = network(answers, address)
    assert (result, "internal network" in text) == ("ok", True)
    result, text, _ = network(silent, address)
    assert (result, "the internet" in text, "ap-shanghai" in text) == ("ok", True, True)


def test_nothing_is_said_of_a_store_without_an_internal_network() -> None:
    address = known("https://s3.cn-east-1.qiniucs.com")
    assert address.preset is PRESETS["qiniu"]
    assert asyncio.run(network_check("n", "https://s3.cn-east-1.qiniucs.com", address, by_preset=True)) is None
