"""Pattern ↔ version: what a directory is called, and which names are versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.model.layout import PLACEHOLDER, Layout
from mountd.settings.names import MUTABLE, VERSION

HUB = Layout("cache_hub_{version}")


@pytest.mark.parametrize(
    ("pattern", "parent", "directory", "name"),
    [
        ("cache_hub_{version}", "", "cache_hub_v23", "cache_hub_v23"),
        ("{version}", "", "v23", "v23"),
        ("models/{version}", "models", "models/v23", "v23"),
        ("a/b/tts-{version}-fp16/hub", "a/b", "a/b/tts-v23-fp16/hub", "tts-v23-fp16"),
        ("模型/{version}/hub/deep", "模型", "模型/v23/hub/deep", "v23"),
        ("models/{version}/", "models", "models/v23", "v23"),
    ],
)
def test_patterns(pattern: str, parent: str, directory: str, name: str) -> None:
    layout = Layout(pattern)
    assert (layout.parent, layout.directory("v23"), layout.version_of(name)) == (parent, directory, "v23")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "cache_hub_",
        "cache_hub",
        "audio_samples",
        "CACHE_HUB_v23",
        "cache_hub_latest",
        "cache_hub_Latest",
        "cache_hub_.v23",
        "cache_hub_v..23",
        "cache_hub_v 23",
        "cache_hub_版本",
        "cache_hub_v23\n",
        "cache_hub_v23/models",
        "xcache_hub_v23",
        "cache_hub_" + 65 * "v",
    ],
)
def test_what_is_no_version(name: str) -> None:
    assert HUB.version_of(name) is None


def test_before_and_after_must_not_overlap() -> None:
    assert Layout("aba{version}aba").version_of("aba") is None
    assert Layout("aba{version}aba").version_of("ababa") is None
    assert Layout("aba{version}aba").version_of("abaaba") is None
    assert Layout("aba{version}aba").version_of("aba1aba") == "1"


component = st.text(
    st.characters(exclude_characters="/{}\0", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda text: text not in (".", ".."))
edge = st.text(st.characters(exclude_characters="/{}\0", exclude_categories=["Cs"]), max_size=8)
patterns = st.builds(
    lambda above, before, after, beneath: "/".join([*above, f"{before}{PLACEHOLDER}{after}", *beneath]),
    st.lists(component, max_size=3),
    edge,
    edge,
    st.lists(component, max_size=2),
)
versions = st.from_regex(VERSION, fullmatch=True).filter(lambda name: ".." not in name and name.lower() not in MUTABLE)


@given(patterns, versions)
def test_there_and_back(pattern: str, version: str) -> None:
    layout = Layout(pattern)
    directory = layout.directory(version)
    beneath_parent = directory[len(layout.parent) :].lstrip("/") if layout.parent else directory
    assert directory.startswith(layout.parent)
    assert layout.version_of(beneath_parent.split("/")[0]) == version


@given(patterns, st.one_of(component, versions))
def test_and_back_again(pattern: str, name: str) -> None:
    layout = Layout(pattern)
    version = layout.version_of(name)
    if version is None:
        return
    assert VERSION.fullmatch(version)
    assert f"{layout.parent}/{name}".lstrip("/") in layout.directory(version)


@given(patterns, versions, versions)
def test_no_two_versions_share_a_directory(pattern: str, one: str, other: str) -> None:
    layout = Layout(pattern)
    assert (layout.directory(one) == layout.directory(other)) == (one == other)


@pytest.mark.parametrize(
    ("target", "version"),
    [
        ("/mnt/tts/cache_hub_v23", "v23"),
        ("/mnt/tts/cache_hub_v23/", "v23"),
        ("/mnt/tts/cache_hub_v23/models", None),
        ("/mnt/tts/cache_hub_latest", None),
        ("/mnt/tts/audio", None),
        ("/mnt/tts/", None),
        ("/mnt/tts", None),
        ("/mnt/tts2/cache_hub_v23", None),
        ("/mnt/cache_hub_v23", None),
        ("cache_hub_v23/", None),
        ("", None),
    ],
)
def test_the_version_that_a_link_points_at(target: str, version: str | None) -> None:
    assert HUB.version_of_target("/mnt/tts", target) == version


@given(patterns, versions, st.sampled_from(["/mnt/tts", "/mnt/tts/", "/"]))
def test_from_a_target_to_its_version(pattern: str, version: str, root: str) -> None:
    layout = Layout(pattern)
    target = f"{root.rstrip('/')}/{layout.directory(version)}"
    assert layout.version_of_target(root, target) == version
    assert layout.version_of_target(root, f"{target}x/y") is None
