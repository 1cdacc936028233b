"""A mount and a profile become an argv and an environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mountd.errors import ConfigError
from mountd.rclone.binary import Binary
from mountd.rclone.command import (
    CacheSize,
    Launch,
    MountCommand,
    RcAddress,
    UploadLaunch,
    advise,
    mount_command,
    source,
    upload_command,
)
from mountd.settings import profiles
from mountd.settings.remotes import RemoteSettings
from mountd.settings.schema import MODEL_PROFILES, ControlSettings, MountSettings, Settings
from mountd.settings.words import MAX_PROBLEMS

OWN = [
    "config",
    "cache-dir",
    "devname",
    "use-json-log",
    "rc",
    "rc-addr",
    "rc-serve",
    "allow-other",
    "uid",
    "gid",
    "umask",
    "log-level",
    "ca-cert",
    "vfs-cache-max-size",
    "vfs-cache-min-free-space",
    "vfs-read-chunk-streams",
    "exclude",
    "checkers",
    "transfers",
    "timeout",
    "direct-io",
    "vfs-used-is-size",
    "links",
    "no-modtime",
    "fast-list",
    "verbose",
]
PROFILES = [name for each in profiles.PROFILES for name in profiles.flags(each, "s3")]
BINARY = Binary(Path("/opt/rclone"), (1, 75, 2), frozenset([*OWN, *PROFILES]))
RC = RcAddress("me", "rc-pass-word", Path("/run/mountd/private/storage.rc"))


def mount(**fields: Any) -> MountSettings:
    given = {"remote": "cs:bkt", "path": "/mnt/x", "cache": {"dir": "/var/cache/x"}} | fields
    return MountSettings.model_validate(given)


def command(
    each: MountSettings | None = None,
    *,
    remote: RemoteSettings | None = None,
    binary: Binary = BINARY,
    cache: CacheSize | None = CacheSize(),  # noqa: B008 (frozen)
    environment: dict[str, str] | None = None,
    others: dict[str, RemoteSettings] | None = None,
    notify_socket: Path | None = None,
    allow_other: bool = True,
) -> MountCommand:
    """`others`: remotes beside the mount's own."""
    found = each or mount()
    remotes = {found.remote_name: remote or RemoteSettings(type="s3")} | (others or {})
    settings = Settings.model_construct(
        remotes=remotes,
        mounts={"storage": found},
        models={},
        apps={},
        control=ControlSettings(socket=Path("/run/mountd/mountd.sock")),
        state=Path("/var/lib/mountd"),
        runtime=Path("/run/mountd"),
    )
    launch = Launch(
        binary=binary,
        conf=Path("/run/mountd/private/rclone.conf"),
        devname="mountd:abc:storage",
        allow_other=allow_other,
        rc=RC,
        cache=cache,
        notify_socket=notify_socket,
    )
    return mount_command(settings, "storage", launch, environment or {})


def holding(*variables: str) -> dict[str, RemoteSettings]:
    """A remote of others whose secrets are in these variables."""
    secrets = {f"option_{number}": {"env": name} for number, name in enumerate(variables)}
    return {"others": RemoteSettings.model_validate({"type": "sftp"} | secrets)}


def test_the_whole_command() -> None:
    argv = command(mount(uid=1000, gid=1001, umask="022"), cache=CacheSize(30 << 30, 5 << 30)).argv
    assert argv[:4] == ("/opt/rclone", "mount", "cs:bkt", "/mnt/x")
    assert all(word.startswith("--") for word in argv[4:])
    assert {
        "--config=/run/mountd/private/rclone.conf",
        "--cache-dir=/var/cache/x",
        "--devname=mountd:abc:storage",
        "--use-json-log",
        "--log-level=INFO",
        "--rc",
        "--rc-addr=unix:///run/mountd/private/storage.rc",
        "--allow-other",
        "--rc-serve",
        "--uid=1000",
        "--gid=1001",
        "--umask=0022",
        "--vfs-cache-max-size=32212254720B",
        "--vfs-cache-min-free-space=5368709120B",
        "--read-only",
        "--vfs-cache-mode=full",
        "--s3-no-check-bucket",
        "--contimeout=10s",
    } <= set(argv)
    once = [word.partition("=")[0] for word in argv if not word.startswith("--exclude=")]
    assert len(once) == len(set(once))


