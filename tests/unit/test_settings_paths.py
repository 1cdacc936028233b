"""Which paths a file may put where: each pair that is refused, and which key the problem is shown at."""

from __future__ import annotations

from typing import Any

import pytest

from mountd.errors import ConfigError
from tests.unit.test_settings_problems import GOOD, MOUNT_2, changed, parsed

HUB = GOOD["models"]["hub"]


def refused(data: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parsed(data)
    return [each.path for each in caught.value.problems]


@pytest.mark.parametrize(
    ("path", "value", "places"),
    [
        # below a mount, where a hung one would hang mountd
        ("control/socket", "/mnt/storage/s", ["control.socket"]),
        ("runtime", "/mnt/storage/run", ["control.socket", "runtime"]),
        ("rclone", {"binary": "/mnt/storage/rclone"}, ["rclone.binary"]),
        ("apps/webui/environment", {"A": {"file": "/mnt/storage/a"}}, ["apps.webui.environment.A.file"]),
        ("mounts/storage/cache/dir", "/mnt/storage", ["mounts.storage.cache.dir"]),
        ("state", "/mnt/storage", ["state"]),
        # in a link, which is replaced at every switch
        ("mounts/storage/cache/dir", "/srv/app/hub/cache", ["models.hub.link"]),
        ("mounts/storage/cache/dir", "/srv/app/hub", ["models.hub.link"]),
        ("state", "/srv/app/hub/state", ["models.hub.link"]),
        ("control/socket", "/srv/app/hub/s", ["models.hub.link"]),
        ("models/hub/link", "/run/mountd", ["models.hub.link", "models.hub.link"]),
        # one thing at one path
        ("models/two", HUB | {"link": "/srv/app/hub/x"}, ["models.two.link"]),
        ("models/two", HUB | {"link": "/srv/app"}, ["models.hub.link"]),
        ("mounts/two", MOUNT_2 | {"path": "/mnt"}, ["mounts.storage.path"]),
        ("mounts/storage/path", "/srv/app/hub/mount", ["mounts.storage.path"]),
        ("models/hub/link", "/", ["models.hub.link"]),
        # what is adopted is read from end to end
        ("models/hub/warm", {"adopt": ["/data", "/mnt/storage/a"]}, ["models.hub.warm.adopt[1]"]),
        ("models/hub/warm", {"adopt": ["/mnt"]}, ["models.hub.warm.adopt[0]"]),
        ("models/hub/warm", {"adopt": ["/var/lib/mountd/pins/x"]}, ["models.hub.warm.adopt[0]"]),
        ("models/hub/warm", {"adopt": ["/var/lib"]}, ["models.hub.warm.adopt[0]"]),
        ("models/hub/warm", {"adopt": ["/var/cache/mountd/storage/vfs"]}, ["models.hub.warm.adopt[0]"]),
        ("models/hub/warm", {"adopt": ["/srv/app/hub"]}, ["models.hub.warm.adopt[0]"]),
        ("models/hub/warm", {"adopt": ["/srv/app/hub/models"]}, ["models.hub.warm.adopt[0]"]),
    ],
)
def test_refused(path: str, value: Any, places: list[str]) -> None:
    assert refused(changed(path, value)) == places


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("mounts/storage/path", "/var/lib/mountd/storage"),
        ("mounts/storage/cache/dir", "/var/lib/mountd/cache"),
        ("mounts/storage/cache/dir", "/srv/app/hub-cache"),
        ("models/hub/link", "/mnt/storage-hub"),
        ("models/hub/link", "/var/lib/mountd/hub"),
        ("models/two", HUB | {"link": "/srv/app/hub2"}),
        ("remotes/store/token", {"file": "/mnt/storag/t"}),
        ("models/hub/warm", {"adopt": ["/data", "/mnt/other", "/srv/app", "/srv/app/hub2"]}),
    ],
)
def test_taken(path: str, value: Any) -> None:
    assert parsed(changed(path, value)).warnings == ()
