"""The files below the root of a machine, or of an image of one: looked at, written at once or not at all, removed."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from mountd.errors import MountdError, Refused, cause_of
from mountd.fuse.watch import read_table
from mountd.i18n import M_, N_
from mountd.install import plan

LARGEST_BYTES = 1 << 20
_CANNOT = {
    "write": N_("cannot write /{path}: {cause}"),
    "link": N_("cannot link /{path}: {cause}"),
    "remove": N_("cannot remove /{path}: {cause}"),
}


class MachineRoot:
    """Paths are below `root`, without a leading slash. No link in an image leads out of it."""

    def __init__(self, root: str) -> None:
        self.path = os.path.realpath(root)
        self.is_live = self.path == "/"

    def real(self, path: str) -> str:
        """Raises MountdError where a link above `path` leads out of the image."""
        parent = os.path.realpath(os.path.join(self.path, os.path.dirname(path)))
        if os.path.commonpath([parent, self.path]) != self.path:
            facts = {"path": path, "root": self.path, "place": parent}
            text = M_("cannot use {path}: a link leads out of {root}, to {place}", **facts)
            raise MountdError(text, hint=M_("make that link relative"))
        return os.path.join(parent, os.path.basename(path))

    # -- looking --------------------------------------------------------------------------------------------------

    def digests(self, paths: Iterable[str]) -> dict[str, str]:
        """Of those that are there; "" of what is no plain file."""
        return {path: found for path in paths if (found := self._digest(self.real(path))) is not None}

    def _digest(self, path: str) -> str | None:
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_BYTES:
            return ""
        try:
            return plan.digest(Path(path).read_bytes())
        except OSError as error:
            text = M_("cannot read {file}: {cause}", file=path, cause=cause_of(error))
            raise MountdError(text, hint=M_("run it as root")) from None

    def link(self, path: str) -> str | None:
        """Where it points; "" of what is no link, None where nothing is."""
        try:
            return os.readlink(self.real(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return ""

    def read(self, path: str) -> str:
        """Of a file that is not there, nothing."""
        try:
            return Path(self.real(path)).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.real(path))

    def owner(self, path: str) -> int:
        return os.lstat(self.real(path)).st_uid

    def named(self, pattern: str) -> list[str]:
        """Paths by a glob."""
        return sorted(str(found.relative_to(self.path)) for found in Path(self.path).glob(pattern))

    # -- changing -------------------------------------------------------------------------------------------------

    def write(self, path: str, content: bytes) -> None:
        real = self.real(path)
        with self._changing("write", path), _umask(0o022):
            os.makedirs(os.path.dirname(real), exist_ok=True)
            fd, new = tempfile.mkstemp(prefix=f".{os.path.basename(real)}.", dir=os.path.dirname(real))
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(content)
                    os.fchmod(fd, 0o644)
                    file.flush()
                    os.fsync(fd)
                os.replace(new, real)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(new)
                raise

    def make_link(self, path: str, target: str) -> None:
        real = self.real(path)
        with self._changing("link", path), _umask(0o022):
            os.makedirs(os.path.dirname(real), exist_ok=True)
            new = f"{real}.mountd-new"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
            os.symlink(target, new)
            os.replace(new, real)

    def remove(self, path: str) -> None:
        """A file, a link, or a directory that is empty."""
        real = self.real(path)
        with self._changing("remove", path), contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(os.lstat(real).st_mode):
                os.unlink(real)
                return
            with contextlib.suppress(OSError):
                os.rmdir(real)

    def check_tree(self, path: str, *, but_fuse: bool = False) -> None:
        """Raises Refused where `remove_tree` would: it is a link, or something is mounted in it. `but_fuse`: mounts of
        FUSE do not count yet."""
        real = self.real(path)
        if os.path.islink(real):
            text = M_("cannot remove {path}: it is a link to {target}", path=real, target=os.readlink(real))
            raise Refused(text, hint=M_("remove what it leads to, and the link: rm {path}", path=real))
        for each in read_table():
            if f"{each.mount_point}/".startswith(f"{real}/") and not (but_fuse and each.fs_type.startswith("fuse")):
                text = M_("cannot remove {path}: {place} is mounted", path=real, place=each.mount_point)
                raise Refused(text, hint=f"umount {each.mount_point}")

    def remove_tree(self, path: str, *, last: str = "") -> None:
        """With all that is in it, the file named `last` after the others. Raises Refused, see `check_tree`."""
        self.check_tree(path)
        real = self.real(path)
        with self._changing("remove", path), contextlib.suppress(FileNotFoundError):
            for name in os.listdir(real) if last else ():
                inner = os.path.join(real, name)
                if name != last:
                    shutil.rmtree(inner) if stat.S_ISDIR(os.lstat(inner).st_mode) else os.unlink(inner)
            shutil.rmtree(real)

    @contextlib.contextmanager
    def _changing(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = M_("run it as root: sudo mountd install") if isinstance(error, PermissionError) else ""
            raise MountdError(M_(_CANNOT[verb], path=path, cause=cause_of(error)), hint=hint) from None


@contextlib.contextmanager
def _umask(value: int) -> Iterator[None]:
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)
