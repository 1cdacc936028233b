"""What can be done to a daemon with versions, and a model of what must hold after each of it, whatever the order."""

from __future__ import annotations

import functools
import math
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from mountd.errors import Busy, NotFound, Refused
from mountd.model.drift import HEAL_WINDOW_S, HEALS_PER_WINDOW
from mountd.operation.plan import Step
from tests.support.daemon import Daemon
from tests.support.proxy import Proxy
from tests.support.versioned import Versioned
from tests.support.wait import until

SOON_S = 60.0
"""For what takes seconds, on a busy machine; the longest pause between two remounts is a minute."""
HEALED_S = 20.0
"""mountd promises 2, not on a busy machine; its daemon heals only by what it hears."""
GOOD = ("v22", "v23", "odd")
CRASHING, GATED, INCOMPLETE, MISSING = "crashing", "gated", "bad", "v99"
VERSIONS = st.sampled_from([*GOOD, *GOOD, CRASHING, GATED, INCOMPLETE, MISSING])
STEPS = st.sampled_from(list(Step))


def act(**given: Any) -> Callable[[Callable[..., None]], Any]:
    """A rule, shown when another one fails. Does nothing the second time on end, and once the time is over."""

    def decorate(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def carried_out(self: World, **drawn: Any) -> None:
            line = " ".join([function.__name__, *map(str, drawn.values())])
            if time.monotonic() < self.ends and line not in self.reported[-1:]:
                if self.begun is None:
                    self.begun = self.begin()
                    self.ends = time.monotonic() + self.each_s
                self.reported.append(line)
                try:
                    function(self, **drawn)
                    self.check()
                except Exception as error:
                    self.failed = True
                    raise AssertionError(f"{error}\nafter {'; '.join(self.reported)}") from error

        wrap: Callable[..., Any] = rule(**given)
        return wrap(carried_out)

    return decorate


class World(RuleBasedStateMachine):
    """What is done to a daemon, and what must be true of it. After `each_s` nothing more is begun."""

    proxy: Proxy
    each_s = math.inf
    ends = math.inf
    begin: Callable[[], Versioned]
    begun: Versioned | None = None
    """with the first rule that does something: `begin` takes seconds"""

    def __init__(self) -> None:
        super().__init__()
        self.reported: list[str] = []
        self.failed = False
        self.live, self.desired = "v23", "v23"
        self.previous: str | None = None
        self.quarantined: set[str] = set()
        self.operations = 0
        self.last: tuple[str, str] | None = None
        """of the newest operation: where it led to, and its result"""
        self.declared, self.waits = "v23", False
        """what stands in the file, and whether it is switched to as soon as it can be"""
        self.paused = False
        self.down = False
        self.stranded = False
        """something died in the outage: what it was comes back with the bucket"""
        self.drifted = ""
        """how the link was changed while nobody heals it"""
        self.unplaced = False
        """it was removed, and mountd has started again since: it is placed as soon as the model is loaded"""
        self.heals: list[float] = []

    @property
    def at(self) -> Versioned:
        assert self.begun is not None
        return self.begun

    @property
    def daemon(self) -> Daemon:
        return self.at.daemon

    @rule()
    def all_is_quiet(self) -> None:
        """By its name the simplest rule of all, which a whole example begins with and consists of."""

    # -- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Within its time, whatever was done."""
        seen = [""]

        def holds() -> bool:
            try:
                self._check()
            except AssertionError as error:
                seen[0] = str(error)
                return False
            return True

        try:
            until(holds, SOON_S, "all to agree", every_s=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen[0]}") from None

    def _check(self) -> None:
        status = self.daemon.status()
        model = status["models"]["cache_hub"]
        assert (model["current"], model["previous"], model["desired"]) == (self.live, self.previous, self.desired)
        assert (model["suspended"] is not None) == self.paused
        assert status["operation"] is None
        newest = self.at.newest()
        assert (newest and (newest["to"], newest["result"])) == self.last
        if self.drifted or self.stranded:
            assert self.drifted or self.at.linked() == self.live
            if self.drifted == "other" and not self.stranded:
                assert status["apps"]["webui"]["versions"] == {"cache_hub": self.daemon.page()["version"]}
            return
        assert status["ready"], status["reasons"]
        self.at.check_agrees(self.live)
        assert model["sync"] == ("Synced" if self.live == self.desired else "OutOfSync")

    def steady(self) -> tuple[int | None, int | None]:
        """Whom nobody restarts without a reason."""
        status = self.daemon.status()
        return status["apps"]["webui"]["pid"], status["mounts"]["storage"]["pid"]

    # -- operations -----------------------------------------------------------------------------------------------

    def allowed(self, to: str, *, force: bool = False) -> int:
        """The exit code of a switch."""
        if self.down:
            return 1
        if to in (INCOMPLETE, MISSING):
            return 7 if to == INCOMPLETE else 3
        if to in GOOD:
            return 0
        return 7 if to in self.quarantined and not force else 5

    def learn(self, kind: str, *, source: str = "cli") -> dict[str, Any]:
        """How the next operation of the history ended; the model of the link follows it."""
        self.operations += 1

        def finished() -> dict[str, Any] | None:
            operation = self.at.get(f"history/{self.operations}")
            return operation if operation["finished"] else None

        ended = until(finished, SOON_S, f"the result of operation {self.operations}", every_s=0.05)
        assert ended is not None
        to, result = ended["to"], ended["result"]
        assert (ended["kind"], ended["source"], ended["from"]) == (kind, source, self.live), ended
        self.last = to, result
        if result == "committed":
            if to != self.live:
                self.live, self.previous = to, self.live
            self.desired = to
        self.waits = self.waits and self.live != self.desired == self.declared
        if result in ("committed", "rolled-back"):
            self.drifted = ""
        return ended

    def ask(self, kind: str, to: str, **body: Any) -> None:
        before = self.steady()
        try:
            answer = self.at.ask(kind, **body)
        except NotFound:
            assert (kind, self.previous) == ("rollback", None)
            return
        if answer["unchanged"]:
            assert (to, self.drifted) == (self.live, "")
            self.desired, self.waits = to, False
            return
        ended = self.learn(kind)
        code = ended["error"]["exit"] if ended["error"] else 0
        wanted = 1 if self.down else self.allowed(to, force=bool(body.get("force")))
        assert code == wanted, ended
        if code == 5:
            self.quarantined.add(to)
        if code in (1, 3, 7) and not self.stranded:
            assert self.steady() == before, "nothing was changed"

    @act(version=VERSIONS, force=st.booleans())
    def switch(self, version: str, force: bool) -> None:
        self.ask("switch", version, version=version, force=force)

    @act()
    def roll_back(self) -> None:
        self.ask("rollback", self.previous or "")

    @act(version=st.sampled_from([*GOOD, MISSING]))
    def declare(self, version: str) -> None:
        """In the file."""
        if self.stranded or self.down or version == self.declared:
            return
        self.daemon.config["models"]["cache_hub"]["version"] = version
        self.daemon.write_config()
        self.at.ask("reload")
        self.declared = self.desired = version
        self.waits = version != self.live
        self.follow()

    def follow(self) -> None:
        """What the file asks for is done by itself, when nobody has paused that."""
        if self.waits and not self.paused and not self.stranded:
            self.waits = False
            ended = self.learn("switch", source="config")
            code = ended["error"]["exit"] if ended["error"] else 0
            assert (ended["to"], code) == (self.declared, self.allowed(self.declared)), ended

    @act(version=st.sampled_from(GOOD), step=STEPS)
    def switch_and_cancel(self, version: str, step: Step) -> None:
        if version == self.live or self.down:
            with pytest.raises(NotFound):
                self.at.ask("cancel")
            return
        self.at.ask("switch", version=version)
        with pytest.raises(Busy):
            self.at.ask("switch", version=version)
        until(lambda: self.has_come_to(step), SOON_S, f"the step {step}", every_s=0.005)
        try:
            self.at.ask("cancel")
            cancelled = True
        except (NotFound, Refused):
            cancelled = False
        ended = self.learn("switch")
        assert ended["result"] in (("cancelled", "rolled-back") if cancelled else ("committed",)), ended

    def has_come_to(self, step: Step) -> bool:
        operation = self.daemon.status()["operation"]
        return operation is None or list(Step).index(operation["step"]) >= list(Step).index(step)

    # -- kills ----------------------------------------------------------------------------------------------------

    @act()
    def kill_the_app(self) -> None:
        app, _ = self.steady()
        if app is None:
            return
        os.kill(app, signal.SIGKILL)
        self.stranded = self.stranded or self.down
        until(lambda: self.steady()[0] != app, SOON_S, "mountd to see that the app has ended")

    @act()
    def kill_rclone(self) -> None:
        app, rclone = self.steady()
        if rclone is None:
            return
        os.kill(rclone, signal.SIGKILL)
        self.stranded = self.stranded or self.down
        until(lambda: self.steady()[1] != rclone, SOON_S, "mountd to see that rclone has ended")
        if not self.down:  # one that is killed in its start as well is waited with, and then nothing can be switched
            until(
                lambda: self.daemon.status()["mounts"]["storage"]["state"] == "running", SOON_S, "the mount to be back"
            )
            if self.drifted == "other" and app is not None:  # nobody has loaded its names: in an outage it cannot start
                until(lambda: self.steady()[0] not in (None, app) and self.daemon.page(), SOON_S, "the app to be back")

    @act(
        both=st.booleans(),
        version=st.none() | st.sampled_from(GOOD),
        after_s=st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2]),
    )
    def kill_mountd(self, both: bool, version: str | None, after_s: float) -> None:
        """At rest, or somewhere in a switch."""
        status = self.daemon.status()
        busy = version not in (None, self.live) and not self.down
        if busy:
            self.at.ask("switch", version=version)
            time.sleep(after_s)
        assert self.daemon.process is not None
        if both:
            os.kill(self.daemon.process.pid, signal.SIGKILL)
        os.kill(status["pid"], signal.SIGKILL)
        self.daemon.wait_exit()
        if not self.drifted:
            assert self.at.linked() in (self.live, version)
        self.daemon.start()
        until(self.daemon.status, SOON_S, "mountd to answer", every_s=0.1)
        if busy:
            ended = self.learn("switch")
            assert ended["result"] in ("committed", "rolled-back", "interrupted"), ended
        self.unplaced = self.drifted == "removed"
        self.stranded = self.down
        self.place()
        self.waits = self.live != self.desired == self.declared
        self.follow()

    def place(self) -> None:
        """A new run knows of no link that somebody has removed: it places one, paused or not, once it has the bucket.

        One that points elsewhere is seen to be somebody else's, and is left alone.
        """
        if self.unplaced and not self.down:
            self.drifted, self.unplaced = "", False

    # -- drift ----------------------------------------------------------------------------------------------------

    @act(how=st.sampled_from(["removed", "other", "nowhere"]))
    def drift(self, how: str) -> None:
        now = time.monotonic()
        recent = [heal for heal in self.heals if now - heal < HEAL_WINDOW_S + HEALED_S]
        if self.stranded or self.drifted or len(recent) >= HEALS_PER_WINDOW:
            return
        before = self.steady()
        link = self.daemon.link
        if how == "removed":
            link.unlink()
        else:
            other = next(each for each in GOOD if each != self.live)
            fresh = link.with_name("fresh")
            fresh.symlink_to(self.daemon.mount / f"cache_hub_{other}" if how == "other" else "/nowhere")
            fresh.replace(link)
        if self.paused:
            self.drifted = how
            until(lambda: "link-drifted" in self.daemon.reasons(), HEALED_S, "the link to be seen")
            return
        self.heals.append(now)
        until(self.is_healed, HEALED_S, "the link to be healed")
        assert self.steady() == before

    def is_healed(self) -> bool:
        return os.readlink(self.daemon.link) == f"{self.daemon.mount}/cache_hub_{self.live}"

    @act()
    def pause(self) -> None:
        self.at.ask("pause", reason="by hand")
        self.paused = True

    @act()
    def resume(self) -> None:
        self.at.ask("resume")
        self.paused = False
        self.follow()  # a switch that waited may move the link before anybody has healed it
        if self.drifted and not self.stranded:
            self.heals.append(time.monotonic())
            until(self.is_healed, HEAL_WINDOW_S + HEALED_S, "the link to be healed")
            self.drifted = ""

    # -- the bucket -----------------------------------------------------------------------------------------------

    @act()
    def outage_begins(self) -> None:
        before = self.steady()
        self.proxy.down()
        self.down = True
        assert self.stranded or self.steady() == before

    @act()
    def outage_ends(self) -> None:
        if not self.down:
            return
        before, was_stranded = self.steady(), self.stranded
        self.proxy.up()
        self.down = self.stranded = False
        self.place()

        def well() -> bool:
            status = self.daemon.status()
            return bool(status["mounts"]["storage"]["health"] == "Healthy")

        until(well, SOON_S, "the mount to be well", every_s=0.1)
        self.follow()
        if not was_stranded:
            assert self.steady() == before
