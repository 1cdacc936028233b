"""What follows from several keys together: limits that contradict, and what is read off the settings as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.settings.http import HttpSettings
from mountd.settings.load import Inspected, inspect_text
from mountd.settings.secret import SecretRef
from tests.unit.test_settings_problems import GOOD, PLACES, changed, parsed


def inspected(data: Any) -> Inspected:
    return inspect_text(yaml.safe_dump(data, sort_keys=False), PLACES)


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("mounts/storage/cache/min_free", "96%", "mounts.storage.cache.min_free"),
        ("mounts/storage/cache/max_size", "0%", "mounts.storage.cache.max_size"),
        ("models/hub/sync", {"retry": {"initial": "61s"}}, "models.hub.sync.retry.max"),
        ("apps/webui/restart", {"backoff": {"initial": "61s"}}, "apps.webui.restart.backoff.max"),
        ("apps/webui/user", "-x", "apps.webui.user"),
        ("apps/webui/environment", {"A B": "1"}, 'apps.webui.environment."A B"'),
        ("apps/webui/environment", {"A\x7f": "1"}, 'apps.webui.environment."A\x7f"'),
        ("apps/storage", {"command": ["x"]}, "apps.storage"),
        ("models/storage", GOOD["models"]["hub"] | {"link": "/srv/x"}, "models.storage"),
        ("remotes/store/" + "o" * 65, "x", f'remotes.store."{"o" * 64}"'),  # so many characters are shown
        ("apps/webui/needs", ["hub", "storage", "store"], "apps.webui.needs[2]"),
    ],
)
def test_what_is_a_problem(path: str, value: Any, place: str) -> None:
    assert [each.path for each in inspected(changed(path, value)).problems] == [place]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mounts/storage/cache/min_free", "95%"),
        ("mounts/storage/cache/max_size", "1M"),
        ("mounts/storage/health", {"timeout": "150s"}),
        ("mounts/storage/health", {"interval": "150s"}),
        ("models/hub/sync", {"retry": {"initial": "60s"}}),
        ("apps/webui/restart", {"backoff": {"initial": "60s"}}),
        ("apps/webui/user", "_a.b-c$"),
        ("remotes/store", {"type": "s3", "provider": "AWS"}),
        ("remotes/store/" + "o" * 64, "x"),
        ("apps/webui/needs", ["storage"]),
        ("mounts/storage/options", {"exclude": ["a", "b"]}),
    ],
)
def test_what_is_none(path: str, value: Any) -> None:
    found = inspected(changed(path, value))
    assert (found.problems, found.warnings) == ((), ())


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("mounts/storage/health", {"timeout": "151s"}, "mounts.storage.health"),
        ("mounts/storage/health", {"interval": "151s"}, "mounts.storage.health"),
        ("mounts/storage/health", {"interval": "20s", "failures": "16"}, "mounts.storage.health"),
        ("mounts/storage/drain", "5s", "mounts.storage.drain"),
        ("mounts/storage/options", {"header": ["a: b", "Authorization: Bearer abc"]}, "mounts.storage.options.header"),
    ],
)
def test_what_is_a_warning(path: str, value: Any, place: str) -> None:
    found = inspected(changed(path, value))
    assert (found.problems, [each.path for each in found.warnings]) == ((), [place])


@pytest.mark.parametrize("plain", [False, True])
def test_what_may_hold_a_secret_is_a_warning_unless_plain_secrets_are_allowed(plain: bool) -> None:
    data = changed("remotes/store/description", "https://x/?token=abc") | {"allow_plain_secrets": plain}
    found = inspected(data)
    assert found.problems == ()
    assert [each.path for each in found.warnings] == ([] if plain else ["remotes.store.description"])


def test_a_variable_may_hold_a_plain_secret_when_that_is_allowed() -> None:
    data = changed("apps/webui/environment", {"HF_TOKEN": "abc"}) | {"allow_plain_secrets": True}
    assert parsed(data).warnings == ()


def test_only_the_first_mount_whose_socket_is_too_long_is_shown() -> None:
    data = changed("mounts/two", {"remote": "store:x", "path": "/mnt/two"}) | {"runtime": "/" + "r" * 85}
    data["control"] = {"socket": "/s"}
    assert [each.path for each in inspected(data).problems] == ["runtime"]


@pytest.mark.parametrize(
    ("listen", "address"),
    [("127.0.0.1:8780", ("127.0.0.1", 8780)), ("[::1]:0", ("::1", 0)), (":65535", ("", 65535))],
)
def test_the_address_of_a_listener(listen: str, address: tuple[str, int]) -> None:
    assert HttpSettings(listen=listen).address == address


@pytest.mark.parametrize(
    ("given", "user", "root", "allowed"),
    [
        (None, None, False, False),
        (None, None, True, True),
        (None, "tts", False, True),
        (False, "tts", True, False),
        (True, None, False, True),
    ],
)
def test_who_else_may_read_a_mount(given: bool | None, user: str | None, root: bool, allowed: bool) -> None:
    data = changed("apps/webui/user", user)
    data["mounts"]["storage"]["allow_other"] = given
    if user is None:
        del data["apps"]["webui"]["user"]
    if given is None:
        del data["mounts"]["storage"]["allow_other"]
    settings = parsed(data).settings
    assert settings.allows_other(settings.mounts["storage"], root=root) is allowed


def test_the_mounts_of_an_app_each_once_in_the_order_of_its_needs() -> None:
    data = changed("mounts/two", {"remote": "store:x", "path": "/mnt/two"})
    data["apps"]["webui"]["needs"] = ["two", "hub", "storage"]
    settings = parsed(data).settings
    assert settings.mounts_of(settings.apps["webui"]) == ["two", "storage"]


def test_every_secret_and_where_it_is_referred_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    data = changed("remotes/store/token", {"env": "TOKEN"})
    data["remotes"]["store"]["pass"] = {"credential": "pass"}
    data["apps"]["webui"]["environment"] = {"A": {"file": "/a"}, "B": "plain", "C": {"env": "C_KEY"}}
    data["http"] = {"tokens": {"env": "TOKENS"}, "tls": {"certificate": {"file": "/c"}, "key": {"credential": "k"}}}
    settings = parsed(data).settings
    assert dict(settings.secrets()) == {
        ("remotes", "store", "token"): SecretRef(env="TOKEN"),
        ("remotes", "store", "pass"): SecretRef(credential="pass"),
        ("apps", "webui", "environment", "A"): SecretRef(file=Path("/a")),
        ("apps", "webui", "environment", "C"): SecretRef(env="C_KEY"),
        ("http", "tokens"): SecretRef(env="TOKENS"),
        ("http", "tls", "certificate"): SecretRef(file=Path("/c")),
        ("http", "tls", "key"): SecretRef(credential="k"),
    }
    assert settings.secret_variables() == ("TOKEN", "C_KEY", "TOKENS")
    assert [*settings.secrets_elsewhere()] == [("remotes", "store", "pass"), ("http", "tls", "key")]
