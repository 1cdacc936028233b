"""The stand-in that loads a model: all bytes, in whatever order, and not one more."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from bench.load_rig import FOUR, ORDER, build_hub, forget
from bench.peers import loader
from mountd.demo import hub

SCALE = 1 / 10_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    build_hub(root, SCALE)
    return root / hub.BUCKET


@pytest.mark.parametrize("words", [(), ("--shuffle", "1000"), ("--files", *ORDER)], ids=["all", "shuffled", "in order"])
def test_it_loads_what_is_there(store: Path, words: tuple[str, ...]) -> None:
    directory = store / "cache_hub_v23"
    argv = loader("load", "--digests", "--model_dir", directory, *words)
    found = json.loads(subprocess.run(argv, capture_output=True, check=True, timeout=60).stdout)
    names = ORDER if "--files" in words else [*map(str, found["digests"])]
    assert list(found["digests"]) == list(names)
    expected = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}
    assert found["digests"] == expected
    assert found["bytes"] == sum((directory / name).stat().st_size for name in names)
    assert found["began"] <= found["imported"] <= found["loaded"]


def test_two_versions_share_all_but_one_file(store: Path) -> None:
    """60 % of their bytes."""
    manifests = [json.loads((store / f"cache_hub_{version}" / hub.MANIFEST).read_text()) for version in ("v22", "v23")]
    old, new = ({entry["path"]: (entry["size"], entry["sha256"]) for entry in each["files"]} for each in manifests)
    assert old.keys() == new.keys()
    shared = sum(size for path, (size, _) in new.items() if old[path] == new[path])
    assert 0.55 < shared / sum(size for size, _ in new.values()) < 0.65


def test_the_four_files_are_the_large_ones() -> None:
    assert len(FOUR) == 4
    assert "models/gpt.pth" in FOUR


def test_to_forget_a_file_changes_nothing_of_it(store: Path) -> None:
    path = store / "cache_hub_v23" / "models/gpt.pth"
    before = path.read_bytes()
    forget(path, store / "cache_hub_v22")
    assert path.read_bytes() == before
