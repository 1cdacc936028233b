"""A configuration that cannot be used: `run` and `config check` say where, and what would be right."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.not_ready import assert_refused, assert_refuses_to_start

SECRET = "mountd-test-secret-0001"


@pytest.fixture
def unused() -> Iterator[Daemon]:
    """A daemon that never gets as far as asking its bucket."""
    with Daemon("http://127.0.0.1:9", "MOUNTDTESTKEY0001", SECRET) as daemon:
        yield daemon


def both(daemon: Daemon, *words: str, environment: dict[str, str] | None = None) -> None:
    """`config check` and `run` refuse the file as it stands, with exit code 2 and these words."""
    for command in (("config", "check"), ("run",)):
        result = daemon.cli(*command, "-c", str(daemon.config_file), environment=environment)
        assert_refused(result, 2, str(daemon.config_file), *words)
        assert SECRET not in result.err
    assert not (daemon.root / "state").exists(), "nothing may be touched for a file that cannot be used"


@pytest.mark.shown_by("bracket")
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", ""),
        ("- remotes\n- mounts\n", "line 1: "),
        ("remotes:\n  store: {type: s3\nmounts: {}\n", "line 2: "),
        ("remotes:\n\tstore: x\n", "line 2: "),
        ('remotes:\n  store: "type\n', "line 2: "),
        ("remotes:\n  store: type: s3\n", "line 2: "),
        ("remotes:\n  a: 1\n b: 2\n", "line 3: "),
        ("remotes: {}\n---\nmounts: {}\n", "line 2: "),
        ("remotes: !!python/object:os.system {}\n", "line 1: "),
    ],
    ids=["empty", "list", "bracket", "tab", "quote", "colon", "indentation", "documents", "tag"],
)
@pytest.mark.thorough
def test_broken_yaml(unused: Daemon, text: str, place: str) -> None:
    unused.config_file.write_text(text)
    both(unused, place)


@pytest.mark.thorough
def test_a_file_that_is_no_text(unused: Daemon) -> None:
    unused.config_file.write_bytes(b"remotes:\n  store: \xff\xfe\n")
    both(unused, "line 2: ")


@pytest.mark.thorough
def test_no_file_and_a_directory(unused: Daemon) -> None:
    both(unused, os.strerror(errno.ENOENT).lower())
    unused.config_file.mkdir()
    both(unused, os.strerror(errno.EISDIR).lower())


@pytest.mark.thorough
def test_duplicate_and_unknown_keys_all_at_once(unused: Daemon) -> None:
    text = unused.write_config().read_text()
    text = text.replace("mounts:\n", "mountz: {}\nmounts:\n", 1)
    text = text.replace("    version: v23\n", "    version: v23\n    version: v22\n    requierd: []\n")
    text = text.replace("    path: ", "    pth: ")
    unused.config_file.write_text(text)
    line = {part: number for number, part in enumerate(text.splitlines(), 1)}
    first, second = line["    version: v23"], line["    version: v22"]
    both(
        unused,
        ": 5 ",
        f"line {line['mountz: {}']}: mountz: ",
        "'mounts'",
        f"line {second}: models.cache_hub.version: ",
        f"line {first}",
        f"line {second + 1}: models.cache_hub.requierd: ",
        "'required'",
        ": mounts.storage.pth: ",
        "'path'",
        "mounts.storage.path: ",
    )


@pytest.mark.shown_by("a/b")
@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "latest",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("../x", "..", "", "v" * 65)),
    ],
)
@pytest.mark.thorough
def test_a_version_that_cannot_be_one(unused: Daemon, name: str) -> None:
    unused.config["models"]["cache_hub"]["version"] = name
    line = unused.write_config().read_text().splitlines().index(f"    version: {name or repr('')}") + 1
    both(unused, f"line {line}: models.cache_hub.version: ", repr(name) if name else "")


@pytest.mark.thorough
@pytest.mark.shown_by("control")
@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("control", "socket"), "/tmp/" + "x" * 120),
        (("runtime",), "/tmp/" + "x" * 80),
        (("control", "socket"), "/tmp/" + "声" * 40),
    ],
    ids=["control", "runtime", "bytes"],
)
def test_a_socket_path_that_is_too_long(unused: Daemon, keys: tuple[str, ...], value: str) -> None:
    place = unused.config
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    unused.write_config()
    both(unused, f"{'.'.join(keys)}: ", "100")


@pytest.mark.shown_by("file")
@pytest.mark.parametrize(
    "reference",
    [{"file": "/nonexistent/secret"}, {"env": "MOUNTD_T_UNSET"}, {"env": "MOUNTD_T_EMPTY"}],
    ids=["file", "unset", "empty"],
)
def test_config_check_names_a_secret_that_is_missing(unused: Daemon, reference: dict[str, str]) -> None:
    unused.config["remotes"]["store"]["secret_access_key"] = reference
    unused.write_config()
    result = unused.cli(*("config", "check", "-c", str(unused.config_file)), environment={"MOUNTD_T_EMPTY": ""})
    assert_refused(result, 2, "remotes.store.secret_access_key: ", *reference.values())


@pytest.mark.thorough
def test_config_check_leaves_a_credential_to_the_unit(unused: Daemon) -> None:
    """Where systemd passed none there is nothing to report; where it passed others, this one is missing."""
    unused.config["remotes"]["store"]["secret_access_key"] = {"credential": "secret_key"}
    unused.config["mounts"]["storage"]["options"] = {"checkers": "16", "timeout": "1h"}
    words = ("config", "check", "-c", str(unused.write_config()), "-o", "json")
    result = unused.cli(*words)
    assert result.code == 0, result
    assert [each["path"] for each in result.json["warnings"]] == [
        "remotes.store.secret_access_key",
        "mounts.storage.options.checkers",
        "mounts.storage.options.timeout",
    ]
    assert all(each["line"] for each in result.json["warnings"])
    result = unused.cli(*words, environment={"CREDENTIALS_DIRECTORY": str(unused.root)})
    assert result.code == 2
    (problem,) = result.json["problems"]
    assert problem["path"] == "remotes.store.secret_access_key"
    assert "LoadCredential=secret_key:" in problem["text"]


def test_a_secret_in_the_open_is_refused_and_not_repeated(unused: Daemon) -> None:
    unused.config["remotes"]["store"]["secret_access_key"] = SECRET
    unused.write_config()
    both(unused, "remotes.store.secret_access_key: ", "{env: NAME}")


@pytest.mark.fuse
@pytest.mark.thorough
def test_a_file_broken_later_leaves_what_is_live_alone(daemon: Daemon) -> None:
    daemon.start_ready()
    text = daemon.config_file.read_text()
    daemon.config_file.write_text(f"{text}broken: [\n")
    shown = daemon.cli("--socket=", "-c", str(daemon.config_file), "status", "-o", "json")  # now it is needed most
    assert json.loads(shown.out)["models"]["cache_hub"]["current"] == "v23"
    assert daemon.stop() == 0
    target = os.readlink(daemon.link)
    daemon.config["models"]["cache_hub"]["version"] = "../x"
    assert_refuses_to_start(daemon, 2, "'../x'")
    assert os.readlink(daemon.link) == target
    daemon.config["models"]["cache_hub"]["version"] = "v23"
    assert daemon.start_ready()["models"]["cache_hub"]["current"] == "v23"


@pytest.mark.thorough
@pytest.mark.fuse
def test_a_second_daemon_on_the_same_state_directory(daemon: Daemon) -> None:
    before = daemon.start_ready()
    with Daemon(daemon.endpoint, daemon.access_key_id, daemon.secret_access_key) as second:
        second.config["state"] = daemon.config["state"]
        said = assert_refuses_to_start(second, 6, f"(pid {before['pid']})")
        assert f"mountd --socket {daemon.socket} status" in said
    after = daemon.status()
    assert after["ready"]
    for kind, name in (("mounts", "storage"), ("apps", "webui")):
        assert (after[kind][name]["pid"], after[kind][name]["restarts"]) == (before[kind][name]["pid"], 0)
    assert daemon.page()["version"] == "v23"


@pytest.mark.fuse
def test_a_second_daemon_on_the_same_control_socket(daemon: Daemon) -> None:
    daemon.start_ready()
    with Daemon(daemon.endpoint, daemon.access_key_id, daemon.secret_access_key) as second:
        second.config["control"]["socket"] = str(daemon.socket)
        assert_refuses_to_start(second, 6, str(daemon.socket))
    assert daemon.status()["ready"]


def test_a_state_directory_that_is_a_file(unused: Daemon) -> None:
    state = Path(unused.config["state"])
    state.write_text("precious")
    assert_refuses_to_start(unused, 1, str(state))
    assert state.read_text() == "precious"
