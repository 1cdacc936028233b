"""Reads one file of a Git repository: `git_worker.py DIRECTORY REMOTE REF PATH KNOWN NAME`, a process of its own.

The repository's address, its token and all other configuration stand in the environment. It asks which commit REF is at
and stops there when that is KNOWN. Otherwise, and without asking when NAME is the full name of REF, it fetches that one
commit into a new repository below DIRECTORY, without older ones and without the content of files but the smallest, and
then the one file if it is larger. No file that git writes can be larger than MAX_PACK_BYTES: a server that does not
filter fails then, and fills no disk.

Prints BEGINS and a JSON object: {"name", "commit", "author", "message"}, and the content in DIRECTORY/value; only the
first two when the commit is KNOWN; {"step", "said"} when a step failed. Nothing of the repository is executed, checked
out or followed.
"""

import json
import os
import resource
import shutil
import subprocess
import sys

BEGINS = "="
MAX_PACK_BYTES = 64 * 1024 * 1024
MAX_MEMORY_BYTES = 1 << 30
MAX_SAID = 1000
"""Characters of it, the last ones."""
MAX_TEXT = 300
"""Characters of an author and of a message: all of the answer is one line of at most 8 KiB."""
MAX_VALUE_BYTES = 64 * 1024 + 1
FILTERS = ("blob:limit=2k", "blob:none")
"""A version is a few bytes: it comes with the commit, which saves a second connection. Where small files are too many,
none comes."""
_FIELDS = "%H%x00%an <%ae>%x00%s"
_LOCAL_REF = "refs/mountd/wanted"


class Failed(Exception):
    def __init__(self, step: str, said: str = "") -> None:
        super().__init__(step)
        self.step, self.said = step, said


class Reader:
    def __init__(self, directory: str, remote: str) -> None:
        self._directory, self._remote = directory, remote
        self._git_dir = os.path.join(directory, "git")

    def tip(self, ref: str) -> tuple[str, str]:
        """The full name of `ref`, and its commit."""
        names = [ref] if ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        patterns = [each for name in names for each in (name, f"{name}^{{}}")]
        kinds = [] if ref.startswith("refs/") else ["--heads", "--tags"]
        output = self._git("ls-remote", ["ls-remote", "--quiet", *kinds, self._remote, *patterns], most=64 * 1024)
        lines = (line.partition("\t") for line in output.decode(errors="replace").splitlines())
        found = {name: commit for commit, _, name in lines}
        for name in names:
            if commit := found.get(f"{name}^{{}}") or found.get(name):
                return name, commit
        raise Failed("ref")

    def fetch(self, name: str) -> None:
        for filter_ in FILTERS:
            try:
                self._fetch(name, filter_)
            except Failed as failed:
                if failed.step != "size" or filter_ == FILTERS[-1]:
                    raise
                shutil.rmtree(self._git_dir)
            else:
                return

    def _fetch(self, name: str, filter_: str) -> None:
        self._git("init", ["init", "--quiet", "--bare", "--template=", self._git_dir])
        how = ["--depth=1", f"--filter={filter_}", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
        self._git("fetch", [*self._there, "fetch", "--quiet", *how, self._remote, f"+{name}:{_LOCAL_REF}"])

    def describe(self) -> dict[str, str]:
        found = self._git("log", [*self._there, "log", "-1", f"--format={_FIELDS}", _LOCAL_REF], most=64 * 1024)
        commit, author, message = (
            each.decode(errors="replace") for each in [*found.rstrip(b"\n").split(b"\0"), b"", b""][:3]
        )
        return {"commit": commit, "author": author[:MAX_TEXT], "message": message[:MAX_TEXT]}

    def file(self, path: str) -> bytes:
        entry = self._git(
            "ls-tree", [*self._there, "ls-tree", "-z", "--full-tree", _LOCAL_REF, "--", path], most=64 * 1024
        )
        head, _, found = entry.split(b"\0")[0].partition(b"\t")
        if not entry or found != path.encode():
            raise Failed("path")
        mode, kind, blob = head.decode().split(" ", 2)
        if kind != "blob" or mode not in ("100644", "100755"):
            raise Failed("kind", "a link" if mode == "120000" else "a directory" if kind == "tree" else f"a {kind}")
        return self._git("cat-file", [*self._there, "cat-file", "blob", blob], most=MAX_VALUE_BYTES)

    @property
    def _there(self) -> list[str]:
        return [f"--git-dir={self._git_dir}"]

    def _git(self, step: str, words: list[str], *, most: int = 0) -> bytes:
        """What it prints, up to `most` bytes."""
        out, err = (os.path.join(self._directory, name) for name in ("out", "err"))
        with open(out, "w+b") as output, open(err, "w+b") as errors:
            try:
                done = subprocess.run(
                    ["git", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    cwd=self._directory,
                    check=False,
                )
            except FileNotFoundError:
                raise Failed("git") from None
            errors.seek(0)
            said = errors.read(64 * 1024).decode(errors="replace")[-MAX_SAID:]
            if done.returncode != 0:
                raise Failed("size" if self._is_full() else step, said)
            output.seek(0)
            return output.read(most)

    def _is_full(self) -> bool:
        """Whether git was not let write more: that killed one of its processes, and the first one may not know why."""
        limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        paths = (os.path.join(base, name) for base, _, names in os.walk(self._directory) for name in names)
        return any(os.path.getsize(path) >= limit for path in paths)


def main(directory: str, remote: str, *asked: str) -> dict[str, str]:
    ref, path, known, name = asked
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = MAX_PACK_BYTES if hard == resource.RLIM_INFINITY else min(hard, MAX_PACK_BYTES)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    # Trees, commits and what deltas make are held in memory at the size that a pack says they have.
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    reader = Reader(directory, remote)
    try:
        if not name:
            name, commit = reader.tip(ref)
            if commit == known:
                return {"name": name, "commit": commit}
        reader.fetch(name)
        found = {"name": name} | reader.describe()
        if found["commit"] == known:
            return found
        value = reader.file(path)
    except Failed as failed:
        return {"step": failed.step, "said": failed.said}
    with open(os.path.join(directory, "value"), "wb") as file:
        file.write(value)
    return found


if __name__ == "__main__":
    print(f"\n{BEGINS}\n{json.dumps(main(*sys.argv[1:]), indent=0)}")
