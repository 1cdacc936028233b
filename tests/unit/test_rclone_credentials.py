"""The files by which rclone takes rotated keys: which remotes have them, what they say, and the script run for real."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from datetime import datetime
from pathlib import Path, PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.mount import bucket, engine
from mountd.rclone import conf, conf_file, credentials
from mountd.rclone.conf import render_masked
from mountd.settings import environment
from mountd.settings.secret import SecretRef

DIRECTORY = PurePath("/run/mountd/private")
S3 = {"type": "s3", "provider": "Other", "access_key_id": "AKIA", "secret_access_key": "hunter2"}


def test_the_keys_leave_rclone_conf() -> None:
    remotes = {"store": S3 | {"session_token": "t0ken"}, "disk": {"type": "local"}, "b": S3}
    split = credentials.split(remotes, DIRECTORY)
    assert split.remotes == {
        "disk": {"type": "local"},
        **{
            name: {
                "type": "s3",
                "provider": "Other",
                "env_auth": "true",
                "profile": f"mountd-{name}",
                "shared_credentials_file": "/run/mountd/private/aws.config",
            }
            for name in ("store", "b")
        },
    }
    keys = {"access_key_id": "AKIA", "secret_access_key": "hunter2"}
    assert split.keys == {"store": keys | {"session_token": "t0ken"}, "b": keys}
    text = conf.render(split.remotes) + credentials.render_config(split.keys, DIRECTORY) + credentials.SCRIPT
    assert "hunter2" not in text
    assert "t0ken" not in text
    assert text.count("\ncredential_process = ") == 2


@pytest.mark.parametrize(
    "options",
    [
        {"type": "s3"},
        {"type": "s3", "access_key_id": "AKIA"},
        S3 | {"secret_access_key": ""},
        S3 | {"type": "b2"},
        S3 | {"env_auth": "true"},
        S3 | {"env_auth": "false"},
        S3 | {"profile": "mine"},
        S3 | {"shared_credentials_file": "/etc/aws"},
        S3 | {"v2_auth": "true"},
        S3 | {"v2_auth": "1"},
        S3 | {"v2_auth": "T"},
        S3 | {"region": "other-v2-signature"},
    ],
)
def test_who_decides_otherwise_is_left_alone(options: dict[str, str]) -> None:
    split = credentials.split({"r": options}, DIRECTORY)
    assert split.remotes == {"r": options}
    assert split.keys == {}


def test_an_empty_token_is_none_and_false_is_no_old_signature() -> None:
    split = credentials.split({"r": S3 | {"session_token": "", "v2_auth": "false"}}, DIRECTORY)
    assert "session_token" not in split.keys["r"]
    assert split.remotes["r"]["v2_auth"] == "false"


def test_references_can_be_split_as_well_as_values() -> None:
    reference = SecretRef(env="KEY")
    split = credentials.split({"r": S3 | {"secret_access_key": reference}}, DIRECTORY)
    assert split.keys["r"]["secret_access_key"] is reference
    assert "{env: KEY}" in credentials.render_keys(split.keys["r"])
    assert "secret" not in render_masked(split.remotes).partition("\n")[2]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_any_path_is_one_word_without_a_comment(name: str) -> None:
    directory = PurePath("/run") / name.replace("/", "_")
    text = credentials.render_config(["store"], directory)
    _, command = text.rstrip("\n").split("credential_process = ")
    assert shlex.split(command) == ["/bin/sh", f"{directory}/aws-credentials.sh", "store"]
    assert " #" not in command
    assert " ;" not in command


SHELLS = ["sh", "bash", "dash", "busybox"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("keys", [S3, S3 | {"secret_access_key": "a\"b\\c$d`e'f%sü\\n", "session_token": "x" * 4000}])
def test_the_script_prints_keys_that_are_about_to_expire(tmp_path: Path, shell: str, keys: dict[str, str]) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here")
    directory = tmp_path / "it's a # place"
    directory.mkdir()
    given = credentials.split({"store": keys}, directory).keys["store"]
    (directory / credentials.SCRIPT_NAME).write_text(credentials.SCRIPT)
    (directory / credentials.keys_name("store")).write_text(credentials.render_keys(given))
    path = "/usr/bin:/bin"
    argv = [found]
    if shell == "busybox":  # its own tools, not the system's
        (tmp_path / "bin").mkdir()
        for tool in ("date", "sed"):
            (tmp_path / "bin" / tool).symlink_to(found)
        path, argv = str(tmp_path / "bin"), [found, "sh"]
    before = time.time()
    done = subprocess.run(
        [*argv, str(directory / credentials.SCRIPT_NAME), "store"],
        env={"PATH": path, "LD_PRELOAD": "", "TZ": "Asia/Shanghai", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    after = time.time()
    said = json.loads(done.stdout)
    expires = datetime.fromisoformat(said.pop("Expiration")).timestamp()
    assert int(before) + credentials.LIFE_S <= expires <= after + credentials.LIFE_S
    assert said == {"Version": 1} | {credentials.KEYS[option]: value for option, value in given.items()}


def test_the_script_fails_without_keys_instead_of_printing_half(tmp_path: Path) -> None:
    script = tmp_path / credentials.SCRIPT_NAME
    script.write_text(credentials.SCRIPT)
    done = subprocess.run(["/bin/sh", str(script), "store"], capture_output=True, check=False, timeout=60)
    assert done.returncode != 0
    script.with_name("aws-store.json").write_text(credentials.render_keys({"access_key_id": "A"}))
    (tmp_path / "date").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "date").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    argv = ["/bin/sh", str(script), "store"]
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60, env=environment)
    assert done.returncode != 0
    assert done.stdout == b""


def test_the_clock_of_the_script_is_not_one_that_was_preloaded(tmp_path: Path) -> None:
    """mountd may run under a faked clock, which its children inherit; rclone, linked statically, has the real one."""
    script = tmp_path / credentials.SCRIPT_NAME
    script.write_text(credentials.SCRIPT)
    script.with_name("aws-store.json").write_text(credentials.render_keys(S3))
    date = tmp_path / "date"
    date.write_text(f'#!/bin/sh\n[ -z "${{LD_PRELOAD+set}}" ] || exit 1\nexec {shutil.which("date")} "$@"\n')
    date.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LD_PRELOAD": ""}
    argv = ["/bin/sh", str(script), "store"]
    subprocess.run(argv, capture_output=True, check=True, timeout=60, env=environment)


def test_new_keys_are_in_use_within_seconds_and_old_ones_are_not_blamed_before() -> None:
    """What a rotation takes at most: until it is seen, has lain still, and rclone asks again."""
    assert bucket.SECRETS_INTERVAL_S + conf_file.SETTLED_S + credentials.LIFE_S <= 10.0
    assert conf_file.SETTLED_S < conf_file.SETTLING_LIMIT_S <= 10.0
    assert engine.RESIGNED_S >= credentials.LIFE_S > 0, "rclone has had the time to take the new ones"


@pytest.mark.parametrize(
    ("value", "takes"),
    [("true", True), ("True", True), ("1", True), ("t", True), ("false", False), ("0", False), ("", False)],
)
def test_which_remotes_look_for_their_keys_in_the_environment(value: str, takes: bool) -> None:
    assert credentials.takes_environment({"type": "s3", "env_auth": value}) is takes
    assert not credentials.takes_environment({"type": "s3"})


@pytest.mark.parametrize(
    ("kind", "variable"),
    [
        ("s3", "AWS_ACCESS_KEY_ID"),
        ("s3", "AWS_SECRET_ACCESS_KEY"),
        ("s3", "AWS_SESSION_TOKEN"),
        ("azureblob", "AZURE_CLIENT_SECRET"),
        ("azureblob", "AZURE_PASSWORD"),
        ("azureblob", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("swift", "OS_PASSWORD"),
        ("swift", "OS_AUTH_TOKEN"),
        ("swift", "OS_APPLICATION_CREDENTIAL_SECRET"),
        ("swift", "ST_KEY"),
    ],
)
def test_a_key_that_something_else_needs_as_well_is_taken_from_no_remote(kind: str, variable: str) -> None:
    assert variable in credentials.VARIABLES
    assert environment.of_rclone({variable: "x"}, [kind]) == {variable: "x"}
