"""What this process lacks to mount with FUSE, and how it gets it: the kernel and fusermount3 only say no."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from mountd import container
from mountd.rclone.exits import ExitCause

SYS_ADMIN = 21
FUSE_DEVICE = "/dev/fuse"


@dataclass(frozen=True, slots=True)
class Rights:
    """`may_mount`: CAP_SYS_ADMIN can be had at all; `profile`: of AppArmor, "" where it enforces none."""

    uid: int
    has_device: bool
    may_mount: bool
    no_new_privileges: bool
    profile: str
    in_container: bool
    in_unit: bool


def look() -> Rights:
    status = _read("/proc/self/status")
    bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)", status, re.MULTILINE)
    in_container = container.is_here()
    return Rights(
        uid=os.geteuid(),
        has_device=os.path.exists(FUSE_DEVICE),
        may_mount=bounding is None or bool(int(bounding[1], 16) >> SYS_ADMIN & 1),
        no_new_privileges=re.search(r"^NoNewPrivs:\s*1", status, re.MULTILINE) is not None,
        profile=enforced(_read("/proc/self/attr/current")),
        in_container=in_container,
        in_unit="INVOCATION_ID" in os.environ and not in_container,
    )


def enforced(label: str) -> str:
    """The profile in what the kernel says of a process; empty where it enforces none."""
    name, _, mode = label.strip("\0\n ").rpartition(" ")
    return name if mode == "(enforce)" else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def container_flags(rights: Rights, *, device: bool = False) -> str:
    """Of `docker run` and its like, those that it lacks; `device`: that for /dev/fuse as well, although it is there."""
    lacks = [
        ("--device /dev/fuse", device or not rights.has_device),
        ("--cap-add SYS_ADMIN", not rights.may_mount),
        ("--security-opt apparmor=unconfined", bool(rights.profile)),
    ]
    return " ".join(flag for flag, is_lacking in lacks if is_lacking)


def explain_refusal(helper: str, rights: Rights) -> ExitCause:
    """`helper` are fusermount's words."""
    return ExitCause("mount-refused", f"cannot mount: {helper}", advise(helper, rights))


def advise(helper: str, rights: Rights) -> str:
    if "could not determine username" in helper:
        remedy = "add one, or run mountd as root or as a user that has one"
        if rights.in_container:
            remedy = "start the container with --user 0, or with a user of its image, such as --user mountd"
        return f"uid {rights.uid} has no entry in /etc/passwd, which fusermount3 asks for: {remedy}"
    if "mount_max" in helper:
        return "raise mount_max in /etc/fuse.conf, or unmount what is no longer needed"
    if not re.search("operation not permitted|permission denied", helper, re.IGNORECASE):
        return "`mountd doctor` tries a mount as well, and shows what is missing"
    if "/dev/fuse" in helper:
        return f"let uid {rights.uid} read and write /dev/fuse, or run mountd as root"
    if rights.no_new_privileges and rights.uid != 0:
        return (
            "fusermount3 cannot gain the right to mount: remove NoNewPrivileges=yes from the unit, and what implies it"
            " with User= (SystemCallFilter=, LockPersonality=, Restrict…=; a container's no-new-privileges, Kubernetes'"
            " allowPrivilegeEscalation: false), or run mountd as root"
        )
    if not rights.may_mount and rights.in_unit:
        return "CapabilityBoundingSet= of the unit must hold CAP_SYS_ADMIN"
    if flags := container_flags(rights):
        return f"start the container with {flags} (Kubernetes: securityContext.privileged: true)"
    return "something forbids it (a seccomp filter, SELinux, the rights at the mount point): `dmesg` may say which"
