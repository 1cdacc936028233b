"""What install and uninstall do with each file, by what is there and by what an earlier install made."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.install import plan
from mountd.install.plan import InstallAction, InstallRecord, InstallStep, digest

UNIT, CONFIG = "etc/systemd/system/mountd.service", "etc/mountd/mountd.yaml"
NEW, OLD, EDITED = b"new", b"old", b"edited"


@pytest.mark.parametrize(
    ("made", "there", "action"),
    [
        (None, None, InstallAction.WRITE),
        (None, NEW, InstallAction.SAME),
        (None, EDITED, InstallAction.REFUSE),
        (OLD, None, InstallAction.WRITE),
        (OLD, OLD, InstallAction.REPLACE),
        (OLD, NEW, InstallAction.SAME),
        (OLD, EDITED, InstallAction.KEEP),
        (NEW, NEW, InstallAction.SAME),
        (NEW, EDITED, InstallAction.KEEP),
    ],
)
def test_a_file(made: bytes | None, there: bytes | None, action: InstallAction) -> None:
    record = InstallRecord({UNIT: digest(made)} if made else {})
    seen = {UNIT: digest(there)} if there else {}
    (step,) = plan.install({UNIT: NEW}, record, seen, if_absent=[])
    assert step.action is action


@pytest.mark.parametrize("made", [None, OLD])
@pytest.mark.parametrize("there", [EDITED, OLD])
def test_a_configuration_that_is_there_is_nobodys_to_replace(made: bytes | None, there: bytes) -> None:
    record = InstallRecord({CONFIG: digest(made)} if made else {})
    (step,) = plan.install({CONFIG: NEW}, record, {CONFIG: digest(there)}, if_absent=[CONFIG])
    assert step.action is InstallAction.KEEP


@pytest.mark.parametrize(
    ("there", "configurations", "data"),
    [
        (["var/lib/mountd"], [], ["var/lib/mountd"]),
        (["var/lib/mountd-node"], ["mountd.yaml"], []),
        (["var/lib/mountd-a", "var/log/mountd-a"], ["a.yaml"], ["var/lib/mountd-a", "var/log/mountd-a"]),
        (["var/lib/mountd-a-b"], ["a.yaml"], []),
        (["var/lib/mountd-a"], ["a.yaml.bak", "installed.json"], []),
        ([], ["a.yaml"], []),
    ],
)
def test_data_are_what_a_configuration_names(there: list[str], configurations: list[str], data: list[str]) -> None:
    assert plan.data(["var/lib/mountd", "var/log/mountd"], there, configurations) == data


@pytest.mark.parametrize(
    ("unit", "file"),
    [
        ("mountd.service", "mountd.service"),
        ("mountd@.service", "mountd@.service"),
        ("mountd@gpu1.service", "mountd@.service"),
        ("mountd-ready@a.b.service", "mountd-ready@.service"),
    ],
)
def test_the_file_of_a_unit(unit: str, file: str) -> None:
    assert plan.template(unit) == file


def test_only_units_that_are_there_are_stopped() -> None:
    assert plan.stopped(["mountd@.service", "mountd.service"]) == ["mountd.service", "mountd@*.service"]
    assert plan.stopped([]) == []


def test_what_this_version_no_longer_has_is_removed_unless_somebody_changed_it() -> None:
    record = InstallRecord({"a": digest(OLD), "b": digest(OLD), "c": digest(OLD)})
    steps = plan.install({}, record, {"a": digest(OLD), "b": digest(EDITED)}, if_absent=[])
    assert {step.path: step.action for step in steps} == {
        "a": InstallAction.REMOVE,
        "b": InstallAction.KEEP,
        "c": InstallAction.SAME,
    }


@pytest.mark.parametrize(
    ("made", "there", "action"),
    [
        (None, None, InstallAction.LINK),
        (None, "/opt/new", InstallAction.SAME),
        (None, "/opt/other", InstallAction.REFUSE),
        (None, "", InstallAction.REFUSE),
        ("/opt/old", "/opt/old", InstallAction.LINK),
        ("/opt/old", "/opt/other", InstallAction.REFUSE),
    ],
)
def test_the_link_to_the_program(made: str | None, there: str | None, action: InstallAction) -> None:
    record = InstallRecord(links={"bin": made} if made else {})
    assert plan.link("bin", "/opt/new", record, there).action is action


def test_uninstall_takes_what_it_made_the_deepest_directory_last_but_one() -> None:
    record = InstallRecord({"a/b/file": digest(OLD), "a/edited": digest(OLD)}, {"bin": "/opt"}, ("a", "a/b"), True)
    seen = {"a/b/file": digest(OLD), "a/edited": digest(EDITED)}
    steps = plan.uninstall(record, seen, {"bin": "/opt"})
    assert [(step.action, step.path) for step in steps] == [
        (InstallAction.REMOVE, "a/b/file"),
        (InstallAction.KEEP, "a/edited"),
        (InstallAction.REMOVE, "bin"),
        (InstallAction.REMOVE, "a/b"),
        (InstallAction.REMOVE, "a"),
    ]
    assert plan.uninstall(record, seen, {"bin": "/elsewhere"})[2].action is InstallAction.KEEP
    assert plan.uninstall(record, seen, {}, keep_changed=False)[1].action is InstallAction.REMOVE
    assert plan.uninstall(InstallRecord(), {}, {}) == []


def test_the_directories_above() -> None:
    assert plan.parents(["a/b/c", "a/d", "e"]) == ["a", "a/b"]


contents = st.sampled_from([OLD, NEW, EDITED])
disks = st.dictionaries(st.sampled_from("abcd"), contents)


@given(before=disks, wanted=disks, later=disks)
def test_what_was_there_before_is_there_after(
    before: dict[str, bytes], wanted: dict[str, bytes], later: dict[str, bytes]
) -> None:
    """Install, install of another version, uninstall: nobody else's file is changed, nothing of ours is left."""
    disk, record = dict(before), InstallRecord()
    for version in (wanted, later):
        steps = plan.install(version, record, seen(disk), if_absent=["d"])
        if any(step.action is InstallAction.REFUSE for step in steps):
            continue
        record = plan.recorded(steps, version, record, linked={})
        for step in steps:
            carry_out(step, disk, version)
        again = plan.install(version, record, seen(disk), if_absent=["d"])
        assert {step.action for step in again} <= {InstallAction.SAME, InstallAction.KEEP}, (
            "a second run changes nothing"
        )
    for step in plan.uninstall(dataclasses.replace(record, directories=()), seen(disk), {}):
        carry_out(step, disk, {})
    assert disk == before


def seen(disk: dict[str, bytes]) -> dict[str, str]:
    return {path: digest(content) for path, content in disk.items()}


def carry_out(step: InstallStep, disk: dict[str, bytes], version: dict[str, bytes]) -> None:
    if step.action in (InstallAction.WRITE, InstallAction.REPLACE):
        disk[step.path] = version[step.path]
    elif step.action is InstallAction.REMOVE:
        disk.pop(step.path, None)
