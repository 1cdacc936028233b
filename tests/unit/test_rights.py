"""Why a mount is refused, and what to add: only what is not there already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mountd import container
from mountd.fuse.rights import Rights, advise, container_flags, enforced, explain_refusal, look
from mountd.rclone.exits import refusal

FREE = Rights(
    uid=0,
    has_device=True,
    may_mount=True,
    no_new_privileges=False,
    profile="",
    in_container=False,
    in_unit=False,
)
DENIED = "fusermount3: mount failed: Operation not permitted"


def test_the_helpers_words_are_found_in_what_rclone_said_last() -> None:
    fatal = "Fatal error: failed to mount FUSE fs: fusermount: exit status 1"
    assert refusal(f"{fatal}; before that: mount helper error: {DENIED}") == DENIED
    assert refusal(f"{fatal}; before that: mount helper error: {DENIED}; before that: other") == DENIED
    assert refusal(fatal) == ""
    assert refusal("") == ""
    assert refusal(f"Fatal error: no bucket; before that: mount helper error: {DENIED}") == ""


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({}, ""),
        ({"may_mount": False}, "--cap-add SYS_ADMIN"),
        (
            {"may_mount": False, "has_device": False, "profile": "docker-default"},
            "--device /dev/fuse --cap-add SYS_ADMIN --security-opt apparmor=unconfined",
        ),
        ({"profile": "docker-default"}, "--security-opt apparmor=unconfined"),
    ],
)
def test_only_flags_that_are_lacking_are_named(changes: dict[str, Any], flags: str) -> None:
    rights = replace(FREE, **changes)
    assert container_flags(rights) == flags
    if flags:
        assert f" {flags} " in explain_refusal(DENIED, rights).hint


@pytest.mark.parametrize(
    ("helper", "changes", "words"),
    [
        (DENIED, {"may_mount": False, "in_unit": True}, "CapabilityBoundingSet="),
        (DENIED, {"no_new_privileges": True, "uid": 7}, "NoNewPrivileges=yes"),
        (DENIED, {"no_new_privileges": True, "may_mount": False}, "--cap-add SYS_ADMIN"),
        (DENIED, {"in_unit": True}, "seccomp"),
        (DENIED, {"no_new_privileges": True}, "seccomp"),  # root needs no new ones
        ("fusermount3: mount failed: Permission denied", {"may_mount": False}, "--cap-add SYS_ADMIN"),
        (DENIED, {}, "seccomp"),
        ("fusermount3: could not determine username", {"uid": 54321}, "/etc/passwd"),
        ("fusermount3: could not determine username", {"uid": 54321, "in_container": True}, "--user 0"),
        ("fusermount3: failed to open /dev/fuse: Permission denied", {"uid": 7}, "uid 7 "),
        ("fusermount3: too many FUSE filesystems mounted; mount_max=N can be set", {}, "mount_max"),
        ("fusermount3: something new", {"may_mount": False}, "mountd doctor"),
    ],
)
def test_what_to_do(helper: str, changes: dict[str, Any], words: str) -> None:
    assert words in advise(helper, replace(FREE, **changes))


@pytest.mark.parametrize(
    ("environment", "in_container", "in_unit"),
    [
        ({}, False, False),
        ({"INVOCATION_ID": "x"}, False, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, True, False),
        ({"container": "oci"}, True, False),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "INVOCATION_ID": "x"}, True, False),
    ],
)
def test_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], in_container: bool, in_unit: bool
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(container, "MARKS", ())
        patched.setattr(os, "environ", environment)
        found = look()
    assert (found.in_container, found.in_unit, found.uid) == (in_container, in_unit, os.geteuid())


def test_a_container_is_known_by_its_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mark").touch()
    for sign in ("KUBERNETES_SERVICE_HOST", "container"):
        monkeypatch.delenv(sign, raising=False)
    assert "/.dockerenv" in container.MARKS
    for marks, expected in (("none",), False), (("none", "mark"), True):
        monkeypatch.setattr(container, "MARKS", [str(tmp_path / name) for name in marks])
        assert look().in_container is expected


ASK_KERNEL = """
import ctypes, json
from mountd.fuse.rights import SYS_ADMIN, look
CAPBSET_READ, CAPBSET_DROP, SET_NO_NEW_PRIVS, GET_NO_NEW_PRIVS = 23, 24, 38, 39
prctl = ctypes.CDLL(None).prctl
def rights():
    found = look()
    kernel = prctl(CAPBSET_READ, SYS_ADMIN), prctl(GET_NO_NEW_PRIVS, 0, 0, 0, 0)
    return [found.may_mount, found.no_new_privileges], kernel
before = rights()
prctl(CAPBSET_DROP, SYS_ADMIN)  # refused to who is not root
prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
print(json.dumps([before, rights()]))
"""


def test_what_this_process_may_is_what_the_kernel_answers_when_asked_another_way() -> None:
    done = subprocess.run([sys.executable, "-c", ASK_KERNEL], check=True, capture_output=True, text=True, timeout=60)
    for found, kernel in json.loads(done.stdout):
        assert found == [bool(each) for each in kernel]
    assert found[1] is True
    if os.geteuid() == 0:
        assert found[0] is False


@pytest.mark.parametrize(
    ("label", "profile"),
    [
        ("docker-default (enforce)\n", "docker-default"),
        ("a b//null-/usr/bin/x (enforce)\0", "a b//null-/usr/bin/x"),
        ("docker-default (complain)\n", ""),
        ("unconfined\n", ""),
        ("(enforce)", ""),
        ("", ""),
    ],
)
def test_only_a_profile_that_is_enforced_counts(label: str, profile: str) -> None:
    assert enforced(label) == profile
