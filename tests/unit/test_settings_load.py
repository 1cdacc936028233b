"""Files → settings: defaults and their places, the files we ship, missing files, and secrets that are not there."""

from __future__ import annotations

import copy
import errno
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.errors import CannotStart, ConfigError, Problem
from mountd.settings.control_socket import named_in
from mountd.settings.load import Places, check_secrets, config_path, load, parse, places
from mountd.settings.secret import SecretRef
from mountd.settings.units import Limit, Size
from mountd.settings.words import MAX_PROBLEMS

CONFIG = Path(__file__).parents[2] / "config"
PLACES = Places(Path("/var/lib/mountd"), Path("/var/cache/mountd"), Path("/run/mountd"))
SMALL = """\
remotes: {store: {type: s3, endpoint: "http://x", secret_access_key: {file: SECRET}}}
mounts: {storage: {remote: "store:data", path: /mnt/storage}}
apps: {webui: {command: [x], environment: {A_TOKEN: {env: MOUNTD_TEST_TOKEN}}}}
"""


@pytest.mark.parametrize("name", ["mountd.yaml", "glm-tts.yaml", "demo.yaml"])
def test_the_files_we_ship_are_good(name: str) -> None:
    loaded = load(CONFIG / name, places=PLACES)
    assert loaded.warnings == ()
    assert loaded.source == CONFIG / name
    assert (CONFIG / name).read_text().startswith("# yaml-language-server: $schema=./mountd.schema.json\n")


@pytest.mark.parametrize("name", ["mountd.yaml", "glm-tts.yaml"])
def test_what_we_ship_runs_on_debian_and_not_as_root(name: str) -> None:
    """Debian has no `python`; whom the app runs as is a line to look at."""
    for app in load(CONFIG / name, places=PLACES).settings.apps.values():
        ready = app.ready.command if app.ready and app.ready.command else app.command
        assert (app.command[0], ready[0]) == ("python3", "python3")
        assert app.user == "tts"
    (line,) = [line for line in (CONFIG / name).read_text().splitlines() if line.strip().startswith("user:")]
    assert "<-- CHANGE" in line


def test_what_the_main_file_means() -> None:
    settings = load(CONFIG / "mountd.yaml", places=PLACES).settings
    storage, webui = settings.mounts["storage"], settings.apps["webui"]
    assert settings.remotes["compshare"].options["secret_access_key"] == SecretRef(
        file=Path("/etc/mountd/secrets/secret_key")
    )
    assert storage.cache.max_size == Size(30 * 1024**3)
    assert storage.cache.min_free == Size(percent=5)
    assert (storage.health.interval, storage.health.timeout, storage.health.failures, storage.health.backend) == (
        1,
        2,
        2,
        15,
    )
    assert webui.command == ["python3", "webui.py", "--port", "7860", "--host", "0.0.0.0", "--model_dir", "./cache_hub"]
    assert webui.environment["HF_HUB_OFFLINE"] == "1"
    assert webui.stop.signal is signal.SIGINT
    assert webui.restart.limit == Limit(5, 600)
    assert settings.mounts_of(webui) == ["storage"]


def test_defaults_hang_on_the_places_and_on_each_other() -> None:
    settings = parse(SMALL.replace("SECRET", "/s"), "x.yaml", PLACES).settings
    assert settings.state == Path("/var/lib/mountd")
    assert settings.runtime == Path("/run/mountd")
    assert settings.control.socket == Path("/run/mountd/mountd.sock")
    assert settings.mounts["storage"].cache.dir == Path("/var/cache/mountd/storage")
    moved = parse(
        SMALL.replace("SECRET", "/s") + "runtime: /run/other\ncontrol: {group: mountd}\n", "x.yaml", PLACES
    ).settings
    assert moved.control.socket == Path("/run/other/mountd.sock")


