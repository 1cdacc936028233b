"""`models.*.desired` and `sync.windows`: what the file may say, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.errors import ConfigError
from mountd.settings.load import Loaded, Places, parse

PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))
GIT: dict[str, Any] = {"url": "https://git.example.com/team/deploy.git", "path": "tts/version"}
SECRET = {"file": "/run/secrets/x"}


def load(**model: Any) -> Loaded:
    config = {
        "remotes": {"store": {"type": "s3", "provider": "AWS"}},
        "mounts": {"storage": {"remote": "store:bucket", "path": "/mnt/storage"}},
        "models": {"hub": {"mount": "storage", "directory": "hub_{version}", "link": "/srv/hub", **model}},
    }
    return parse(yaml.safe_dump(config), "mountd.yaml", PLACES)


@pytest.mark.parametrize(
    "desired",
    [
        {"file": "/etc/mountd/wanted/version"},
        {"file": "/etc/mountd/wanted/values.yaml", "key": "tts.version"},
        {"git": GIT},
        {"git": GIT | {"ref": "release/2026", "interval": "3m", "timeout": "20s", "key": "a.b", "token": SECRET}},
        {"git": GIT | {"webhook": {"secret": {"env": "HOOK"}}}},
        {"git": GIT | {"url": "http://127.0.0.1:3000/x.git", "token": SECRET}},
        {"git": GIT | {"url": "git@git.example.com:team/deploy.git", "ssh_key": SECRET}},
        {"git": GIT | {"url": "ssh://git@git.example.com:2222/x.git", "ssh_key": SECRET, "known_hosts": "/etc/kh"}},
    ],
)
def test_what_may_stand_there(desired: dict[str, Any]) -> None:
    found = load(desired=desired)
    assert found.warnings == ()
    assert found.settings.models["hub"].version is None


@pytest.mark.parametrize(
    ("model", "place"),
    [
        ({}, "models.hub.version"),
        ({"version": "v23", "desired": {"git": GIT}}, "models.hub.desired"),
        ({"version": "v23", "desired": {"file": "/x"}}, "models.hub.desired"),
        ({"desired": {}}, "models.hub.desired"),
        ({"desired": {"file": "/x", "git": GIT}}, "models.hub.desired"),
        ({"desired": {"git": GIT, "key": "a"}}, "models.hub.desired"),
        ({"desired": {"file": "wanted"}}, "models.hub.desired.file"),
        ({"desired": {"file": "/x", "key": "a b"}}, "models.hub.desired.key"),
        ({"desired": {"git": {"url": GIT["url"]}}}, "models.hub.desired.git.path"),
        ({"desired": {"git": GIT | {"url": "https://me:secret@git.example.com/x"}}}, "models.hub.desired.git.url"),
        ({"desired": {"git": GIT | {"url": "https://token@git.example.com/x"}}}, "models.hub.desired.git.url"),
        ({"desired": {"git": GIT | {"url": "file:///srv/x"}}}, "models.hub.desired.git.url"),
        ({"desired": {"git": GIT | {"url": "ext::sh -c id"}}}, "models.hub.desired.git.url"),
        ({"desired": {"git": GIT | {"url": "--upload-pack=id"}}}, "models.hub.desired.git.url"),
        ({"desired": {"git": GIT | {"url": "ssh://-oProxyCommand=id/x"}}}, "models.hub.desired.git.url"),
        ({"desired": {"git": GIT | {"url": "/srv/x.git"}}}, "models.hub.desired.git.url"),
        ({"desired": {"git": GIT | {"ref": "--help"}}}, "models.hub.desired.git.ref"),
        ({"desired": {"git": GIT | {"ref": "a..b"}}}, "models.hub.desired.git.ref"),
        ({"desired": {"git": GIT | {"path": "../x"}}}, "models.hub.desired.git.path"),
        ({"desired": {"git": GIT | {"path": "/x"}}}, "models.hub.desired.git.path"),
        ({"desired": {"git": GIT | {"interval": "0s"}}}, "models.hub.desired.git.interval"),
        ({"desired": {"git": GIT | {"token": "ghp_x"}}}, "models.hub.desired.git.token"),
        ({"desired": {"git": GIT | {"webhook": {"secret": "x"}}}}, "models.hub.desired.git.webhook.secret"),
        ({"desired": {"git": GIT | {"webhook": {}}}}, "models.hub.desired.git.webhook.secret"),
        (
            {"desired": {"git": GIT | {"url": "http://git.example.com/x", "token": SECRET}}},
            "models.hub.desired.git.url",
        ),
        ({"desired": {"git": GIT | {"ssh_key": SECRET}}}, "models.hub.desired.git.ssh_key"),
        ({"desired": {"git": GIT | {"url": "git@h:x.git", "token": SECRET}}}, "models.hub.desired.git.token"),
        (
            {"version": "v1", "sync": {"windows": [{"kind": "allow", "duration": "1h"}]}},
            "models.hub.sync.windows[0].schedule",
        ),
        *(
            (
                {
                    "version": "v1",
                    "sync": {"windows": [{"kind": "deny", "schedule": "0 8 * * *", "duration": "1h"} | wrong]},
                },
                place,
            )
            for wrong, place in [
                ({"kind": "maybe"}, "models.hub.sync.windows[0].kind"),
                ({"schedule": "whenever"}, "models.hub.sync.windows[0].schedule"),
                ({"schedule": "0 8 * * * *"}, "models.hub.sync.windows[0].schedule"),
                ({"schedule": "0 25 * * *"}, "models.hub.sync.windows[0].schedule"),
                ({"duration": "1s"}, "models.hub.sync.windows[0].duration"),
                ({"timezone": "Mars/Olympus"}, "models.hub.sync.windows[0].timezone"),
                ({"timezone": "../../etc/passwd"}, "models.hub.sync.windows[0].timezone"),
            ]
        ),
    ],
)
def test_what_may_not_stand_there(model: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**model)
    assert [problem.path for problem in caught.value.problems] == [place]
    assert "ghp_x" not in caught.value.text


def test_what_is_read_in_the_open_is_warned_of() -> None:
    found = load(desired={"git": GIT | {"url": "http://git.example.com/x.git"}})
    assert [warning.path for warning in found.warnings] == ["models.hub.desired.git.url"]


def test_its_secrets_are_those_of_the_settings() -> None:
    git = GIT | {"token": SECRET, "webhook": {"secret": {"env": "HOOK"}}}
    settings = load(desired={"git": git}).settings
    places = [".".join(map(str, place)) for place, _ in settings.secrets()]
    assert places == ["models.hub.desired.git.token", "models.hub.desired.git.webhook.secret"]
    assert settings.secret_variables() == ("HOOK",)
