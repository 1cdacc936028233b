"""What an app opened at its start: the order it gives a warm, what counts as the app's, and its kept form."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.status.load import AppLoad
from mountd.warm import access
from mountd.warm.access import AccessProfile, AppStart, FileOpens, OpenedFile, OpenedOfModel
from mountd.warm.plan import WantedFile

WHEN = "2026-01-02T03:04:05Z"


def start(*paths: str, version: str = "v22", after_s: float = 0.0, partial: bool = False) -> AppStart:
    files = tuple(OpenedFile(path, 10, after_s + number) for number, path in enumerate(paths))
    return AppStart(version, WHEN, files, partial)


def wanted(text: str) -> list[WantedFile]:
    return [WantedFile(path, 10) for path in text.split()]


def paths(files: Sequence[WantedFile]) -> str:
    return " ".join(file.path for file in files)


PROFILE = AccessProfile({"webui": start("c", "a")})
PARTIAL = AccessProfile({"webui": start("c", "a", partial=True)})


@pytest.mark.parametrize(
    ("files", "profile", "expected", "expected_only_opened"),
    [
        ("a b c d", PROFILE, "c a b d", "c a b"),
        ("a b d", PROFILE, "a b d", "a b"),
        ("a b c d", PARTIAL, "c a b d", "c a b d"),
        ("a b c d", None, "a b c d", "a b c d"),
        ("b d e", PROFILE, "b d e", "b d e"),
        ("", PROFILE, "", ""),
    ],
    ids=["both", "one is gone", "partial", "no profile", "none of its files", "no files"],
)
def test_what_was_opened_comes_first(
    files: str, profile: AccessProfile | None, expected: str, expected_only_opened: str
) -> None:
    assert paths(access.order(wanted(files), profile)) == expected
    assert paths(access.order(wanted(files), profile, only_opened=True, required=["b"])) == expected_only_opened


FILES = st.lists(st.sampled_from("abcdefgh"), unique=True).map(lambda names: wanted(" ".join(names)))
STARTS = st.lists(st.sampled_from("abcdefghxyz"), unique=True).map(lambda names: start(*names))


@given(FILES, st.dictionaries(st.sampled_from(["webui", "api"]), STARTS))
def test_an_order_holds_each_file_once_and_keeps_those_that_were_not_opened_as_they_were(
    files: list[WantedFile], starts: dict[str, AppStart]
) -> None:
    profile = AccessProfile(starts)
    found = access.order(files, profile)
    assert sorted(paths(found)) == sorted(paths(files))
    known = {file.path for file in profile.files}
    assert [file for file in found if file.path not in known] == [file for file in files if file.path not in known]
    only = access.order(files, profile, only_opened=True)
    assert found[: len(only)] == only


def test_of_two_apps_each_file_counts_as_early_as_the_first_of_them_opened_it() -> None:
    profile = AccessProfile({"webui": start("a", "b", "c"), "api": start("c", "d", after_s=0.5)})
    assert [(file.path, file.after_s) for file in profile.files] == [("a", 0), ("c", 0.5), ("b", 1), ("d", 1.5)]


def test_a_new_start_replaces_that_of_the_same_app_only() -> None:
    before = AccessProfile({"webui": start("a"), "api": start("b"), "gone": start("c")})
    after = before.with_start("webui", start("d", version="v23"), {"webui", "api"})
    assert after == AccessProfile({"api": start("b"), "webui": start("d", version="v23")})
    assert after.of_version("v23") == AccessProfile({"webui": start("d", version="v23")})
    assert after.of_version("v1") == AccessProfile()


# -- recording --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "count", "own", "first"),
    [
        ([5.0], 1, [], 5.0),
        ([5.0], 1, [4.9], None),
        ([5.0, 9.0], 2, [4.9], 9.0),
        ([5.0, 9.0], 2, [8.9], 5.0),
        ([5.0, 9.0], 2, [9.1], 5.0),
        ([5.0, 9.0], 2, [4.9, 8.9], None),
        ([5.0, 6.0], 20, [5.0, 5.5, 5.6], 6.0),
        ([], 0, [], None),
    ],
)
def test_each_open_of_our_own_accounts_for_the_nearest(
    times: list[float], count: int, own: list[float], first: float | None
) -> None:
    assert access.first_by_others(FileOpens(times, count), own) == first


def test_only_files_of_the_version_that_others_opened_are_recorded_in_their_order() -> None:
    seen = {
        "b": FileOpens([11.0, 14.0], 2),
        "a": FileOpens([12.0], 1),
        "ours": FileOpens([12.5], 1),
        "strange": FileOpens([13.0], 1),
    }
    sizes = {"a": 1, "b": 2, "ours": 3, "never": 4}
    found = access.opened_files(seen, {"ours": [12.4], "b": [10.9]}, sizes.get, 10.0)
    assert found == (OpenedFile("a", 1, 2.0), OpenedFile("b", 2, 4.0))


def test_directories_of_the_largest_files_come_first() -> None:
    sizes = {"config.yaml": 5, "models/gpt.pth": 900, "models/x.txt": 1, "models/hf/w.safetensors": 950, "t/t.json": 5}
    assert access.directories(sizes.items()) == ["models/hf", "models", "", "t"]


# -- how far a start is -----------------------------------------------------------------------------------------------

SIZES = {"a": 100, "b": 200, "c": 300, "d": 400}


def of_model(opened: str, last: str = "", began_s: float = 5.0) -> OpenedOfModel:
    """`opened`: one file each two seconds."""
    files = [OpenedFile(path, SIZES[path], began_s + 2 * number) for number, path in enumerate(opened.split())]
    return OpenedOfModel(files, {path: SIZES[path] for path in last.split()})


@pytest.mark.parametrize(
    ("models", "expected", "percent"),
    [
        ([], None, None),
        ([of_model("")], None, None),
        ([of_model("a")], AppLoad(0, 0), None),
        ([of_model("a b c")], AppLoad(2, 300, bytes_per_s=75), None),
        ([of_model("", "a b")], AppLoad(0, 0, 2, 300), 0),
        ([of_model("b", "a b")], AppLoad(0, 0, 2, 300), 0),
        ([of_model("b a", "a b")], AppLoad(1, 200, 2, 300, 100), 66),
        ([of_model("a d c", "a c")], AppLoad(1, 100, 2, 400, 25), 25),
        ([of_model("d c", "a b")], AppLoad(0, 0, 2, 300), 0),
        ([of_model("a b", "a b"), of_model("c", "c", 9.0)], AppLoad(2, 300, 3, 600, 75), 50),
        ([of_model("a b", "a b"), of_model("c", "c", 6.0)], AppLoad(2, 400, 3, 600, 200), 66),
        ([of_model("a", "a b"), of_model("d", "", 6.0)], AppLoad(1, 100, 2, 300, 100), 33),
    ],
    ids=[
        "no model",
        "nothing recorded, nothing opened",
        "nothing recorded, one is read",
        "nothing recorded",
        "nothing opened",
        "the first is read",
        "in another order",
        "one that it did not open last time",
        "only such",
        "two models",
        "the file opened last is of the other model",
        "nothing recorded of one model",
    ],
)
def test_how_far_a_start_is(models: list[OpenedOfModel], expected: AppLoad | None, percent: int | None) -> None:
    found = access.app_load(models)
    assert found == expected
    assert found is None or found.percent == percent


def test_files_that_are_opened_at_once_have_no_rate() -> None:
    opened = [OpenedFile("a", 100, 1.0), OpenedFile("b", 200, 1.0)]
    assert access.app_load([OpenedOfModel(opened, SIZES)]) == AppLoad(1, 100, 4, 1000)


def test_of_empty_files_there_is_no_percentage() -> None:
    found = access.app_load([OpenedOfModel([], {"a": 0})])
    assert found is not None
    assert (found.files_total, found.percent) == (1, None)


# -- the kept form ----------------------------------------------------------------------------------------------------

PATHS = st.text(min_size=1).filter(lambda text: "\0" not in text)
OPENED = st.builds(OpenedFile, PATHS, st.integers(0, 2**53), st.floats(0, 1e6, allow_nan=False))
APP_STARTS = st.builds(AppStart, st.text(), st.text(), st.lists(OPENED).map(tuple), st.booleans())


@given(st.dictionaries(st.text(), APP_STARTS, min_size=1).map(AccessProfile))
def test_what_is_kept_is_read_again(profile: AccessProfile) -> None:
    assert access.parse(access.dump(profile)) == profile


@given(st.integers(0, 10_000))
def test_a_torn_file_is_none(length: int) -> None:
    whole = access.dump(PROFILE)
    assert access.parse(whole[: length % len(whole)]) is None


def kept(**changes: object) -> dict[str, object]:
    return {"version": "v1", "recorded": WHEN, "partial": False, "files": [["a", 1, 0.5]], **changes}


@pytest.mark.parametrize(
    "document",
    [
        [],
        None,
        {},
        {"schema": 2, "starts": {"webui": kept()}},
        {"schema": 1, "starts": {}},
        {"schema": 1, "starts": []},
        {"schema": 1, "starts": {"webui": kept(version=None)}},
        {"schema": 1, "starts": {"webui": kept(partial=0)}},
        {"schema": 1, "starts": {"webui": kept(files=None)}},
        {"schema": 1, "starts": {"webui": kept(files=[["a", 1]])}},
        {"schema": 1, "starts": {"webui": kept(files=[["a", -1, 0.5]])}},
        {"schema": 1, "starts": {"webui": kept(files=[["a", True, 0.5]])}},
        {"schema": 1, "starts": {"webui": kept(files=[[5, 1, 0.5]])}},
        {"schema": 1, "starts": {"webui": kept(files=[["a", 1, float("inf")]])}},
        {"schema": 1, "starts": {"webui": kept(files=[["a", 1, float("nan")]])}},
        {"schema": 1, "starts": {"webui": kept(files=[["a", 1, 10**400]])}},
    ],
    ids=repr,
)
def test_what_somebody_else_wrote_is_none(document: object) -> None:
    assert access.parse(json.dumps(document).encode()) is None


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, b"{}"])
def test_what_is_no_json_is_none(data: bytes) -> None:
    assert access.parse(data) is None