def test_empty_sections_count_as_not_written() -> None:
    empty = "models:\nhttp:\nlog:\ncontrol:\nstate:\n"
    text = SMALL.replace("SECRET", "/s").replace(
        "path: /mnt/storage", "path: /mnt/storage, cache: , health: , options: "
    )
    assert (
        parse(text + empty, "x.yaml", PLACES).settings
        == parse(SMALL.replace("SECRET", "/s"), "x.yaml", PLACES).settings
    )


WHOLE: dict[str, Any] = {
    "remotes": {"s": {"type": "s3", "endpoint": "http://x"}},
    "mounts": {"m": {"remote": "s:b", "path": "/mnt/m"}},
    "models": {"h": {"mount": "m", "directory": "h_{version}", "link": "/srv/h", "version": "v1"}},
    "apps": {"w": {"command": ["x"]}},
}


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("", ("models", "apps", "rclone", "http", "log", "control", "state", "runtime")),
        ("mounts", ("options", "health", "cache")),
        ("models", ("required", "warm", "sync", "watch", "gates")),
        ("apps", ("environment", "needs", "ready", "stop", "restart")),
    ],
)
def test_each_key_that_may_be_left_empty(section: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        data = copy.deepcopy(WHOLE)
        at = next(iter(data[section].values())) if section else data
        at.pop(key, None)
        left_out = parse(yaml.safe_dump(data), "x.yaml", PLACES).settings
        at[key] = None
        assert parse(yaml.safe_dump(data), "x.yaml", PLACES).settings == left_out, key


def test_text_stays_text_and_flags_get_one_spelling() -> None:
    text = """\
remotes: {store: {type: s3, endpoint: "http://x", force_path_style: true}}
mounts:
  storage:
    remote: store:data
    path: /mnt/storage
    umask: 022
    allow_other: true
    options: {--vfs_read_ahead: 512M, links: false, async-read: true, header: [a, b], n: 022}
models: {hub: {mount: storage, directory: "{version}", link: /srv/hub, version: 1.10}}
apps: {webui: {command: [x, --port, 7860], environment: {ON: on, N: 010, T: true}}}
"""
    settings = parse(text, "x.yaml", PLACES).settings
    assert settings.mounts["storage"].umask == 0o022
    assert settings.mounts["storage"].options == {
        "vfs-read-ahead": "512M",
        "links": False,
        "async-read": True,
        "header": ["a", "b"],
        "n": "022",
    }
    assert settings.remotes["store"].options["force_path_style"] == "true"
    assert settings.models["hub"].version == "1.10"
    assert settings.apps["webui"].command == ["x", "--port", "7860"]
    assert settings.apps["webui"].environment == {"ON": "on", "N": "010", "T": "true"}


@pytest.mark.parametrize(
    ("euid", "environ", "expected"),
    [
        (0, {"HOME": "/root", "XDG_STATE_HOME": "/x"}, ("/var/lib/mountd", "/var/cache/mountd", "/run/mountd")),
        (7, {"HOME": "/home/a"}, ("/home/a/.local/state/mountd", "/home/a/.cache/mountd", "/tmp/mountd-7")),
        (
            7,
            {"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c", "XDG_RUNTIME_DIR": "/r"},
            ("/s/mountd", "/c/mountd", "/r/mountd"),
        ),
        (
            7,
            {"HOME": "/h", "XDG_STATE_HOME": "relative", "XDG_CACHE_HOME": ""},
            ("/h/.local/state/mountd", "/h/.cache/mountd", "/tmp/mountd-7"),
        ),
        (7, {}, ("/tmp/mountd-7/state", "/tmp/mountd-7/cache", "/tmp/mountd-7")),
        (
            7,
            {
                "HOME": "/h",
                "XDG_RUNTIME_DIR": "/r",
                "STATE_DIRECTORY": "/var/lib/a",
                "RUNTIME_DIRECTORY": "/run/a:/run/b",
            },
            ("/var/lib/a", "/h/.cache/mountd", "/run/a"),
        ),
        (0, {"CACHE_DIRECTORY": "/fast", "STATE_DIRECTORY": "relative"}, ("/var/lib/mountd", "/fast", "/run/mountd")),
    ],
)
def test_places(euid: int, environ: dict[str, str], expected: tuple[str, str, str]) -> None:
    assert places(euid, environ) == Places(*map(Path, expected))


def test_what_is_written_wins_over_the_directories_of_the_unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("STATE", "RUNTIME", "CACHE"):
        monkeypatch.setenv(f"{name}_DIRECTORY", f"/unit/{name.lower()}")
    mounts = "{m: {remote: 'r:/x', path: /m}, n: {remote: 'r:/x', path: /n, cache: {dir: /c}}}"
    text = f"remotes: {{r: {{type: local}}}}\nmounts: {mounts}\n"
    file = tmp_path / "mountd.yaml"
    file.write_text(text)
    settings = load(file).settings
    assert (settings.state, settings.runtime) == (Path("/unit/state"), Path("/unit/runtime"))
    assert settings.control.socket == Path("/unit/runtime/mountd.sock")
    assert [each.cache.dir for each in settings.mounts.values()] == [Path("/unit/cache/m"), Path("/c")]
    file.write_text(f"{text}state: /s\nruntime: /r\n")
    settings = load(file).settings
    assert (settings.state, settings.control.socket) == (Path("/s"), Path("/r/mountd.sock"))


def test_which_file() -> None:
    assert config_path("a.yaml", {"MOUNTD_CONFIG": "/b.yaml"}) == Path("a.yaml")
    assert config_path(None, {"MOUNTD_CONFIG": "/b.yaml"}) == Path("/b.yaml")
    assert config_path(None, {"MOUNTD_CONFIG": ""}) == Path("/etc/mountd/mountd.yaml")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    for path, cause, command in [
        (missing, "no such file or directory", "mountd config check -c FILE"),
        (tmp_path, "is a directory", f"mountd config check -c {tmp_path}/mountd.yaml"),
    ]:
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.exit_code == 2
        assert str(caught.value.source) == str(path)
        assert caught.value.problems == [Problem("", 0, cause)]
        assert caught.value.hint.endswith(f": {command}")
        assert (f"config/mountd.yaml to {path}" in caught.value.hint) is (path == missing)
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError) as caught:
        load(bad)
    (problem,) = caught.value.problems
    assert (problem.path, problem.line, "UTF-8" in problem.text) == ("", 1, True)


