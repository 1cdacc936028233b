"""Secrets by reference: reading them, telling them from other text, and never saying one in a message."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mountd.errors import CannotStart, ConfigError
from mountd.settings.load import Places, parse
from mountd.settings.secret import MAX_SECRET_BYTES, SecretRef, is_secret, is_secret_option

PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))


def test_a_secret_file_that_is_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "nul").write_bytes(b"a\0b")
    (tmp_path / "large").write_bytes(b"x" * (MAX_SECRET_BYTES + 1))
    (tmp_path / "full").write_bytes(b"x" * MAX_SECRET_BYTES)
    assert len(SecretRef(file=tmp_path / "full").read()) == 64 * 1024
    for name, cause in [
        ("fifo", "/fifo .* regular"),
        ("empty", "/empty .*empty"),
        ("binary", "/binary .*text"),
        ("nul", "/nul .*NUL"),
        ("large", "/large .*64 KiB"),
        (".", ": is a directory"),
    ]:
        with pytest.raises(CannotStart, match=cause) as caught:
            SecretRef(file=tmp_path / name).read()
        assert caught.value.code == "secret-missing"


def test_credentials_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(CannotStart, match="systemd"):
        SecretRef(credential="key").read()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(CannotStart, match="no such file") as caught:
        SecretRef(credential="key").read()
    assert "LoadCredential=key:" in caught.value.hint, "nobody can create a file there"
    (tmp_path / "key").write_text("abc")
    assert SecretRef(credential="key").read() == "abc"


def test_only_a_credential_that_was_not_passed_is_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    credential = SecretRef(credential="key")
    assert (credential.is_elsewhere, credential.path) == (True, None)
    assert not SecretRef(env="A").is_elsewhere
    assert (SecretRef(file=Path("/x")).is_elsewhere, SecretRef(file=Path("/x")).path) == (False, Path("/x"))
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    hints = []
    for _ in range(2):
        with pytest.raises(CannotStart) as caught:
            credential.read()
        hints.append(caught.value.hint)
        monkeypatch.setenv("INVOCATION_ID", "of a unit")
    assert ["systemd-run" in hint for hint in hints] == [True, False]
    assert all("LoadCredential=key:" in hint for hint in hints)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert (credential.is_elsewhere, credential.path) == (False, tmp_path / "key"), "it may be missing there"


@pytest.mark.parametrize(
    ("value", "read"),
    [("abc", "abc"), ("a b\r\n", "a b"), ("a\nb", "a\nb"), (None, None), ("", None), ("\udcff", None)],
)
def test_a_secret_in_a_variable(monkeypatch: pytest.MonkeyPatch, value: str | None, read: str | None) -> None:
    monkeypatch.delenv("MOUNTD_TEST_SECRET", raising=False)
    if value is not None:
        monkeypatch.setenv("MOUNTD_TEST_SECRET", value)
    if read is not None:
        assert SecretRef(env="MOUNTD_TEST_SECRET").read() == read
        return
    with pytest.raises(CannotStart, match="MOUNTD_TEST_SECRET") as caught:
        SecretRef(env="MOUNTD_TEST_SECRET").read()
    assert (caught.value.code, bool(caught.value.hint)) == ("secret-missing", True)


def test_what_is_there_already_need_not_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    of_the_user = f"uid {os.geteuid()} "
    for path, named in [
        (tmp_path / "none", [f"create {tmp_path / 'none'},"]),
        (tmp_path / "file" / "below", [of_the_user]),
        (tmp_path, []),
    ]:
        with pytest.raises(CannotStart) as caught:
            SecretRef(file=path).read()
        assert [word for word in (f"create {path},", of_the_user) if word in caught.value.hint] == named


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("secret_access_key", "x", True),
        ("s3-secret-access-key", "x", True),
        ("pass", "x", True),
        ("key", "x", True),
        ("AWS_SESSION_TOKEN", "x", True),
        ("service_account_credentials", "{}", True),
        ("url", "redis://:x@host", True),
        ("access_key_id", "x", False),
        ("key_file", "/x", False),
        ("token_url", "https://x", False),
        ("host_key_algorithms", "x", False),
        ("ask_password", "true", False),
        ("token", "", False),
        ("endpoint", "https://host:9000/a@b", False),
    ],
)
def test_what_is_taken_for_a_secret(name: str, value: str, secret: bool) -> None:
    assert is_secret(name, value) is secret


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("secret_acess_key", "x", True),
        ("sercet", "x", True),
        ("toekn", "x", True),
        ("pasword", "x", True),
        ("Access-Key", "x", True),
        ("secret_access_key", "", False),
        ("key_use_agent", "true", False),
        ("acess_key_id", "x", False),
        ("sse_kms_key_id", "x", False),
        ("host_key_algorithms", "x", False),
        ("pass_bad_blocks", "x", False),
        ("passive_mode", "x", False),
        ("region", "x", False),
        ("endpoint", "x", False),
    ],
)
def test_what_looks_like_a_secret_of_a_remote(name: str, value: str, secret: bool) -> None:
    assert is_secret_option(name, value) is secret


# No message contains a secret, in whatever wrong way it is written.

secrets = st.text(alphabet="ABCDEFGHJKLMNPQRSTUVWXYZ0123456789+/=", min_size=12, max_size=24).map(
    lambda text: f"Zq{text}"
)
SHAPES = [
    "{s}",
    "'{s}'",
    "[{s}]",
    "[[{s}]]",
    "{{{s}}}",
    "{{ {{ {s} }} }}",
    "{{env: '{s}'}}",
    "{{evn: '{s}'}}",
    "{{file: '{s}'}}",
    "{{file: [{s}]}}",
    "{{credential: '{s}'}}",
    "{{value: '{s}'}}",
    "{{env: ['{s}'], file: 3}}",
    "*{s}",
    "&{s}",
    "!{s}",
    "%{s}",
    "@{s}",
    "'{s}",
    '"{s}',
    '"\\{s}"',
    "|\n {s}",
    "!!int {s}",
    "https://user:{s}@host",
    "{s}: {s}",
    "[{s}",
    "{{{s}",
    "-\n{s}",
]
KEYS = ["secret_access_key", "token", "pass", "sas_url", "secret-access-key", "Secret_Key", "api_key", "client_secret"]


@settings(max_examples=300)
@given(
    secrets,
    st.sampled_from(SHAPES),
    st.sampled_from(KEYS),
    st.sampled_from(["remotes", "environment", "options"]),
)
def test_no_message_contains_a_secret(secret: str, shape: str, key: str, where: str) -> None:
    written = shape.format(s=secret)
    lines = {"remotes": "", "environment": "", "options": ""} | {where: f"{key}: {written}"}
    text = (
        "remotes:\n  store:\n    type: s3\n    endpoint: http://x\n"
        f"    {lines['remotes']}\n"
        "mounts:\n  storage:\n    remote: store:data\n    path: /mnt/storage\n    options:\n      x: y\n"
        f"      {lines['options']}\n"
        "apps:\n  webui:\n    command: [x]\n    environment:\n      X: y\n"
        f"      {lines['environment']}\n"
    )
    try:
        loaded = parse(text, "test.yaml", PLACES)
    except ConfigError as error:
        said = f"{error.text} {error.hint} {error.problems!r} {error!r}"
    else:
        said = f"{loaded.warnings!r}"
    assert secret not in said
    assert secret[:10] not in said
