"""What an app inherits of mountd's environment: a list, and nothing that is a secret, now or before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mountd.app.app import App
from mountd.daemon.secret_files import SecretFiles
from mountd.process.instance import Instance
from mountd.settings.environment import of_app, of_rclone
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings
from mountd.status.board import Board

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))


def settings(remote: str, environment: str = "{}") -> Settings:
    text = f"""
remotes: {{s: {{type: s3, endpoint: "http://x", {remote}}}}}
mounts: {{m: {{remote: "s:b", path: /m}}}}
apps: {{one: {{command: [sleep], environment: {environment}}}, two: {{command: [sleep]}}}}
"""
    return parse(text, "test.yaml", PLACES).settings


def app(name: str, given: Settings, hidden: set[str] | None = None) -> App:
    instance, read = Instance.of(PLACES.state, PLACES.runtime), SecretFiles(list).read
    return App(name, given, instance=instance, board=Board(), read_secrets=read, hidden=hidden)


OF_ANY_APP = {"HF_HOME", "CUDA_VISIBLE_DEVICES", "LC_MESSAGES", "https_proxy", "HTTPS_PROXY", "OMP_NUM_THREADS"}
OF_NO_APP = {
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "MY_KEY", "HF_TOKEN"),
    *("DATABASE_URL", "RCLONE_CONFIG", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "PATHS"),
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OF_ANY_APP | OF_NO_APP:
        monkeypatch.setenv(name, f"value of {name}")


def inherited(app: App) -> set[str]:
    built = asyncio.run(app._build_environment())
    return {name for name, value in built.items() if value == f"value of {name}"}


@pytest.mark.parametrize("env_auth", ["true", "false"])
def test_an_app_inherits_a_list_and_what_is_named_for_it(env_auth: str) -> None:
    remote = f"env_auth: '{env_auth}'"
    assert inherited(app("one", settings(remote))) == OF_ANY_APP
    asked = "{AWS_SESSION_TOKEN: {env: AWS_SESSION_TOKEN}, HF_TOKEN: {env: HF_TOKEN}}"
    assert inherited(app("one", settings(remote, asked))) == OF_ANY_APP | {"AWS_SESSION_TOKEN", "HF_TOKEN"}


@pytest.mark.parametrize(("own_user", "kept"), [(True, {"XDG_CACHE_HOME", "HOME"}), (False, {"HOME"})])
def test_directories_of_a_person_are_for_himself(own_user: bool, kept: set[str]) -> None:
    assert set(of_app({"XDG_CACHE_HOME": "/c", "HOME": "/h"}, hidden=(), own_user=own_user)) == kept


def test_a_proxy_with_a_password_is_a_way_out_all_the_same() -> None:
    proxy = {"https_proxy": "http://me:secret@proxy:3128"}
    assert of_app(proxy, hidden=(), own_user=True) == of_rclone(proxy, []) == proxy


def test_what_was_a_secret_stays_one() -> None:
    hidden: set[str] = set()
    one = app("one", settings("access_key_id: x, secret_access_key: {env: HF_HOME}"), hidden)
    assert "HF_HOME" not in inherited(one)
    later = settings("env_auth: 'false'")
    one.reconfigure(later)
    assert inherited(one) == OF_ANY_APP - {"HF_HOME"}
    assert "HF_HOME" not in inherited(app("two", later, hidden)), "an app that a reload has brought"
