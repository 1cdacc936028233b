"""Contents to pin, and what must be true of a store of pinned files whatever happened to it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path

from mountd.warm.plan import WantedFile
from mountd.warm.store import PinStore

MODEL = "hub"
DIGEST = "d" * 64


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def wanted(contents: Mapping[str, bytes]) -> list[WantedFile]:
    """Path → bytes as files of a version."""
    return [WantedFile(path, len(content), sha256_of(content)) for path, content in contents.items()]


def bring(store: PinStore, contents: Iterable[bytes]) -> dict[str, int]:
    """As a fetcher leaves them: whole, in `incoming`."""
    brought = {}
    for content in contents:
        sha256 = sha256_of(content)
        (store.incoming / sha256).write_bytes(content)
        brought[sha256] = len(content)
    return brought


def pin(store: PinStore, version: str, contents: Mapping[str, bytes]) -> None:
    store.accept_all(bring(store, set(contents.values())))
    store.build(MODEL, version, wanted(contents), digest=DIGEST)


def held(tree: Path) -> dict[str, bytes]:
    """Path → bytes of the files of a tree, links among them not followed."""
    found = {}
    for parent, _, names in os.walk(tree):
        for name in names:
            path = Path(parent, name)
            assert not path.is_symlink(), path
            found[str(path.relative_to(tree))] = path.read_bytes()
    return found


def problems(store: PinStore) -> list[str]:
    """What is wrong in it: an object that is not what its name says, a tree that counts and is not complete."""
    found = []
    for path in (store.place / "objects").glob("*/*"):
        seen = path.lstat()
        if not stat.S_ISREG(seen.st_mode) or sha256_of(path.read_bytes()) != path.name:
            found.append(f"object {path.name} is something else")
        if stat.S_IMODE(seen.st_mode) != 0o444:
            found.append(f"object {path.name} has mode {oct(seen.st_mode)}")
    for model, version in store.versions():
        found += [f"{version}/{each.path}: {each.why}" for each in store.verify(model, version)]
        listed = {each.path for each in store.files(model, version)}
        if listed != held(store.tree(model, version)).keys():
            found.append(f"{version} has other files than its list")
        for parent, _, _ in os.walk(store.tree(model, version)):
            if stat.S_IMODE(os.lstat(parent).st_mode) != 0o755:
                found.append(f"{parent} has mode {oct(os.lstat(parent).st_mode)}")
    return found