def test_what_is_not_asked_for_is_not_set() -> None:
    argv = command(cache=CacheSize(None, 0), allow_other=False).argv
    named = {word.partition("=")[0] for word in argv}
    assert not {"--uid", "--gid", "--umask", "--vfs-cache-max-size", "--vfs-cache-min-free-space"} & named
    assert "--allow-other=false" in argv


def test_without_its_cache_it_keeps_nothing_on_disk() -> None:
    given = {"on_failure": "keep", "dir": "/var/cache/x", "max_size": "30G"}
    wanted = mount(cache=given, options={"vfs-cache-mode": "full"})
    argv = command(wanted, cache=None).argv
    assert [word for word in argv if "cache-mode" in word] == ["--vfs-cache-mode=off"]
    assert not any(word.startswith(("--cache-dir", "--vfs-cache-max-size", "--vfs-cache-min-free")) for word in argv)
    assert "--read-only" in argv


def test_options_replace_the_profile_but_not_what_mountd_must_set() -> None:
    options = {
        "vfs-read-ahead": "1G",
        "read-only": False,
        "exclude": ["-a", "b=c"],
        "devname": "mine",
        "log-level": "DEBUG",
    }
    argv = command(mount(options=options)).argv
    assert [word for word in argv if "read-ahead" in word] == ["--vfs-read-ahead=1G"]
    assert "--read-only=false" in argv
    assert [word for word in argv if "exclude" in word] == [
        *("--exclude=//**", "--exclude=**//**"),
        *("--exclude=-a", "--exclude=b=c"),
    ]
    assert "--devname=mountd:abc:storage" in argv
    assert "--log-level=DEBUG" in argv
    assert not any("log-level" in word for word in command(mount(options={"verbose": True})).argv)


def test_a_flag_that_the_binary_lacks() -> None:
    lacking = Binary(Path("/r"), (1, 70, 0), BINARY.flags - {"use-server-modtime"})
    built = command(binary=lacking)
    assert not any("use-server-modtime" in word for word in built.argv)
    (warning,) = [each for each in built.warnings if "--use-server-modtime" in each]
    assert warning.startswith("mounts.storage: ")
    assert "1.70.0" in warning
    with pytest.raises(ConfigError) as caught:
        command(mount(options={"vfs-read-ahed": "1G", "nonsense-xyzzy": True, "daemon": True}))
    assert caught.value.exit_code == 2
    assert len(caught.value.problems) == 3
    assert "'vfs-read-ahead'" in caught.value.text, "what may have been meant"


@pytest.mark.parametrize(
    "flag", ["daemon", "daemon-wait", "daemon-timeout", "rc-no-auth", "allow-non-empty", "log-file"]
)
def test_what_mountd_decides_cannot_be_set_also_where_rclone_knows_it(flag: str) -> None:
    knowing = Binary(Path("/opt/rclone"), (1, 75, 2), BINARY.flags | {flag})
    with pytest.raises(ConfigError) as caught:
        command(mount(options={flag: True}), binary=knowing)
    assert [each.path for each in caught.value.problems] == [f"mounts.storage.options.{flag}"]
    assert "/opt/rclone help flags" in caught.value.hint


def test_so_many_unknown_flags_are_named_and_no_more() -> None:
    with pytest.raises(ConfigError) as caught:
        command(mount(options={f"no-such-{number}": True for number in range(MAX_PROBLEMS + 5)}))
    assert len(caught.value.problems) == MAX_PROBLEMS


def test_a_file_that_is_closed_is_noted_at_once() -> None:
    """By an rclone before 1.74 without a flag for it."""
    lacking = Binary(Path("/r"), (1, 70, 0), BINARY.flags - {"vfs-handle-caching"})
    for profile in profiles.PROFILES:
        assert "--vfs-handle-caching=0" in command(mount(profile=profile)).argv
        assert not any("handle-caching" in each for each in command(mount(profile=profile), binary=lacking).warnings)
    mine = command(mount(options={"vfs-handle-caching": "5s"})).argv
    assert [word for word in mine if "handle-caching" in word] == ["--vfs-handle-caching=5s"]


