"""What is shipped for containers agrees with the code: ports, paths, users, times, flags; and others can read it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from mountd.cache.uploads import SCAN_LIMIT_S
from mountd.daemon.shutdown import stop_times
from mountd.fuse.rights import Rights, container_flags
from mountd.notify import people
from mountd.settings.http import HttpSettings
from mountd.settings.load import DEFAULT_CONFIG, load, places
from mountd.settings.schema import MountSettings, Settings
from mountd.settings.units import parse_duration

TOP = Path(__file__).parents[2]
CONTAINERFILE = (TOP / "deploy/container/Containerfile").read_text()
COMPOSE = sorted((TOP / "deploy/compose").glob("*/compose.yaml"))
NAMES = [path.parent.name for path in COMPOSE]
BARE = Rights(
    uid=1,
    has_device=False,
    may_mount=False,
    no_new_privileges=False,
    profile="docker-default",
    in_container=True,
    in_unit=False,
)
OWN_PLACES = ("/var/lib/mountd", "/var/cache/mountd", "/run/mountd", "/mnt/mountd", "/srv/mountd")
DRAIN_S = MountSettings.model_fields["drain"].default


def instruction(name: str) -> list[str]:
    """What follows it, each time, in one line."""
    joined = re.sub(r"\\\n\s*", " ", CONTAINERFILE)
    return re.findall(rf"^{name} (.*)$", joined, re.MULTILINE)


def composed(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((TOP / "deploy/compose" / name / "compose.yaml").read_text())
    return found


def settings(name: str) -> Settings:
    loaded = load(TOP / "deploy/compose" / name / "config/mountd.yaml")
    assert loaded.warnings == ()
    return loaded.settings


def own_service(name: str) -> dict[str, Any]:
    """The one that runs mountd."""
    (found,) = (each for each in composed(name)["services"].values() if "build" in each)
    assert isinstance(found, dict)
    return found


# -- the image --------------------------------------------------------------------------------------------------------


def test_mountd_itself_is_process_one() -> None:
    assert [json.loads(line) for line in instruction("ENTRYPOINT")] == [["mountd"]]
    assert [json.loads(line) for line in instruction("CMD")] == [["run"]]
    assert instruction("USER")[-1] == "10001:10001", "a number: Kubernetes checks runAsNonRoot by it"
    assert instruction("EXPOSE") == [HttpSettings().listen.rpartition(":")[2]]


def test_the_base_is_pinned_and_can_be_replaced() -> None:
    assert re.search(r"^ARG BASE=\S+@sha256:[0-9a-f]{64}$", CONTAINERFILE, re.MULTILINE)
    assert [line.split()[0] for line in instruction("FROM")] == ["${BASE}", "base", "base"]


def test_what_it_says_of_places_is_what_mountd_takes() -> None:
    variables = dict(word.split("=", 1) for word in shlex.split(instruction("ENV")[0]))
    found = places(10001, variables)
    assert {str(path) for path in (found.state, found.cache, found.runtime)} <= {*OWN_PLACES}
    assert variables["container"], "by which messages name flags"
    made = instruction("RUN")[-1]
    for path in OWN_PLACES:
        assert f" {path} " in made


def test_its_health_is_a_command_that_there_is() -> None:
    (check,) = instruction("HEALTHCHECK")
    options, _, words = check.partition(" CMD ")
    found = json.loads(words)
    assert found[:3] == ["mountd", "wait", "--for"]
    within_s = parse_duration(found[found.index("--timeout") + 1])
    assert within_s < parse_duration(re.findall(r"--timeout=(\S+)", options)[0]), "it ends by itself"
    done = subprocess.run(
        [sys.executable, "-m", "mountd", "--socket", "/nowhere/mountd.sock", *found[1:], "--timeout", "1ms"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (4, 8), done.stderr


def test_what_it_is_built_from_reaches_the_builder() -> None:
    lines = (TOP / ".containerignore").read_text().splitlines()
    assert "*" in lines
    for line in lines:
        if line.startswith("!"):
            assert (TOP / line[1:]).exists()
    assert (TOP / ".dockerignore").resolve() == TOP / ".containerignore"
    project = (TOP / "pyproject.toml").read_text()
    for named in ("README.md", "LICENSE"):
        assert named in project
        assert f"!{named}" in lines


# -- compose ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", COMPOSE, ids=NAMES)
def test_a_validator_of_others_reads_it(path: Path) -> None:
    words = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_flags_are_those_that_mountd_would_name(name: str) -> None:
    service = own_service(name)
    written = [f"--device {device.partition(':')[0]}" for device in service["devices"]]
    written += [f"--cap-add {right}" for right in service["cap_add"]]
    written += [f"--security-opt {option}" for option in service["security_opt"]]
    assert " ".join(written) == container_flags(BARE)
    assert "privileged" not in service


@pytest.mark.parametrize("name", NAMES)
def test_a_stop_is_waited_for(name: str) -> None:
    """Also with a mount for outputs, which somebody adds."""
    grace_s = parse_duration(own_service(name)["stop_grace_period"])
    assert grace_s > stop_times(settings(name)).total_s + DRAIN_S + SCAN_LIMIT_S
    assert "init" not in own_service(name), "mountd is its own"


@pytest.mark.parametrize("name", NAMES)
def test_ports_are_those_of_the_configuration(name: str) -> None:
    found = settings(name)
    host, port = found.http.address
    assert host == "0.0.0.0", "published ports do not reach 127.0.0.1 of a container"
    services = composed(name)["services"].values()
    published = {int(each.rpartition(":")[2]) for service in services for each in service["ports"]}
    assert port in published
    addresses = (app.ready.http for app in found.apps.values() if app.ready and app.ready.http)
    assert {urlsplit(address).port for address in addresses} <= published
    assert f"127.0.0.1:{port}:{port}" in own_service(name)["ports"], "for this machine alone"


@pytest.mark.parametrize("name", NAMES)
def test_what_must_outlive_the_container_is_on_volumes(name: str) -> None:
    found = settings(name)
    given = {each.partition(":")[2].removesuffix(":ro") for each in own_service(name)["volumes"] if ":" in each}
    kept = [path for path in given if path.startswith("/var/")]
    assert sorted(kept) == ["/var/cache/mountd", "/var/lib/mountd"]
    for mount in found.mounts.values():
        assert mount.cache.dir.is_relative_to("/var/cache/mountd")
    assert str(DEFAULT_CONFIG.parent) in given, "the directory: a bind of the file alone would keep the old one"
    names = {each.partition(":")[0] for each in own_service(name)["volumes"] if isinstance(each, str)}
    assert {each for each in names if "/" not in each} <= {*composed(name)["volumes"]}


@pytest.mark.parametrize("name", NAMES)
def test_the_user_of_the_image_may_write_where_mountd_writes(name: str) -> None:
    found = settings(name)
    writable = [*OWN_PLACES, *own_service(name)["build"].get("args", {}).get("WRITABLE", "").split()]
    for path in [mount.path for mount in found.mounts.values()] + [model.link for model in found.models.values()]:
        assert str(path.parent) in writable
    assert [app.user for app in found.apps.values() if app.user] == [], "only root may change users"


@pytest.mark.parametrize("name", NAMES)
def test_secrets_are_files_that_both_name(name: str) -> None:
    named = {reference.file for _, reference in settings(name).secrets()}
    given = own_service(name)["secrets"]
    assert named == {Path("/run/secrets", each) for each in given}
    assert {*given} == {*composed(name)["secrets"]}


def test_beside_the_app_the_mount_reaches_it() -> None:
    services, found = composed("beside")["services"], settings("beside")
    (shared,) = (each for each in services["mountd"]["volumes"] if isinstance(each, dict))
    (seen,) = (each for each in services["index-tts"]["volumes"] if isinstance(each, dict))
    assert (shared["bind"]["propagation"], seen["bind"]["propagation"]) == ("rshared", "rslave")
    assert shared["source"] == shared["target"] == seen["source"] == seen["target"], "a link holds a whole path"
    for path in (found.mounts["storage"].path, found.models["cache_hub"].link):
        assert path.is_relative_to(shared["target"])
    assert found.mounts["storage"].allow_other is True
    assert services["index-tts"]["depends_on"]["mountd"]["condition"] == "service_healthy"
    assert str(found.models["cache_hub"].link) in services["index-tts"]["command"]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "beside"])
def test_a_gpu_comes_with_what_preflight_asks(name: str) -> None:
    (device,) = own_service(name)["deploy"]["resources"]["reservations"]["devices"]
    assert {"gpu", "utility"} <= {*device["capabilities"]}
    (app,) = settings(name).apps.values()
    assert app.preflight is not None
    assert app.preflight.gpu_memory is not None


# -- the page ---------------------------------------------------------------------------------------------------------

PAGE = (TOP / "docs/container.md").read_text()


def test_the_page_has_the_flags_and_the_codes_of_the_program() -> None:
    (run,) = re.findall(r"^docker run (.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert container_flags(BARE) in re.sub(r"\\\n\s*", " ", run)
    (timeout,) = re.findall(r"--stop-timeout (\d+)", run)
    assert int(timeout) == parse_duration(own_service("index-tts")["stop_grace_period"])
    source = "".join(path.read_text() for path in (TOP / "mountd").rglob("*.py"))
    tables = re.findall(r"^\| (?:without \| you see|reason) .*?(?=^[^|])", f"{PAGE}\n", re.MULTILINE | re.DOTALL)
    codes = {code for table in tables for code in re.findall(r"`([a-z]+-[a-z-]+)`", table)}
    assert {"gpu-memory", "no-fuse", "mount-refused", "preflight-failed"} <= codes
    assert [code for code in sorted(codes) if f'"{code}"' not in source] == []


def test_the_image_has_the_extras_that_are_asked_for() -> None:
    extras = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (default,) = (line.partition("=")[2].strip('"') for line in instruction("ARG") if line.startswith("EXTRAS="))
    (with_people,) = re.findall(r"EXTRAS=([\w,]+)", people.IN_IMAGE)
    assert {default, "notify"} == set(with_people.split(",")) == extras.keys()
    assert f"EXTRAS={with_people}" in CONTAINERFILE


def test_the_page_names_each_example_and_each_argument() -> None:
    assert {f"{name}/" for name in NAMES} <= {*re.findall(r"^\| `([\w-]+/)`", PAGE, re.MULTILINE)}
    for argument in {line.partition("=")[0].strip() for line in instruction("ARG")}:
        assert f"`{argument}`" in PAGE
