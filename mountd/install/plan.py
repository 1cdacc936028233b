"""The steps to install mountd on a machine, or to remove it again: pure.

What install made is known by its record: the digest of each file as it was written. What somebody has changed since is
theirs, and so is what was there before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mountd.i18n import N_


class InstallAction(StrEnum):
    WRITE = N_("write")
    REPLACE = N_("replace")
    LINK = N_("link")
    SAME = N_("same")
    KEEP = N_("keep")
    REMOVE = N_("remove")
    MAKE = "make"
    RUN = N_("run")
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class InstallStep:
    """`path` is below the root, without a leading slash; of RUN the words of a command. `text`: why, if not clear, in
    English; of LINK its target."""

    action: InstallAction
    path: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class InstallRecord:
    """What install has made. Files with their digests, links with their targets, directories, and whether the user."""

    files: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    user: bool = False


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


CHANGED = N_("it was changed since mountd install wrote it")
FOREIGN = N_("it is there, and mountd install did not make it")


def install(
    wanted: Mapping[str, bytes], record: InstallRecord, seen: Mapping[str, str], *, if_absent: Iterable[str]
) -> list[InstallStep]:
    """`seen`: path → digest of each file that is there, "" of what is no plain file. `if_absent` are never replaced.

    What an earlier install made and this one no longer wants is removed.
    """
    steps = [_file(path, digest(content), record, seen, path in set(if_absent)) for path, content in wanted.items()]
    return steps + [_removal(path, made, seen) for path, made in record.files.items() if path not in wanted]


def _file(path: str, new: str, record: InstallRecord, seen: Mapping[str, str], if_absent: bool) -> InstallStep:
    if path not in seen:
        return InstallStep(InstallAction.WRITE, path)
    if seen[path] == new:
        return InstallStep(InstallAction.SAME, path)
    if if_absent:
        return InstallStep(InstallAction.KEEP, path, N_("it is there"))
    if path not in record.files:
        return InstallStep(InstallAction.REFUSE, path, FOREIGN)
    if seen[path] != record.files[path]:
        return InstallStep(InstallAction.KEEP, path, CHANGED)
    return InstallStep(InstallAction.REPLACE, path)


def link(path: str, target: str, record: InstallRecord, seen: str | None) -> InstallStep:
    """`seen`: where the link points that is there, "" when something else is, None when nothing is."""
    if seen is None:
        return InstallStep(InstallAction.LINK, path, target)
    if seen == target:
        return InstallStep(InstallAction.SAME, path)
    if record.links.get(path) == seen:
        return InstallStep(InstallAction.LINK, path, target)
    return InstallStep(InstallAction.REFUSE, path, FOREIGN)


def recorded(
    steps: Iterable[InstallStep], wanted: Mapping[str, bytes], record: InstallRecord, *, linked: Mapping[str, str]
) -> InstallRecord:
    """The record once these steps are carried out. `linked`: the links that are wanted; one that was there before, with
    the same target, is not ours."""
    files = {path: made for path, made in record.files.items() if path in wanted}
    links = {path: target for path, target in record.links.items() if path in linked}
    for step in steps:
        if step.action in (InstallAction.WRITE, InstallAction.REPLACE) or (
            step.action is InstallAction.SAME and step.path in files
        ):
            files[step.path] = digest(wanted[step.path])
        elif step.action is InstallAction.LINK:
            links[step.path] = linked[step.path]
    return InstallRecord(files, links, record.directories, record.user)


def uninstall(
    record: InstallRecord, seen: Mapping[str, str], links: Mapping[str, str], *, keep_changed: bool = True
) -> list[InstallStep]:
    """`links`: as `seen`, of each link that is there. Directories come last; one that is not empty stays."""
    steps = [_removal(path, made, seen, keep_changed=keep_changed) for path, made in record.files.items()]
    for path, target in record.links.items():
        found = links.get(path)
        if found is not None:
            step = (
                InstallStep(InstallAction.REMOVE, path)
                if found == target
                else InstallStep(InstallAction.KEEP, path, CHANGED)
            )
            steps.append(step)
    steps += [
        InstallStep(InstallAction.REMOVE, path, N_("if it is empty")) for path in deepest_first(record.directories)
    ]
    return [step for step in steps if step.action is not InstallAction.SAME]


def data(bases: Iterable[str], there: Iterable[str], configurations: Iterable[str]) -> list[str]:
    """Which of the directories that are `there` mountd keeps: the bases, and BASE-NAME where NAME.yaml is one of the
    `configurations` (names of files)."""
    names = {each.removesuffix(".yaml") for each in configurations if each.endswith(".yaml")}
    return sorted({path for base in bases for path in (base, *(f"{base}-{name}" for name in names))} & set(there))


def stopped(units: Iterable[str]) -> list[str]:
    """The words by which systemctl stops these units; those whose file is gone it would not know. Of a template, each
    instance."""
    return sorted(unit.replace("@.", "@*.") for unit in units)


def template(unit: str) -> str:
    """The file of a unit: that of an instance is its template's."""
    name, at, instance = unit.partition("@")
    return f"{name}@.{instance.rpartition('.')[2]}" if at else unit


def _removal(path: str, made: str, seen: Mapping[str, str], *, keep_changed: bool = True) -> InstallStep:
    if path not in seen:
        return InstallStep(InstallAction.SAME, path)
    if seen[path] != made and keep_changed:
        return InstallStep(InstallAction.KEEP, path, CHANGED)
    return InstallStep(InstallAction.REMOVE, path)


def deepest_first(directories: Iterable[str]) -> list[str]:
    return sorted(set(directories), key=lambda path: (-path.count("/"), path))


def parents(paths: Iterable[str]) -> list[str]:
    """Every directory above these, the highest first."""
    found = {"/".join(parts[:count]) for parts in (path.split("/") for path in paths) for count in range(1, len(parts))}
    return sorted(found, key=lambda path: (path.count("/"), path))
