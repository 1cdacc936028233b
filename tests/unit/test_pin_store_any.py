"""A store of pinned files after any sequence of changes: what is pinned is whole, and nothing that is kept goes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mountd.errors import Refused, Unavailable
from mountd.warm.store import PinStore
from tests.support.pinning import DIGEST, MODEL, bring, held, problems, sha256_of, wanted

_contents = st.sampled_from([b"", b"a", b"b", b"aa", b"shared by all"])
_paths = st.sampled_from(["a", "b", "d/a", "d/e/a", "d/e/b", "模型", "d", "../a"])
_versions = st.sampled_from(["v1", "v2", "v3"])
_files = st.dictionaries(_paths, _contents, min_size=1, max_size=4)

IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""There nothing waits for a disk."""


class PinChanges(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.place = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        self.store = PinStore(Path(self.place.name) / "pins")
        self.pinned: dict[str, dict[str, bytes]] = {}
        self.objects: set[bytes] = set()

    def teardown(self) -> None:
        self.place.cleanup()

    @rule(contents=st.sets(_contents))
    def take_in(self, contents: set[bytes]) -> None:
        self.store.accept_all(bring(self.store, contents), rehash=True)
        self.objects |= contents

    @rule(content=_contents, other=_contents)
    def take_in_what_is_wrong(self, content: bytes, other: bytes) -> None:
        (self.store.incoming / sha256_of(content)).write_bytes(other)
        try:
            self.store.accept(sha256_of(content), len(content), rehash=True)
        except Refused:
            assert content != other
        else:
            self.objects.add(content)

    @rule(version=_versions, files=_files)
    def build(self, version: str, files: dict[str, bytes]) -> None:
        try:
            self.store.build(MODEL, version, wanted(files), digest=DIGEST)
        except Refused:
            unsafe = "../a" in files or ("d" in files and any(path.startswith("d/") for path in files))
            assert unsafe or self.pinned.get(version, files) != files
        except Unavailable:
            assert not set(files.values()) <= self.objects
        else:
            self.pinned[version] = files

    @rule(version=_versions)
    def remove(self, version: str) -> None:
        self.store.remove(MODEL, version)
        self.pinned.pop(version, None)

    @rule(keep=st.sets(_versions), fetched=st.sets(_contents))
    def sweep(self, keep: set[str], fetched: set[bytes]) -> None:
        kept, fetching = {(MODEL, version) for version in keep}, [sha256_of(each) for each in fetched]
        could_go, before = self.store.could_go(kept, fetching), self.store.usage()
        swept = self.store.sweep(kept, fetching)
        self.pinned = {version: files for version, files in self.pinned.items() if version in keep}
        used = {content for files in self.pinned.values() for content in files.values()}
        self.objects = {each for each in self.objects if each in used or each in fetched}
        assert could_go == swept.bytes == before.bytes - self.store.usage().bytes

    @invariant()
    def is_whole(self) -> None:
        assert problems(self.store) == []
        assert {version for _, version in self.store.versions()} == self.pinned.keys()
        for version, files in self.pinned.items():
            assert held(self.store.tree(MODEL, version)) == files
        lacking = self.store.lacking(wanted({content.hex(): content for content in (b"", b"a", b"b", b"aa")}))
        assert {sha256_of(each) for each in self.objects}.isdisjoint(lacking)
        usage = self.store.usage()
        assert (usage.objects, usage.bytes) == (len(self.objects), sum(map(len, self.objects)))


TestAnyChanges = PinChanges.TestCase
TestAnyChanges.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