def test_what_to_do_about_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "pipe")
    assert "write it to a file" in caught.value.hint, "a daemon reads it again"
    denied = tmp_path / "denied.yaml"
    denied.write_text(SMALL)

    def deny(path: str, *_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with monkeypatch.context() as refusing:
        refusing.setattr(os, "open", deny)  # as root nothing is ever denied
        with pytest.raises(ConfigError) as caught:
            load(denied)
        assert f"uid {os.geteuid()} " in caught.value.hint
        assert named_in(denied) == "", "another place is asked"
        with pytest.raises(CannotStart) as refused:
            SecretRef(file=denied).read()
        assert f"uid {os.geteuid()} " in refused.value.hint


def test_a_stream_is_read_up_to_a_limit_as_well(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="1 MiB"):
        load(tmp_path / "large", streams=True)


def test_secrets_at_places_that_are_wrong_already_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may lie on a mount that hangs."""
    monkeypatch.delenv("MOUNTD_TEST_TOKEN", raising=False)
    loaded = parse(SMALL.replace("SECRET", "/nonexistent/key"), "x.yaml", PLACES)
    key, token = ("remotes", "store", "secret_access_key"), ("apps", "webui", "environment", "A_TOKEN")
    for doubtful, named in (
        ((), [key, token]),
        ((key,), [token]),
        (((*key, "file"),), [token]),
        ((key[:2], token), [key]),
    ):
        found = check_secrets(loaded.settings, doubtful=doubtful)
        assert [each.path for each in found] == [".".join(place) for place in named], doubtful


def test_of_many_secrets_only_so_many_are_looked_for() -> None:
    variables = {f"A_TOKEN_{number}": {"file": f"/nonexistent/{number}"} for number in range(MAX_PROBLEMS + 10)}
    data = {**WHOLE, "apps": {"w": {"command": ["x"], "environment": variables}}}
    settings = parse(yaml.safe_dump(data), "x.yaml", PLACES).settings
    assert len(check_secrets(settings)) == MAX_PROBLEMS + 1, "one more says that there are more"


def test_secrets_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOUNTD_TEST_TOKEN", raising=False)
    key = tmp_path / "key"
    loaded = parse(SMALL.replace("SECRET", str(key)), "x.yaml", PLACES)
    found = check_secrets(loaded.settings, loaded.lines)
    assert [(each.line, each.path) for each in found] == [
        (1, "remotes.store.secret_access_key"),
        (3, "apps.webui.environment.A_TOKEN"),
    ]
    assert f"{key}: no such file or directory" in found[0].text
    assert "MOUNTD_TEST_TOKEN" in found[1].text
    key.write_text("abc\nxyz\n")
    monkeypatch.setenv("MOUNTD_TEST_TOKEN", "two\nlines are fine in a variable")
    (problem,) = check_secrets(loaded.settings)
    assert (problem.line, problem.path) == (0, "remotes.store.secret_access_key")
    assert f"{{file: {key}}}" in problem.text
    key.write_text("abc\r\n")
    assert check_secrets(loaded.settings) == []
    assert SecretRef(file=key).read() == "abc"


PATHS = """\
remotes: {{store: {{type: s3, endpoint: "http://x"}}}}
mounts: {{storage: {{remote: "{remote}", path: "{path}"}}}}
models: {{hub: {{mount: storage, directory: "{directory}", link: "{link}", version: v1, required: ["{required}"]}}}}
"""
STRAIGHT = {
    "remote": "store:data/prefix",
    "path": "/mnt/storage",
    "directory": "hub/x_{version}",
    "link": "/srv/hub",
    "required": "models/gpt.pth",
}


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("required", "./models/gpt.pth"), ("required", "models//gpt.pth"), ("required", "models/./gpt.pth//"),
        ("directory", "./hub/x_{version}"), ("directory", "hub//x_{version}/"), ("directory", "hub/./x_{version}/."),
        ("path", "//mnt/storage"), ("path", "/mnt//./storage/"), ("link", "//srv/hub/"), ("link", "/srv/./hub"),
        ("remote", "store:data/prefix/"), ("remote", "store:data//prefix"), ("remote", "store:./data/./prefix/."),
    ],
)  # fmt: skip
def test_paths_are_what_the_file_system_calls_them(key: str, written: str) -> None:
    """Or they would be valid, and never found."""
    assert parsed_paths(**{key: written}) == parsed_paths()


def parsed_paths(**changes: str) -> tuple[str, ...]:
    settings = parse(PATHS.format_map(STRAIGHT | changes), "x", PLACES).settings
    mount, model = settings.mounts["storage"], settings.models["hub"]
    return mount.remote, str(mount.path), model.directory, str(model.link), *model.required


@pytest.mark.parametrize(
    ("remote", "is_"), [("store:", "store:"), ("store:/", "store:/"), ("store:/srv//x", "store:/srv/x")]
)
def test_a_remote_keeps_what_means_something(remote: str, is_: str) -> None:
    assert parsed_paths(remote=remote)[0] == is_


@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("required", "../x"), ("required", "x/../y"), ("required", "."), ("required", "./"), ("required", "//"),
        ("directory", "../x_{version}"), ("directory", "x/../{version}"), ("remote", "store:data/../x"),
        ("path", "/mnt/../x"), ("link", "/srv/x/.."),
    ],
)  # fmt: skip
def test_paths_that_lead_elsewhere_are_refused(key: str, written: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parsed_paths(**{key: written})
    [problem] = refused.value.problems
    assert problem.path.rpartition(".")[2].partition("[")[0] == key
