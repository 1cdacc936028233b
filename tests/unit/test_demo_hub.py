"""The generated bucket: sizes, formats, manifests, and that each wrong version is wrong in the way it says."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from pathlib import Path

import pytest

from mountd.demo import hub
from tests.support.bad_versions import ODD_NAMES, build_bad

SCALE = 1 / 2_000


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    hub.build(root, scale=SCALE)
    build_bad(root)
    return root / hub.BUCKET


def listed(directory: Path) -> dict[str, tuple[int, str]]:
    document = json.loads((directory / hub.MANIFEST).read_bytes())
    return {entry["path"]: (entry["size"], entry["sha256"]) for entry in document["files"]}


def stored(directory: Path) -> dict[str, tuple[int, str]]:
    return {
        path.relative_to(directory).as_posix(): (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in directory.rglob("*")
        if path.is_file() and path.name != hub.MANIFEST
    }


@pytest.mark.parametrize("version", ["v22", "v23"])
def test_a_version_holds_what_its_manifest_lists(bucket: Path, version: str) -> None:
    directory = bucket / f"cache_hub_{version}"
    document = json.loads((directory / hub.MANIFEST).read_bytes())
    assert {key: document[key] for key in ("schema", "version", "tool")} == {
        "schema": 1,
        "version": version,
        "tool": hub.TOOL,
    }
    assert document["created"].endswith("Z")
    assert [entry["path"] for entry in document["files"]] == sorted(hub.FULL_BYTES)
    assert listed(directory) == stored(directory)


def test_sizes_are_scaled_and_small_text_is_not(bucket: Path) -> None:
    directory = bucket / "cache_hub_v23"
    for path, full in hub.FULL_BYTES.items():
        expected = full if path == "config.yaml" else max(math.ceil(full * SCALE), 64)
        assert (directory / path).stat().st_size == expected, path


def test_the_published_sizes_add_up() -> None:
    published = sum(size for path, size in hub.FULL_BYTES.items() if path != hub.UNUSED)
    assert round(published / 1e9, 2) == 8.87


def test_versions_differ_in_every_file(bucket: Path) -> None:
    old, new = stored(bucket / "cache_hub_v22"), stored(bucket / "cache_hub_v23")
    assert [path for path in old if old[path] == new[path]] == []


def test_building_again_gives_the_same_bytes(tmp_path: Path) -> None:
    built = []
    for name in ("a", "b", "a"):
        hub.build(tmp_path / name, scale=hub.SMALLEST_SCALE)
        built.append([stored(tmp_path / name / hub.BUCKET / f"cache_hub_{version}") for version in hub.VERSIONS])
    assert built[0] == built[1] == built[2]
    manifests = {(tmp_path / name / hub.BUCKET / "cache_hub_v23" / hub.MANIFEST).read_bytes() for name in ("a", "b")}
    assert len(manifests) == 1


def check_safetensors(path: Path) -> int:
    """The number of tensors of a file that keeps the format's rules."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    tensors = [value for key, value in header.items() if key != "__metadata__"]
    end = 0
    for tensor in tensors:  # without gaps, up to the end of the file
        assert tensor["dtype"] == "U8"
        assert tensor["data_offsets"] == [end, end + tensor["shape"][0]]
        end = tensor["data_offsets"][1]
    assert 8 + length + end == len(content)
    return len(tensors)


@pytest.mark.parametrize("path", [path for path in hub.FULL_BYTES if path.endswith(".safetensors")])
def test_safetensors_are_valid(bucket: Path, path: str) -> None:
    assert check_safetensors(bucket / "cache_hub_v23" / path) >= 2


@pytest.mark.parametrize("path", [path for path in hub.FULL_BYTES if path.endswith((".pth", ".pt", ".bin"))])
def test_torch_files_are_stored_zips(bucket: Path, path: str) -> None:
    with zipfile.ZipFile(bucket / "cache_hub_v23" / path) as archive:
        assert archive.testzip() is None
        assert [entry.compress_type for entry in archive.infolist()] == [zipfile.ZIP_STORED]


def test_the_smallest_files_keep_their_formats(tmp_path: Path) -> None:
    hub.build(tmp_path, versions=["tiny"], scale=hub.SMALLEST_SCALE)
    for path in hub.FULL_BYTES:
        file = tmp_path / hub.BUCKET / "cache_hub_tiny" / path
        if path.endswith(".safetensors"):
            check_safetensors(file)
        elif path.endswith((".pth", ".pt", ".bin")):
            assert zipfile.is_zipfile(file), path
        elif path.endswith(".json"):
            json.loads(file.read_bytes())


def test_small_text_parses(bucket: Path) -> None:
    json.loads((bucket / "cache_hub_v23/tokenizer/tokenizer.json").read_bytes())
    lines = (bucket / "cache_hub_v23/config.yaml").read_text().splitlines()
    assert all(line.startswith("#") for line in lines)
    assert json.loads((bucket / "audio_samples/prompts_zh.json").read_bytes())[0]["text"]


def test_bytes_from_a_wrong_place_differ(tmp_path: Path) -> None:
    """A read at an offset that is off by any power of two must not return what was asked for by chance."""
    hub.build(tmp_path, versions=["v1"], scale=1 / 500)
    content = (tmp_path / hub.BUCKET / "cache_hub_v1/models/gpt.pth").read_bytes()
    window = content[1000:1064]
    offsets = [1000 + (1 << bits) for bits in range(22)]
    assert [at for at in offsets if content[at : at + 64] == window] == []


def test_bad_is_wrong_in_size_and_in_number(bucket: Path) -> None:
    directory = bucket / "cache_hub_bad"
    promised, there = listed(directory), stored(directory)
    assert set(promised) - set(there) == {"models/hf_cache/campplus_cn_common.bin"}
    assert [path for path in there if there[path] != promised[path]] == ["models/s2mel.pth"]
    assert there["models/s2mel.pth"][0] == promised["models/s2mel.pth"][0] - 1


def test_bare_has_no_manifest(bucket: Path) -> None:
    assert not (bucket / "cache_hub_bare" / hub.MANIFEST).exists()
    assert set(stored(bucket / "cache_hub_bare")) == set(hub.FULL_BYTES)


def test_odd_is_complete_and_has_odd_names(bucket: Path) -> None:
    directory = bucket / "cache_hub_odd"
    assert listed(directory) == stored(directory)
    assert set(listed(directory)) == {*hub.FULL_BYTES, *ODD_NAMES}
    assert all(any(sign in name for name in ODD_NAMES) for sign in (" ", "#", "声"))


@pytest.mark.parametrize("scale", [0, -1, 1, 1e-9, float("nan")])
def test_a_scale_that_cannot_be_built_is_refused(tmp_path: Path, scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        hub.build(tmp_path, scale=scale)
    assert list(tmp_path.iterdir()) == []
