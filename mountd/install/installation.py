"""Carries out what the plan says: files, the user, directories, systemd; and keeps the record by which it is undone."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence

from mountd import __version__
from mountd.errors import MountdError, Refused
from mountd.i18n import M_, N_
from mountd.install import carried, plan
from mountd.install.plan import InstallAction, InstallRecord, InstallStep
from mountd.install.root import MachineRoot

COMMAND_S = 120.0
STOP_S = 3600.0
"""A stop waits for uploads."""
BOOTED = "/run/systemd/system"
Tell = Callable[[InstallStep], None]


class Installation:
    def __init__(self, root: str, executable: str) -> None:
        self._root = MachineRoot(root)
        self._executable = executable
        self._record = self._read_record()
        self._runs_systemd = self._root.is_live and os.path.isdir(BOOTED)

    # -- install ----------------------------------------------------------------------------------------------------

    def install(self, tell: Tell, *, user: bool | None, dry_run: bool) -> None:
        """`user`: as a user of its own, not as root; None: as it is installed. Raises Refused before anything changed,
        MountdError."""
        if user is None:
            user = carried.USER_TMPFILES in self._record.files
        wanted, program = carried.files(user=user), carried.program(self._executable)
        linked = {} if program == carried.PROGRAM else {carried.PROGRAM[1:]: program}
        seen = self._root.digests({*wanted, *self._record.files})
        steps = plan.install(wanted, self._record, seen, if_absent=[carried.CONFIGURATION])
        steps += [plan.link(path, to, self._record, self._root.link(path)) for path, to in linked.items()]
        for step in steps:
            if step.action is InstallAction.REFUSE:
                raise Refused(
                    M_("cannot install: /{path} is in the way: {why}", path=step.path, why=M_(step.text)),
                    hint=M_("move it away, and run mountd install again"),
                )
        directories = {*plan.parents([*wanted, *linked, *carried.DIRECTORIES]), *carried.DIRECTORIES}
        missing = [each for each in directories if not self._root.exists(each)]
        if not dry_run:
            # First: then an interrupted install can be undone, or run again.
            new = [step for step in steps if step.action is not InstallAction.REPLACE]
            record = plan.recorded(new, wanted, self._record, linked=linked)
            made = tuple(sorted({*self._record.directories, *missing}))
            self._record = dataclasses.replace(record, directories=made, user=self._record.user or not self._has_user())
            self._write_record()
        for step in steps:
            tell(step)
            if not dry_run:
                self._carry_out(step, wanted)
        for words in self._systemd_words(user=user):
            self._run(tell, words, dry_run=dry_run)
        if not dry_run:
            there = tuple(path for path in self._record.directories if self._root.exists(path))
            record = plan.recorded(steps, wanted, self._record, linked=linked)
            self._record = dataclasses.replace(record, directories=there)
            self._write_record()

    def _carry_out(self, step: InstallStep, wanted: dict[str, bytes]) -> None:
        match step.action:
            case InstallAction.WRITE | InstallAction.REPLACE:
                self._root.write(step.path, wanted[step.path])
            case InstallAction.LINK:
                self._root.make_link(step.path, step.text)
            case InstallAction.REMOVE:
                self._root.remove(step.path)

    def _systemd_words(self, *, user: bool) -> Iterator[list[str]]:
        image = [] if self._root.is_live else [f"--root={self._root.path}"]
        tmpfiles = [carried.TMPFILES, *([carried.USER_TMPFILES] if user else [])]
        yield ["systemd-sysusers", *image, os.path.basename(carried.SYSUSERS)]
        yield ["systemd-tmpfiles", *image, "--create", *map(os.path.basename, tmpfiles)]
        if self._runs_systemd:
            yield ["systemctl", "daemon-reload"]

    # -- uninstall --------------------------------------------------------------------------------------------------

    def uninstall(self, tell: Tell, *, purge: bool, dry_run: bool) -> None:
        """Stops mountd, and removes what install made. `purge`: also the configuration, its secrets, state and cache.

        The record goes last: what has failed half-way can be run again. Raises Refused, of what can be known before
        anything changed; MountdError.
        """
        record = self._record
        if not self._root.exists(carried.RECORD):
            return
        data, foreign = self._data()  # by the configurations, so before one of them goes
        own = [path for path in carried.OWN_DIRECTORIES if path in record.directories and self._root.exists(path)]
        trees = [*data, *own] if purge else []
        for tree in trees:
            self._root.check_tree(tree, but_fuse=self._runs_systemd)  # a stop unmounts what mountd has mounted
        for words, seconds in self._stop_words():
            self._run(tell, words, dry_run=dry_run, timeout_s=seconds)
        for tree in () if dry_run else trees:
            self._root.check_tree(tree)
        seen = self._root.digests(record.files)
        links = {path: to for path in record.links if (to := self._root.link(path)) is not None}
        steps = plan.uninstall(record, seen, links, keep_changed=not purge)
        files = [step for step in steps if step.path not in record.directories]
        for step in files:
            tell(step)
            if not dry_run and step.action is InstallAction.REMOVE:
                self._root.remove(step.path)
        self._remove_trees(tell, data if purge else [], dry_run=dry_run)
        self._remove_user(tell, keeps=[*self._of_user(foreign), *(() if purge else data)], dry_run=dry_run)
        if self._runs_systemd:
            self._run(tell, ["systemctl", "daemon-reload"], dry_run=dry_run)
        self._remove_trees(tell, own if purge else [], dry_run=dry_run)
        if not dry_run:
            self._root.remove(carried.RECORD)
        self._remove_directories(tell, [each for each in steps if each.path in record.directories], dry_run=dry_run)
        for path in () if purge else data:
            tell(InstallStep(InstallAction.KEEP, path, N_("what mountd keeps there is removed with --purge only")))
        for path in foreign:
            tell(InstallStep(InstallAction.KEEP, path, N_("no configuration in /etc/mountd has this name")))

    def _remove_trees(self, tell: Tell, trees: Sequence[str], *, dry_run: bool) -> None:
        for tree in trees:
            tell(InstallStep(InstallAction.REMOVE, tree, N_("and all that is in it")))
            if not dry_run:
                self._root.remove_tree(tree, last=os.path.basename(carried.RECORD))

    def _remove_directories(self, tell: Tell, steps: Sequence[InstallStep], *, dry_run: bool) -> None:
        for step in steps:
            if self._root.exists(step.path):
                if not dry_run:
                    self._root.remove(step.path)
                stays = not dry_run and self._root.exists(step.path)
                tell(InstallStep(InstallAction.KEEP, step.path, N_("it is not empty")) if stays else step)

    def _stop_words(self) -> Iterator[tuple[list[str], float]]:
        ours = {os.path.basename(each.target) for each in carried.FILES}
        if self._runs_systemd:
            units = map(os.path.basename, self._root.named(f"{carried.UNITS}/mountd*.service"))
            if words := plan.stopped({*units} & ours):
                yield ["systemctl", "stop", *words], STOP_S
        wanted = map(os.path.basename, self._root.named(f"{carried.UNITS}/*.wants/mountd*.service"))
        if enabled := {unit for unit in wanted if plan.template(unit) in ours}:
            image = [] if self._root.is_live else [f"--root={self._root.path}"]
            yield ["systemctl", *image, "disable", *sorted(enabled)], COMMAND_S

    def _data(self) -> tuple[list[str], list[str]]:
        """What mountd keeps to run, and what only has a name as if."""
        there = [path for each in carried.DATA for path in (each, *self._root.named(f"{each}-*"))]
        there = [path for path in there if self._root.exists(path)]
        configurations = self._root.named(f"{os.path.dirname(carried.CONFIGURATION)}/*.yaml")
        data = plan.data(carried.DATA, there, map(os.path.basename, configurations))
        return data, [path for path in there if path not in data]

    # -- the user ---------------------------------------------------------------------------------------------------

    def _has_user(self, table: str = "etc/passwd") -> bool:
        return any(line.startswith("mountd:") for line in self._root.read(table).splitlines())

    def _of_user(self, paths: Sequence[str]) -> list[str]:
        users = [line.split(":") for line in self._root.read("etc/passwd").splitlines()]
        numbers = {user[2] for user in users if user[0] == "mountd" and len(user) > 2}
        return [path for path in paths if str(self._root.owner(path)) in numbers]

    def _remove_user(self, tell: Tell, *, keeps: Sequence[str], dry_run: bool) -> None:
        """Another user could get its uid later: it stays as long as there may be files of it."""
        if not self._record.user:
            return
        if keeps and self._has_user():
            tell(InstallStep(InstallAction.KEEP, "etc/passwd", N_("the user mountd may own what is kept")))
            return
        image = [] if self._root.is_live else ["--prefix", self._root.path]
        if self._has_user():
            self._run(tell, ["userdel", *image, "mountd"], dry_run=dry_run)
        if not dry_run and self._has_user("etc/group"):  # it goes with the user, where login.defs says so
            self._run(tell, ["groupdel", *image, "mountd"], dry_run=dry_run)

    # -- the record -------------------------------------------------------------------------------------------------

    def _read_record(self) -> InstallRecord:
        text = self._root.read(carried.RECORD)
        if not text:
            return InstallRecord()
        try:
            found = json.loads(text)
            files, links = dict(found["files"]), dict(found["links"])
            record = InstallRecord(files, links, tuple(found["directories"]), bool(found["user"]))
            paths = [*files, *files.values(), *links, *links.values(), *record.directories]
            if not all(isinstance(each, str) and ".." not in each.split("/") for each in paths):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise MountdError(
                M_("cannot read /{path}, which says what mountd install has made", path=carried.RECORD),
                hint=M_("move it away, remove the files of mountd by hand, and install again"),
            ) from None
        return record

    def _write_record(self) -> None:
        document = {"schema": 1, "version": __version__, **dataclasses.asdict(self._record)}
        self._root.write(carried.RECORD, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())

    def _run(self, tell: Tell, words: Sequence[str], *, dry_run: bool, timeout_s: float = COMMAND_S) -> None:
        shown = " ".join(words)
        tell(InstallStep(InstallAction.RUN, shown))
        if dry_run:
            return
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
        except FileNotFoundError:
            text = M_("cannot run {command}: there is no {program}", command=shown, program=words[0])
            raise MountdError(text, hint=M_("mountd install is for a machine with systemd")) from None
        except subprocess.TimeoutExpired:
            text = M_("cannot run {command}: it did not finish in {limit:.0f} s", command=shown, limit=timeout_s)
            raise MountdError(text) from None
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip() or M_("exit code {code}", code=done.returncode)
            raise MountdError(M_("cannot run {command}: {cause}", command=shown, cause=said))
