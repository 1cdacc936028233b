"""What the looks at a cache directory found, over time → going on without it, and going back to it."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.cache.bypass import AGAIN_S, CACHE_INTERVAL_S, HOLD_S, Bypass, CacheState, Looks, may_bypass
from mountd.settings.schema import MountSettings
from mountd.status.snapshot import Reason

ENOSPC = "write /cache/vfsMeta/store/x: no space left on device"
CODES = ("", "cache-not-writable", "cache-taken", "cache-full", "cache-silent")


def mount(cache: dict[str, Any] | None = None, **fields: Any) -> MountSettings:
    return MountSettings.model_validate(
        {"remote": "s:b", "path": "/mnt/x", "cache": {"dir": "/var/cache/x", **(cache or {})}} | fields
    )


def reason(code: str) -> Reason | None:
    return Reason(code, f"cannot use it: {code}", "rclone", "x", "a hint") if code else None


def looks(*codes: str, lacks_room: bool = False) -> Looks:
    """One after the other, a second each."""
    return reduce(lambda found, each: found.after(each[0], each[1], lacks_room=lacks_room), enumerate(codes), Looks())


def used() -> Bypass:
    """Of a mount that was started with its cache."""
    bypass = Bypass("x")
    bypass.begin(None)
    assert not bypass.works()
    return bypass


def bypassed(code: str = "cache-not-writable") -> Bypass:
    bypass = used()
    bypass.begin(reason(code))
    return bypass


def returned(bypass: Bypass) -> None:
    """By its own decision."""
    bypass.decide(Looks())
    bypass.begin(None)
    assert bypass.works()


# -- which mounts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "may"),
    [
        (mount(), True),
        (mount(options={"vfs-cache-mode": "Full"}), True),
        (mount({"on_failure": "stop"}), False),
        (mount(profile="outputs"), False),
        (mount(profile="outputs", options={"read-only": True}), True),
        (mount(profile="small"), True),
        (mount(profile="plain"), False),
        (mount(options={"vfs-cache-mode": "off"}), False),
        (mount(options={"vfs-cache-mode": "minimal"}), False),
    ],
)
def test_only_mounts_that_read_through_their_cache_and_write_nothing(given: MountSettings, may: bool) -> None:
    assert may_bypass(given) is may
    assert used().is_open_to(given) is may


def test_a_directory_that_never_worked_is_a_mistake() -> None:
    bypass = Bypass("x")
    assert not bypass.is_open_to(mount())
    bypass.begin(None)
    assert not bypass.is_open_to(mount()), "rclone has not said that it uses it"


def test_one_that_a_previous_run_has_used_is_none() -> None:
    assert Bypass("x").is_open_to(mount(), was_used=True)
    assert not Bypass("x").is_open_to(mount({"on_failure": "stop"}), was_used=True)


# -- giving it up -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "lacks_room", "gives_up"),
    [
        ((), False, False),
        (("cache-not-writable",), False, False),
        (("cache-not-writable", "cache-not-writable"), False, True),
        (("cache-not-writable", "", "cache-not-writable"), False, False),
        (("cache-taken", "cache-not-writable"), False, True),
        (("cache-full", "cache-full", "cache-full"), False, False),
        (("cache-full", "cache-full"), True, False),
        (("cache-full", "cache-full", "cache-full"), True, True),
        (("cache-full", "cache-full", "cache-not-writable"), True, True),
        (("cache-full", "", "cache-full", "cache-full"), True, False),
        (("cache-not-writable", "cache-full"), False, False),
        # A disk that does not answer mountd may well answer rclone.
        (("cache-silent", "cache-silent", "cache-silent"), True, False),
    ],
)
def test_given_up_when_reads_fail_for_it_at_some_looks_in_a_row(
    found: tuple[str, ...], lacks_room: bool, gives_up: bool
) -> None:
    seen = looks(*found, lacks_room=lacks_room)
    assert seen.give_up is gives_up
    assert bool(used().restart(seen, 100.0, mount())) is gives_up
    assert not used().restart(seen, 100.0, mount({"on_failure": "stop"}))


def test_the_second_look_comes_sooner() -> None:
    assert looks("").pause_s == looks("cache-full").pause_s == CACHE_INTERVAL_S
    assert looks("cache-not-writable").pause_s == AGAIN_S


@pytest.mark.parametrize(
    ("line", "counts"),
    [
        (f"vfs cache: failed to open item: vfs cache item: _save failed: {ENOSPC}", True),
        (f"IO error: open RW handle failed to open cache file: {ENOSPC}", True),
        (f"vfs reader: failed to write to cache file: {ENOSPC}", True),
        (f"vfs cache item: failed to write metadata file: {ENOSPC}", False),
        ("vfs cache: failed to open item: read-only file system", False),
        ("vfs reader: failed to read: no such key", False),
    ],
)
def test_what_rclone_says_of_reads_that_lack_room(line: str, counts: bool) -> None:
    bypass = used()
    bypass.hear(line)
    assert bypass.lacks_room is counts
    full = Looks()
    for now in (1.0, 2.0, 3.0):
        full = bypass.look(full, now, reason("cache-full"))
    assert full.give_up is counts


def test_room_that_was_made_meanwhile_counts() -> None:
    bypass = used()
    bypass.hear(f"failed to open item: {ENOSPC}")
    seen = bypass.look(bypass.look(Looks(), 1.0, reason("cache-full")), 2.0, None)
    assert not bypass.lacks_room
    for now in range(3, 9):
        seen = bypass.look(seen, float(now), reason("cache-full"))
        assert not seen.give_up


@given(st.lists(st.tuples(st.sampled_from(CODES), st.booleans())))
def test_nothing_is_given_up_that_reads_do_not_fail_for(history: list[tuple[str, bool]]) -> None:
    seen = Looks()
    for now, (code, lacks_room) in enumerate(history):
        seen = seen.after(now, code, lacks_room=lacks_room)
    last = history[-3:] if history and history[-1][0] == "cache-full" else history[-2:]
    fails = [code in ("cache-not-writable", "cache-taken") or (code == "cache-full" and lacks) for code, lacks in last]
    assert seen.give_up is (len(fails) >= 2 and len(last) == (3 if last[-1][0] == "cache-full" else 2) and all(fails))
    assert (seen.well_since is not None) is bool(history and not history[-1][0])


# -- going back -------------------------------------------------------------------------------------------------------


def test_back_once_it_was_well_for_a_while() -> None:
    bypass = bypassed()
    seen = bypass.look(Looks(), 100.0, reason("cache-not-writable"))
    assert not bypass.restart(seen, 100.0, mount())
    for now in (105.0, 110.0, 115.0):
        seen = bypass.look(seen, now, None)
    assert not bypass.restart(seen, 105.0 + HOLD_S - 0.1, mount())
    assert bypass.restart(seen, 105.0 + HOLD_S, mount())
    seen = bypass.look(seen, 110.0, reason("cache-not-writable"))
    assert not bypass.restart(seen, 200.0, mount())


def test_a_policy_that_has_become_another_one_goes_back_at_once() -> None:
    bypass, stop = bypassed(), mount({"on_failure": "stop"})
    seen = bypass.look(Looks(), 100.0, reason("cache-not-writable"))
    assert not bypass.restart(seen, 100.0, stop)
    assert bypass.restart(bypass.look(seen, 105.0, None), 105.0, stop)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 1500)), max_size=12))
def test_a_disk_that_comes_and_goes_restarts_rclone_at_most_twice_in_each_hold(spans: list[tuple[bool, int]]) -> None:
    """`spans`: whether the disk is well, and for how many seconds; the app loses its files at each restart."""
    bypass, seen, now, restarts = used(), Looks(), 0.0, 0
    for is_well, span_s in spans:
        end = now + span_s
        while now < end:
            seen = bypass.look(seen, now, None if is_well else reason("cache-not-writable"))
            if bypass.restart(seen, now, mount()):
                restarts += 1
                bypass.decide(seen)
                bypass.begin(bypass.found)
                seen = Looks()
                assert bypass.active or bypass.works()
            now += seen.pause_s
    assert restarts <= 2 * (now // HOLD_S) + 1


def test_a_try_that_fails_is_without_the_cache_until_the_next() -> None:
    bypass = bypassed()
    bypass.decide(Looks())
    states = [bypass.state]
    bypass.begin(reason("cache-full"))
    states.append(bypass.state)
    assert bypass.active
    returned(bypass)
    states.append(bypass.state)
    assert states == [CacheState.TRYING, CacheState.WITHOUT, CacheState.WITH]


def test_a_try_that_fails_for_another_cause_is_a_try_again() -> None:
    bypass = bypassed()
    bypass.decide(Looks())
    for _ in range(2):
        bypass.begin(None)
        assert (bypass.state, bypass.active) == (CacheState.TRYING, False)
    assert bypass.works()


def test_starts_for_other_causes_change_nothing() -> None:
    """It crashes, is replaced, has new secrets: also when the directory is well by then."""
    bypass = bypassed()
    for code in ("cache-not-writable", "", "cache-full", ""):
        bypass.begin(reason(code))
        assert bypass.active


def test_what_was_decided_is_done_also_when_it_is_well_by_then() -> None:
    """Or an app would be restarted repeatedly by a disk that is bad for some seconds each time."""
    bypass = used()
    bypass.decide(looks("cache-taken", "cache-taken"))
    bypass.begin(None)
    assert (bypass.active, bypass.reason is None) == (True, False)
    returned(bypass)
    assert (bypass.active, bypass.reason) == (False, None)


@pytest.mark.parametrize(
    ("bypass", "strict"),
    [
        (used(), False),
        (bypassed(code="cache-not-writable"), False),
        (bypassed(code="cache-full"), True),
    ],
)
def test_room_that_rclone_could_make_counts_unless_it_could_not(bypass: Bypass, strict: bool) -> None:
    assert bypass.is_strict is strict
    bypass.begin(None)
    assert bypass.is_strict is strict, "whatever its start was for"
    bypass.ask()
    assert not bypass.is_strict, "a person may try"


def test_reads_that_failed_on_a_full_disk_make_it_strict() -> None:
    bypass = used()
    bypass.decide(looks("cache-full", "cache-full", "cache-full", lacks_room=True))
    assert bypass.is_strict
    bypass.begin(None)
    assert (bypass.active, bypass.is_strict) == (True, True)
    returned(bypass)
    assert not bypass.is_strict


def test_a_person_brings_it_back_at_once() -> None:
    bypass = bypassed()
    bypass.ask()
    bypass.begin(None)
    assert not bypass.active
    fine = used()
    fine.ask()
    fine.begin(None)
    assert not fine.active


def test_what_rclone_refuses_is_done_without_until_it_does_not() -> None:
    bypass, off = used(), reason("cache-off")
    assert off is not None
    for now in range(3):
        bypass.refuse(off)
        bypass.begin(None)
        assert bypass.active
        bypass.look(Looks(), now, None)
        assert bypass.reason is not None
        assert bypass.reason.code == "cache-off"
        bypass.decide(Looks())
        bypass.begin(None)
        assert not bypass.active
    assert bypass.works()
    bypass.begin(reason("cache-full"))
    bypass.look(Looks(), 10.0, None)
    assert bypass.reason is not None
    assert bypass.reason.code == "cache-bypassed"


def test_a_configuration_that_forbids_it_ends_it() -> None:
    bypass = bypassed()
    bypass.decide(Looks())
    bypass.forbid()
    bypass.begin(None)
    assert not bypass.active


# -- what is shown -----------------------------------------------------------------------------------------------------


def test_what_is_shown() -> None:
    bypass = used()
    reasons = [bypass.reason]
    bypass.look(Looks(), 1.0, reason("cache-full"))
    reasons.append(bypass.reason)
    bypass.begin(reason("cache-not-writable"))
    reasons.append(bypass.reason)
    assert reasons == [None, reason("cache-full"), reason("cache-not-writable")]
    bypass.look(Looks(), 3.0, None)
    bypassed_for = bypass.reason
    assert bypassed_for is not None
    assert bypassed_for.code == "cache-bypassed"
    assert "mountd restart x" in bypassed_for.hint
    returned(bypass)
    assert bypass.reason is None
