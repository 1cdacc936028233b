"""Remotes become the text of rclone.conf, whatever characters they hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from mountd.errors import UsageError
from mountd.rclone.conf import HEADER, render, render_masked
from mountd.settings.remotes import RemoteSettings
from mountd.settings.schema import ControlSettings, Settings
from mountd.settings.secret import SecretRef


def test_type_first_then_by_name_whatever_the_order_given() -> None:
    one = render({"b": {"region": "r", "type": "s3", "endpoint": "https://x"}, "a": {"type": "local"}})
    two = render({"a": {"type": "local"}, "b": {"endpoint": "https://x", "region": "r", "type": "s3"}})
    assert one == two == f"{HEADER}\n[a]\ntype = local\n\n[b]\ntype = s3\nendpoint = https://x\nregion = r\n"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("a#b;c=d:e", "a#b;c=d:e"),
        ("#a", "#a"),
        ('"quoted"', '"quoted"'),
        (" lead", "` lead`"),
        ("trail ", "`trail `"),
        ("`a`b", "``a`b`"),
        ('"""a"""', '`"""a"""`'),
        ("\u3000x", "`\u3000x`"),
        ("100%", "100%"),
        ("%()s %(a)d", "%()s %(a)d"),
        ("", ""),
    ],
)
def test_values_are_quoted_only_where_the_parser_would_change_them(value: str, written: str) -> None:
    assert render({"r": {"type": "s3", "x": value}}) == f"{HEADER}\n[r]\ntype = s3\nx = {written}\n"


@pytest.mark.parametrize("value", ["a\nb", "a\r", "\ta", "a\0", "\x7f", "\x85", "\ud800", "%(type)s", "a%(x)sb"])
def test_what_the_format_cannot_hold_is_refused_without_showing_it(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        render({"r": {"type": "s3", "secret_access_key": "hunter2" + value}})
    assert "remotes.r.secret_access_key" in caught.value.text
    assert "hunter2" not in caught.value.text + caught.value.hint


@pytest.mark.parametrize(
    "remotes",
    [{"A b": {"type": "s3"}}, {"a]": {"type": "s3"}}, {"r": {"x": "1"}}, {"r": {"type": "s3", "a b": "1"}}, {"": {}}],
)
def test_names_are_checked(remotes: dict[str, dict[str, str]]) -> None:
    with pytest.raises(UsageError):
        render(remotes)


def test_masked_shows_references_and_hides_secrets() -> None:
    text = render_masked(
        {
            "r": {
                "type": "sftp",
                "user": "me",
                "pass": SecretRef(env="PW"),
                "token": "t0ken",
                "odd": "p4ss",
            }
        },
        {"sftp": frozenset({"odd"})},
    )
    assert "pass = {env: PW}\n" in text
    assert "user = me\n" in text
    assert "t0ken" not in text
    assert "p4ss" not in text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("store", {"store"}),
        ("secret", {"secret", "store"}),
        ("both", {"both", "secret", "store", "other"}),
        ("nested", {"nested", "both", "secret", "store", "other"}),
        ("round", {"round", "trip"}),
    ],
)
def test_what_a_remote_wraps(name: str, expected: set[str]) -> None:
    remotes: dict[str, dict[str, object]] = {
        "store": {"type": "s3", "endpoint": "https://other.example:9000"},
        "other": {"type": "s3", "secret_access_key": SecretRef(file=Path("/store:x"))},
        "secret": {"type": "crypt", "remote": "store:bucket/path", "password": SecretRef(file=Path("/x"))},
        "both": {"type": "union", "upstreams": "secret:a:ro other,region=x:b :s3,env_auth:c"},
        "nested": {"type": "combine", "upstreams": '"dir=both:x y" more=/tmp'},
        "round": {"type": "alias", "remote": "trip:"},
        "trip": {"type": "alias", "remote": "round:"},
    }
    found = Settings.model_construct(
        remotes={each: RemoteSettings.model_validate(options) for each, options in remotes.items()},
        mounts={},
        control=ControlSettings(socket=Path("/run/mountd/mountd.sock")),
        state=Path("/var/lib/mountd"),
        runtime=Path("/run/mountd"),
    ).beneath(name)
    assert set(found) == expected
    assert found[0] == name
    assert len(found) == len(expected)
