"""The link of a model on a real directory: what is placed, moved, taken away and put back, and what is left alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from mountd.model import link
from mountd.model.drift import LinkBlocked, WantedLink
from mountd.model.kept_link import KeptLink

LIVE, NEXT, THEIRS = "/mnt/storage/hub_v23", "/mnt/storage/hub_v24", "/home/somebody/hub"


def kept_link(path: Path, *, suspended: bool = False, self_heal: bool = True) -> KeptLink:
    return KeptLink("hub", path, link.refuse_unsafe, lambda: (suspended, self_heal), lambda _: None)


@pytest.fixture
def kept(tmp_path: Path) -> KeptLink:
    return kept_link(tmp_path / "hub")


def test_only_what_was_placed_where_it_belongs_now_is_kept(kept: KeptLink, tmp_path: Path) -> None:
    assert (link.read(kept.path), kept.is_placed) == (None, False)
    kept.place(LIVE)
    assert (link.read(kept.path), kept.target, kept.is_placed) == (LIVE, LIVE, True)
    kept.move(tmp_path / "elsewhere")
    assert (link.read(kept.path), kept.is_placed) == (None, False)
    kept.place(NEXT)
    assert kept.is_placed
    assert link.read(tmp_path / "elsewhere") == NEXT


@pytest.mark.parametrize("target", [LIVE, NEXT])
def test_a_former_link_goes_after_the_new_one_is_placed(kept: KeptLink, tmp_path: Path, target: str) -> None:
    kept.place(LIVE)
    former = kept.path
    kept.move(tmp_path / "new")
    assert link.read(former) == LIVE
    kept.place(target)
    assert not os.path.lexists(former)


def test_every_former_link_goes(kept: KeptLink, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        kept.place(LIVE)
        kept.move(tmp_path / name)
    kept.place(LIVE)
    assert os.listdir(tmp_path) == ["c"]


@pytest.mark.parametrize("theirs", ["link", "file", "directory"])
def test_a_former_link_that_somebody_has_made_his_own_stays(kept: KeptLink, tmp_path: Path, theirs: str) -> None:
    kept.place(LIVE)
    former = kept.path
    kept.move(tmp_path / "new")
    former.unlink()
    if theirs == "link":
        former.symlink_to(THEIRS)
    elif theirs == "file":
        former.write_text("precious")
    else:
        former.mkdir()
    kept.place(LIVE)
    assert os.path.lexists(former)


def test_moved_there_and_back_it_stays(kept: KeptLink, tmp_path: Path) -> None:
    first = kept.path
    kept.place(LIVE)
    kept.move(tmp_path / "new")
    kept.move(first)
    kept.place(LIVE)
    assert os.listdir(tmp_path) == ["hub"]


def test_a_place_that_is_taken_is_reported_and_the_former_link_stays(kept: KeptLink, tmp_path: Path) -> None:
    kept.place(LIVE)
    former = kept.path
    (tmp_path / "new").write_text("precious")
    kept.move(tmp_path / "new")
    with pytest.raises(LinkBlocked, match=" file "):
        kept.place(NEXT)
    assert link.read(former) == LIVE
    assert (tmp_path / "new").read_text() == "precious"
    assert kept.target == LIVE


@pytest.mark.parametrize(
    ("placed", "there", "changed"),
    [
        (LIVE, LIVE, False),
        (LIVE, NEXT, False),  # what it is to point at anyway
        (LIVE, THEIRS, True),
        (LIVE, None, True),
        (None, None, False),  # nothing was ever there
        (None, THEIRS, True),
        (None, NEXT, False),
    ],
)
def test_what_somebody_has_changed(kept: KeptLink, placed: str | None, there: str | None, changed: bool) -> None:
    if placed:
        kept.place(placed)
        kept.path.unlink()
    if there:
        kept.path.symlink_to(there)
    assert kept.is_changed(NEXT) is changed


def test_what_is_left_alone_is_kept_from_then_on(kept: KeptLink) -> None:
    kept.path.symlink_to(THEIRS)
    kept.leave(LIVE)
    assert (link.read(kept.path), kept.target, kept.is_placed) == (THEIRS, LIVE, True)


def test_taken_away_twice(kept: KeptLink) -> None:
    kept.place(LIVE)
    kept.take_away()
    kept.take_away()
    assert not os.path.lexists(kept.path)
    assert kept.target is None


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_may_be_data_is_never_taken_away(kept: KeptLink, kind: str) -> None:
    kept.place(LIVE)
    kept.path.unlink()
    if kind == "file":
        kept.path.write_text("precious")
    else:
        kept.path.mkdir()
    kept.take_away()
    assert os.path.lexists(kept.path)
    assert kept.target is None


@pytest.mark.parametrize(
    ("there", "live", "restored", "after"),
    [
        (NEXT, LIVE, True, LIVE),
        (NEXT, None, True, None),
        (LIVE, LIVE, False, LIVE),
        (THEIRS, LIVE, False, THEIRS),  # the guard reports that, once the model is live
        (None, LIVE, False, None),
        (NEXT, NEXT, False, NEXT),
    ],
)
def test_after_a_crash(kept: KeptLink, there: str | None, live: str | None, restored: bool, after: str | None) -> None:
    if there:
        kept.path.symlink_to(there)
    assert kept.restore([NEXT], live) is restored
    assert link.read(kept.path) == after


@pytest.mark.parametrize(("live", "after"), [(LIVE, NEXT), (None, None)])
def test_where_another_user_can_move_the_directory_a_link_is_only_taken_away(
    tmp_path: Path, live: str | None, after: str | None
) -> None:
    (tmp_path / "shared").mkdir()
    kept = kept_link(tmp_path / "shared" / "hub")
    kept.path.symlink_to(NEXT)
    tmp_path.chmod(0o777)
    with pytest.raises(LinkBlocked, match="every user") if live else contextlib.nullcontext():
        kept.restore([NEXT], live)
    assert link.read(kept.path) == after


# -- what the guard keeps ---------------------------------------------------------------------------------------------


def test_the_guard_keeps_what_is_placed_unless_an_operation_moves_it(kept: KeptLink, tmp_path: Path) -> None:
    assert kept.wanted() is None
    kept.place(LIVE)
    assert kept.wanted() == WantedLink(kept.path, LIVE)
    with kept.moving():
        assert kept.wanted() is None
        kept.place(NEXT)
    assert kept.wanted() == WantedLink(kept.path, NEXT)
    kept.move(tmp_path / "elsewhere")
    assert kept.wanted() is None, "it is not placed there yet"
    kept.place(NEXT)
    kept.take_away()
    assert kept.wanted() is None


@pytest.mark.parametrize(("suspended", "self_heal"), [(True, True), (False, False), (True, False)])
def test_a_changed_link_is_left_alone_when_nothing_is_healed(tmp_path: Path, suspended: bool, self_heal: bool) -> None:
    kept = kept_link(tmp_path / "hub", suspended=suspended, self_heal=self_heal)
    kept.place(LIVE)
    wanted = kept.wanted()
    assert wanted is not None
    assert wanted.left_alone
    assert not kept.is_to_be_left(LIVE), "nobody has changed it"
    kept.path.unlink()
    kept.path.symlink_to(THEIRS)
    assert kept.is_to_be_left(LIVE)
    assert not kept_link(kept.path).is_to_be_left(LIVE), "it is healed"
