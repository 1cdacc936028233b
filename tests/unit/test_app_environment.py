"""What an app inherits of mountd's environment: nothing that is a secret of the configuration, now or before."""

from __future__ import annotations

from pathlib import Path

import pytest

from mountd.app.app import App
from mountd.process.instance import Instance
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
    return App(name, given, instance=Instance.of(PLACES.state, PLACES.runtime), board=Board(), hidden=hidden)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MY_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "HF_TOKEN"):
        monkeypatch.setenv(name, f"value of {name}")


def inherited(app: App) -> set[str]:
    built = app._build_environment()
    return {name for name, value in built.items() if value == f"value of {name}"}


KEYS = "access_key_id: x, secret_access_key: {env: MY_KEY}"
AWS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"}


def test_what_the_remotes_find_in_the_environment_is_theirs() -> None:
    assert inherited(app("one", settings("env_auth: 'true'"))) == {"MY_KEY", "AWS_REGION", "HF_TOKEN"}
    assert inherited(app("one", settings("env_auth: 'false'"))) == {"MY_KEY", "AWS_REGION", "HF_TOKEN"} | AWS
    asked = "{AWS_SESSION_TOKEN: {env: AWS_SESSION_TOKEN}}"
    assert "AWS_SESSION_TOKEN" in inherited(app("one", settings("env_auth: 'true'", asked))), "it asks for it"


def test_what_was_a_secret_stays_one() -> None:
    hidden: set[str] = set()
    one = app("one", settings(KEYS), hidden)
    assert "MY_KEY" not in inherited(one)
    later = settings("env_auth: 'false'")
    one.reconfigure(later)
    assert inherited(one) == {"AWS_REGION", "HF_TOKEN"} | AWS
    assert "MY_KEY" not in inherited(app("two", later, hidden)), "an app that a reload has brought"