def test_a_profile_has_variables_that_those_of_mountd_replace() -> None:
    for profile, variables in profiles.ENVIRONMENT.items():
        (variable,) = variables
        assert variable not in command(mount(profile="outputs")).environment
        assert command(mount(profile=profile)).environment[variable] == variables[variable]
        assert command(mount(profile=profile), environment={variable: "7"}).environment[variable] == "7"


@pytest.mark.parametrize(
    ("options", "whole"),
    [
        ({}, True),
        ({"buffer-size": "0"}, False),
        ({"buffer-size": "0M"}, False),
        ({"buffer-size": "off"}, False),
        ({"buffer-size": "512K"}, False),
        ({"buffer-size": "16"}, False),
        ({"buffer-size": "1M"}, True),
        ({"direct-io": True}, False),
        ({"direct-io": False}, True),
    ],
)
def test_whether_whole_blocks_are_written(options: dict[str, Any], whole: bool) -> None:
    for profile in MODEL_PROFILES:
        assert profiles.writes_whole_blocks(mount(profile=profile, options=options)) is whole


ENVIRONMENT = {
    "PATH": "/bin",
    "HTTPS_PROXY": "http://proxy",
    "NOTIFY_SOCKET": "/run/notify",
    "WATCHDOG_USEC": "1",
    "LISTEN_FDS": "1",
    "CREDENTIALS_DIRECTORY": "/run/credentials",
    "JOURNAL_STREAM": "8:1",
    "RCLONE_VFS_CACHE_MODE": "off",
    "RCLONE_CONFIG_CS_TYPE": "local",
    "MOUNTD_SECRET": "s3cr3t",
    "AWS_CA_BUNDLE": "/etc/ca.pem",
    "AWS_ACCESS_KEY_ID": "AKIA",
    "AWS_PROFILE": "p",
}


def test_the_environment_of_the_child() -> None:
    built = command(environment=ENVIRONMENT, others=holding("MOUNTD_SECRET"))
    expected = {
        "PATH": "/bin",
        "HTTPS_PROXY": "http://proxy",
        "RCLONE_RC_USER": "me",
        "RCLONE_RC_PASS": "rc-pass-word",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "GOGC": "200",
    }
    assert built.environment == expected
    assert "--ca-cert=/etc/ca.pem" in built.argv
    assert not any("rc-pass-word" in word or "s3cr3t" in word for word in built.argv)
    assert "rc-pass-word" not in repr(built) + repr(RC)


@pytest.mark.parametrize(
    ("kind", "passed"),
    [
        ("s3", {"AWS_PROFILE"}),
        ("azureblob", {"AZURE_CLIENT_ID"}),
        ("swift", {"OS_AUTH_URL"}),
        ("googlecloudstorage", {"GOOGLE_APPLICATION_CREDENTIALS"}),
        ("sftp", set()),
    ],
)
def test_each_cloud_finds_its_own_variables_where_it_is_to_look_for_them(kind: str, passed: set[str]) -> None:
    every = ("AWS_PROFILE", "AZURE_CLIENT_ID", "OS_AUTH_URL", "GOOGLE_APPLICATION_CREDENTIALS")
    given = dict.fromkeys((*every, "DATABASE_URL", "RCLONE_CONFIG", "HF_TOKEN", "LC_ALL", "SSL_CERT_FILE"), "x")
    for env_auth, expected in (("true", passed), ("false", set())):
        remote = RemoteSettings.model_validate({"type": kind, "env_auth": env_auth})
        built = command(remote=remote, environment=given).environment
        assert {name for name, value in built.items() if value == "x"} == {"LC_ALL", "SSL_CERT_FILE"} | expected


