"""Kills a change of a store of pinned files at each of its steps: `killed_store.py CHANGE DIRECTORY`.

Prints JSON: at how many points it was killed, and what was wrong then. A step is what Python's audit events show: an
open, a rename, a link, a removal, a directory, a mode. A process of its own because it forks, which threads of a test
would not survive.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from mountd.warm.store import PinStore
from tests.support.pinning import DIGEST, MODEL, bring, held, pin, problems, sha256_of, wanted

STEPS = ("open", "os.rename", "os.link", "os.remove", "os.rmdir", "os.mkdir", "os.chmod")
OLD = {"gpt.pth": b"old", "both": b"both", "a/b/c": b"deep", "empty": b""}
NEW = {"gpt.pth": b"new", "both": b"both", "a/b/c": b"deeper", "a/twice": b"new", "模型/#.pt": b"cjk"}
DAMAGED = {"gpt.pth": b"nEw", "a/twice": b"nEw"}
KEPT = {"kept": b"kept", "both": b"both"}


def prepare(store: PinStore, change: str) -> None:
    """The state before: `kept` is always pinned."""
    pin(store, "kept", KEPT)
    match change:
        case "accept":
            bring(store, NEW.values())
            (store.incoming / f"{sha256_of(b'new')}.partial").write_bytes(b"ne")
        case "build":
            store.accept_all(bring(store, NEW.values()))
        case "build-over-what-does-not-count":
            pin(store, "new", OLD)
            os.unlink(store.place / "trees" / MODEL / ".new.json")
            store.accept_all(bring(store, NEW.values()))
        case "build-where-a-tree-was-lost":
            pin(store, "new", OLD)
            shutil.rmtree(store.tree(MODEL, "new"))
            store.accept_all(bring(store, NEW.values()))
        case "repair":
            pin(store, "new", NEW)
            damaged = store.tree(MODEL, "new") / "gpt.pth"
            damaged.chmod(0o644)
            damaged.write_bytes(b"nEw")
            store.drop([sha256_of(b"new")])
            store.accept_all(bring(store, [b"new"]))
        case "remove" | "sweep":
            pin(store, "new", NEW)
            bring(store, [b"left over"])
            store.accept_all(bring(store, [b"wanted"]))


def carry_out(store: PinStore, change: str) -> None:
    match change:
        case "accept":
            store.accept_all({each: size for each, size in SIZES.items() if (store.incoming / each).exists()})
        case "remove":
            store.remove(MODEL, "new")
        case "sweep":
            store.sweep({(MODEL, "kept")}, wanted=[sha256_of(b"wanted")])
        case _:
            store.build(MODEL, "new", wanted(NEW), digest=DIGEST)


SIZES = {each.sha256: each.size for each in wanted(NEW) if each.sha256}


def check(store: PinStore, change: str, *, done: bool) -> list[str]:
    """What is wrong; `done`: the change was carried out to its end."""
    found = [] if change == "repair" and not done else problems(store)
    if held(store.tree(MODEL, "kept")) != KEPT or store.pinned(MODEL, "kept") is None:
        found.append("the kept version is damaged")
    record = store.pinned(MODEL, "new")
    files = held(store.tree(MODEL, "new"))
    before = NEW if change != "repair" else {**NEW, **DAMAGED}
    if record is not None and (
        files.keys() != NEW.keys() or any(files[each] not in (NEW[each], before[each]) for each in NEW)
    ):
        found.append(f"it counts as pinned with {files}")
    if change in ("accept", "build", "repair"):
        gone = [each for each in store.lacking(wanted(NEW)) if not (store.incoming / each).exists()]
        found += [f"{each} is lost" for each in gone]
    if done:
        found += [f"left in work: {name}" for name in os.listdir(store.place / "work")]
        if (record is None) is (change not in ("accept", "remove", "sweep")):
            found.append(f"record {record} in the end")
        if change == "sweep" and store.usage().objects != len(set(KEPT.values())) + 1:
            found.append("something stays, or what is wanted went")
    return found


def kill_at(point: int, work: Callable[[], None]) -> bool:
    """Runs `work` in a child that is killed before its step `point`; whether it had one."""
    child = os.fork()
    if child == 0:
        left = point

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event in STEPS:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        try:
            work()
        finally:
            os._exit(0 if sys.exc_info()[0] is None else 1)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0, "the change failed"
        return False
    return True


def main(change: str, directory: Path) -> None:
    points, wrong = 0, list[str]()
    while True:
        store = PinStore(directory / str(points))
        prepare(store, change)
        killed = kill_at(points, lambda: carry_out(store, change))  # noqa: B023
        again = PinStore(store.place)
        wrong += [f"after {points}: {each}" for each in check(again, change, done=not killed)]
        if not killed:
            break
        if points % 2 == 0:  # also killed the second time, a few steps later
            kill_at(points // 2, lambda: carry_out(again, change))  # noqa: B023
            wrong += [f"again after {points}: {each}" for each in check(again, change, done=False)]
        carry_out(again, change)
        wrong += [f"done after {points}: {each}" for each in check(again, change, done=True)]
        points += 1
    print(json.dumps({"points": points, "wrong": wrong}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
