"""Before an app starts: does its GPU have the memory that it needs, and does a command of the administrator's succeed.

It is part of each start, also of the one in a switch: only then the old process, which holds the memory of the GPU, is
gone, and the link leads to the new version, which the command is to load. So a switch checks after `stop` and `flip`,
before the app's process exists, and what fails brings the previous version back as a failed start does.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable, Mapping, Sequence

from mountd.app import exits, gpus
from mountd.app.gpus import Gpu, NoSuchGpu
from mountd.app.ready import WAITING
from mountd.errors import CannotStart, CommandTimeout, MountdError
from mountd.process import launch, tool
from mountd.process.child import User
from mountd.settings import masking
from mountd.settings.preflight import PreflightSettings
from mountd.settings.schema import AppSettings
from mountd.status.snapshot import Reason, size

ASK_S = 30.0
"""For one call of nvidia-smi: it initialises a driver that nobody has used, and hangs with one that is broken."""
FREED_S = 10.0
"""What a process that was killed held on the GPU is free a moment later, not at once."""
AGAIN_S = 0.5
KILL_S = 2.0
"""To kill a command that has exceeded its timeout."""
LONGEST_SAID = 300
_DRIVER = {
    6: "no GPU is passed to it",
    9: "the driver is not loaded",
    12: "the driver's library is missing",
}
"""Exit codes of nvidia-smi, as its manual has them."""
_FLAG = "in a container pass it: --gpus all (Podman: --device nvidia.com/gpu=all; Kubernetes: limits of nvidia.com/gpu)"


def limit_s(app: AppSettings) -> float:
    """How long `check` may take."""
    return app.preflight.timeout + KILL_S if app.preflight is not None else 0.0


async def check(
    name: str,
    app: AppSettings,
    *,
    environment: Mapping[str, str],
    user: User | None,
    shown: Reason | None,
    show: Callable[[Reason], None],
) -> None:
    """Returns when the app may be started. Raises CannotStart, at the latest after `limit_s`.

    `show` is called with what is waited for, unless `shown`, why it is down, says more.
    """
    if app.preflight is None:
        return
    checking = _Check(name, app, app.preflight, environment, user)
    if app.preflight.gpu_memory is not None:
        if shown is None or shown.code == WAITING:
            show(_waiting(name, "its GPU"))
        await checking.gpu(FREED_S)
    if app.preflight.command is not None:
        if shown is None or shown.code == WAITING:
            show(_waiting(name, shlex.join(masking.command(app.preflight.command))))
        await checking.command(app.preflight.command)


async def check_gpu(name: str, app: AppSettings, *, environment: Mapping[str, str], user: User | None) -> None:
    """Of `check` what it does with the GPU, at once. Raises CannotStart."""
    if app.preflight is not None and app.preflight.gpu_memory is not None:
        await _Check(name, app, app.preflight, environment, user).gpu(0.0)


def _waiting(name: str, what: str) -> Reason:
    text = f"{name} is checked before it starts: {what[:LONGEST_SAID]}"
    return Reason(WAITING, text, "app", name, f"apps.{name}.preflight says what must hold")


class _Check:
    def __init__(
        self,
        name: str,
        app: AppSettings,
        settings: PreflightSettings,
        environment: Mapping[str, str],
        user: User | None,
    ) -> None:
        self._name = name
        self._settings = settings
        self._environment = environment
        self._directory = str(app.directory)
        self._user = user
        self._ends = time.monotonic() + settings.timeout

    @property
    def _left_s(self) -> float:
        return max(0.1, self._ends - time.monotonic())

    # -- the GPU --------------------------------------------------------------------------------------------------

    async def gpu(self, wait_s: float) -> None:
        """Returns when each has enough memory free; what is missing may come within `wait_s` seconds."""
        until = min(self._ends, time.monotonic() + wait_s)
        lacking: CannotStart | None = None
        while True:
            try:
                found = await self._gpus()
            except CannotStart:
                if lacking is None or time.monotonic() < self._ends:
                    raise
                raise lacking from None  # the time was up in the middle of a question
            lacking = self._lacking(found)
            if lacking is None:
                return
            if time.monotonic() >= until:
                raise lacking
            await asyncio.sleep(AGAIN_S)

    async def _gpus(self) -> tuple[Gpu, ...]:
        """Those that the app is to use, with their memory."""
        listed = gpus.read_list(await self._ask(gpus.LIST))
        listed = gpus.with_memory(listed, await self._ask(gpus.MEMORY))
        if any(gpu.parts for gpu in listed):
            listed = gpus.with_memory_of_parts(listed, await self._ask(gpus.MEMORY_OF_PARTS))
        try:
            return gpus.chosen(listed, self._settings.gpu or (), self._environment.get(gpus.VISIBLE))
        except NoSuchGpu as error:
            hint = f"see apps.{self._name}.preflight.gpu, {gpus.VISIBLE} and `nvidia-smi -L`; {_FLAG}"
            raise self._cannot(str(error), hint, error.code) from None

    def _lacking(self, found: Sequence[Gpu]) -> CannotStart | None:
        needed = self._settings.gpu_memory
        assert needed is not None
        for gpu in found:
            if gpu.free is None or gpu.total is None:
                hint = f"take gpu_memory out of apps.{self._name}.preflight: this GPU shares the machine's memory"
                return self._cannot(f"nvidia-smi does not say how much memory {gpu} has free", hint, "gpu-unknown")
            if gpu.free < needed.of(gpu.total):
                hint = (
                    f"a GPU of {needed} or more is needed; see apps.{self._name}.preflight"
                    if gpu.total < needed.of(gpu.total)
                    else "another process holds it: `nvidia-smi` shows which; mountd tries again by itself"
                )
                text = f"{gpu} has {size(gpu.free)} of {size(gpu.total)} free, and {needed} are needed"
                return self._cannot(text, hint, "gpu-memory")
        return None

    async def _ask(self, argv: Sequence[str]) -> str:
        """The output of nvidia-smi, run as the app is: it sees what the app will see."""
        try:
            outcome = await tool.run(
                argv,
                timeout_s=min(ASK_S, self._left_s),
                environment=self._environment,
                directory="/",
                user=self._user,
                flood_lines=tool.ALL_LINES,
            )
        except CommandTimeout:
            hint = "the driver may hang: see `dmesg`; a reset of the GPU or a restart of the machine helps"
            raise self._cannot("nvidia-smi does not answer", hint, "gpu-unavailable") from None
        except MountdError as error:
            raise self._cannot(error.text, error.hint, "gpu-unavailable") from None
        if outcome.not_started is not None:
            missing = outcome.not_started.step == launch.MISSING
            hint = f"{_FLAG}; on a machine install the driver, or take gpu_memory out"
            text = "nvidia-smi was not found on the app's PATH" if missing else str(outcome.not_started)
            raise self._cannot(text, hint, "no-nvidia-smi")
        if outcome.code != 0:
            known = _DRIVER.get(outcome.code)
            said = f"nvidia-smi ended with {outcome}" + (f", {known}" if known else "") + _last(outcome.output)
            raise self._cannot(said, f"run `nvidia-smi` as the app's user; {_FLAG}", "gpu-unavailable")
        return outcome.output

    # -- the command ----------------------------------------------------------------------------------------------

    async def command(self, argv: Sequence[str]) -> None:
        timeout_s = self._left_s
        hint = f"run the command of apps.{self._name}.preflight as the app's user, in its directory"
        try:
            outcome = await tool.run(
                argv,
                timeout_s=timeout_s,
                environment=self._environment,
                directory=self._directory,
                user=self._user,
            )
        except CommandTimeout as error:
            text = f"its preflight command has not ended after {timeout_s:.0f} s{_last(error.output)}"
            hint += "; a large model may need a longer preflight.timeout"
            raise self._cannot(text, hint, "preflight-failed") from None
        except MountdError as error:
            raise self._cannot(error.text, error.hint or hint, "preflight-not-run") from None
        if outcome.not_started is not None:
            raise self._cannot(f"its preflight command cannot be run: {outcome}", hint, "preflight-not-run")
        if outcome.code != 0:
            # Killed by the kernel for want of memory, or by a person: the model is not at fault.
            code = "preflight-killed" if exits.is_from_outside(outcome) else "preflight-failed"
            raise self._cannot(f"its preflight command ended with {outcome}{_last(outcome.output)}", hint, code)

    def _cannot(self, cause: str, hint: str, code: str) -> CannotStart:
        return CannotStart(f"cannot start {self._name}: {cause}", hint=hint, code=code)


def _last(output: str) -> str:
    """`: ` and the last line that is not empty."""
    said = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    return f": {said[:LONGEST_SAID]}" if said else ""