def test_aws_variables_are_for_env_auth_and_the_socket_only_when_given() -> None:
    remote = RemoteSettings.model_validate({"type": "s3", "env_auth": "true"})
    built = command(remote=remote, environment=ENVIRONMENT, notify_socket=Path("/run/mountd/private/storage.notify"))
    assert built.environment["AWS_ACCESS_KEY_ID"] == "AKIA"
    assert "AWS_CA_BUNDLE" not in built.environment
    assert built.environment["NOTIFY_SOCKET"] == "/run/mountd/private/storage.notify"
    assert "AWS_SHARED_CREDENTIALS_FILE" not in built.environment
    shared = command(remote=remote, environment=ENVIRONMENT, others=holding("AWS_ACCESS_KEY_ID", "AWS_PROFILE"))
    assert shared.environment["AWS_ACCESS_KEY_ID"] == "AKIA", "that an app is given it takes it from nobody"
    assert "AWS_PROFILE" not in shared.environment
    crypt = RemoteSettings.model_validate({"type": "crypt", "remote": "store:bkt"})
    wrapping = command(remote=crypt, others={"store": remote}, environment=ENVIRONMENT)
    assert wrapping.environment["AWS_PROFILE"] == "p"
    assert not any(name.startswith("AWS_") for name in command(remote=RemoteSettings(type="sftp")).environment)
    own = command(mount(options={"ca-cert": "/own.pem"}), environment=ENVIRONMENT)
    assert [word for word in own.argv if "ca-cert" in word] == ["--ca-cert=/own.pem"]


@pytest.mark.parametrize(
    ("remote", "expected"),
    [
        ("cs:bkt", "cs:bkt"),
        ("cs:bkt/", "cs:bkt/"),
        ("cs:bkt/prefix", "cs:bkt/prefix/"),
        ("cs:bkt/a/b/", "cs:bkt/a/b/"),
        ("cs:", "cs:"),
        ("local:/tmp", "local:/tmp/"),
        ("local:/", "local:/"),
    ],
)
def test_source(remote: str, expected: str) -> None:
    assert source(remote) == expected


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"checkers": "8"}, "no effect"),
        ({"transfers": "8"}, "uploads only"),
        ({"timeout": "1h"}, "hour late"),
        ({"timeout": "59m59s"}, ""),
        ({"timeout": "0"}, "never"),
        ({"timeout": "5m"}, ""),
        ({"timeout": "what"}, ""),
        ({"direct-io": True}, "page cache"),
        ({"direct-io": False}, ""),
        ({"direct-io": "true"}, "page cache"),
        ({"links": True}, ".rclonelink"),
        ({"vfs-links": True}, ".rclonelink"),
        ({"no-check-certificate": True}, "ca-cert"),
        ({"vfs-fast-fingerprint": True}, "same size"),
        ({"vfs-used-is-size": True}, "whole bucket"),
        ({"no-modtime": True}, "time"),
        ({"fast-list": True}, "no effect"),
        ({"vfs-read-chunk-streams": "2"}, "hang"),
        ({"vfs-read-chunk-streams": "1"}, ""),
        ({"vfs-read-chunk-streams": "many"}, ""),
        ({"vfs-cache-mode": "writes"}, "again"),
        ({"vfs-cache-mode": "full"}, ""),
        ({"vfs-cache-max-age": "1h"}, ""),
        ({"vfs-cache-max-age": "0s"}, "empties"),
        ({"vfs-read-ahead": "1G"}, ""),
    ],
)
def test_advice(options: dict[str, Any], word: str) -> None:
    found = advise(mount(options=options))
    assert [flag for flag, _ in found] == (list(options) if word else [])
    assert all(word in why for _, why in found)


def test_the_mode_of_the_cache_is_the_admins_own_where_no_model_is_read() -> None:
    assert advise(mount(profile="outputs", options={"vfs-cache-mode": "writes"})) == []


def test_an_upload_may_take_longer_than_an_hour() -> None:
    """It is one call, and rclone's own hour would cut off its answer: the file would be sent again, for ever."""
    flags = frozenset([*OWN, "rc-server-read-timeout", "rc-server-write-timeout"])
    launch = UploadLaunch(Binary(Path("/opt/rclone"), (1, 75, 2), flags), Path("/run/rclone.conf"), RC)
    settings = Settings.model_construct(
        remotes={"cs": RemoteSettings(type="s3")},
        mounts={},
        control=ControlSettings(socket=Path("/run/mountd/mountd.sock")),
        state=Path("/var/lib/mountd"),
        runtime=Path("/run/mountd"),
    )
    argv = upload_command(settings, "cs:bkt", launch, {}).argv
    assert {"--rc-server-read-timeout=0", "--rc-server-write-timeout=0"} <= set(argv)
