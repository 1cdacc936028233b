"""What keeps an app from being started: its GPU, as a real child asks for it, and a command of the administrator's."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from mountd.app import preflight
from mountd.errors import CannotStart
from mountd.settings.schema import AppSettings
from mountd.status.snapshot import Reason
from tests.support.fake_gpu import FakeGpu, FakeNvidiaSmi, uuid_of
from tests.support.wait import until_async

A, B, M = uuid_of(0), uuid_of(1), uuid_of(2, "MIG")
FAILED = Reason("app-exited", "webui ended with exit code 1", "app", "webui", "see its log")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "FREED_S", 0.0)
    monkeypatch.setattr(preflight, "AGAIN_S", 0.01)


@pytest.fixture
def smi(tmp_path: Path) -> FakeNvidiaSmi:
    return FakeNvidiaSmi(tmp_path / "bin", FakeGpu(A, free=8192), FakeGpu(B, free=20_000))


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


async def check(
    path: str | None,
    given: dict[str, Any] | None,
    environment: dict[str, str] | None = None,
    shown: Reason | None = None,
) -> list[Reason]:
    """What was shown meanwhile."""
    app = AppSettings.model_validate({"command": ["x"], "preflight": given})
    seen: list[Reason] = []
    whole = {"PATH": os.environ["PATH"] if path is None else path, **(environment or {})}
    await preflight.check("webui", app, environment=whole, user=None, shown=shown, show=seen.append)
    return seen


async def refused(path: str | None, given: dict[str, Any], environment: dict[str, str] | None = None) -> CannotStart:
    with pytest.raises(CannotStart) as caught:
        await check(path, given, environment)
    assert caught.value.text.startswith("cannot start webui: ")
    assert caught.value.hint
    assert caught.value.retry_s is None, "it backs off as after any start that fails"
    return caught.value


async def test_without_one_nothing_is_asked(smi: FakeNvidiaSmi) -> None:
    assert await check(smi.path, None) == []
    assert smi.asked == []


@pytest.mark.parametrize(
    ("given", "environment", "code"),
    [
        ({"gpu_memory": "8G"}, {}, ""),
        ({"gpu_memory": "33%"}, {}, ""),
        ({"gpu_memory": "34%"}, {}, "gpu-memory"),
        ({"gpu_memory": "9G"}, {}, "gpu-memory"),
        ({"gpu_memory": "9G"}, {"CUDA_VISIBLE_DEVICES": "1"}, ""),
        ({"gpu_memory": "9G"}, {"CUDA_VISIBLE_DEVICES": B}, ""),
        ({"gpu_memory": "1G"}, {"CUDA_VISIBLE_DEVICES": ""}, "gpu-hidden"),
        ({"gpu_memory": "9G", "gpu": "1"}, {}, ""),
        ({"gpu_memory": "9G", "gpu": B}, {}, ""),
        ({"gpu_memory": "9G", "gpu": ["1", "0"]}, {}, "gpu-memory"),
        ({"gpu_memory": "1G", "gpu": "2"}, {}, "gpu-missing"),
        ({"gpu_memory": "1G", "gpu": "0:0"}, {}, "gpu-missing"),
    ],
)
async def test_the_memory_of_a_gpu(
    smi: FakeNvidiaSmi, given: dict[str, Any], environment: dict[str, str], code: str
) -> None:
    if not code:
        (shown,) = await check(smi.path, given, environment)
        assert (shown.code, shown.object) == ("app-starting", "webui")
        assert smi.asked == ["-L", "--query-gpu=uuid,memory.total,memory.free --format=csv,noheader,nounits"]
    else:
        assert (await refused(smi.path, given, environment)).code == code


async def test_the_memory_of_a_part_of_a_gpu(smi: FakeNvidiaSmi) -> None:
    smi.has(FakeGpu(A, free=20), FakeGpu(B, free=None, parts=(FakeGpu(M, 4096, 19_968), FakeGpu(uuid_of(3, "MIG"), 1))))
    for device in (M, "1:0", "1"):
        await check(smi.path, {"gpu_memory": "4G", "gpu": device})
        short = await refused(smi.path, {"gpu_memory": "5G", "gpu": device})
        assert (short.code, M in short.text, "4.0 GiB" in short.text) == ("gpu-memory", True, True)


async def test_what_helps_differs(smi: FakeNvidiaSmi) -> None:
    assert "tries again" in (await refused(smi.path, {"gpu_memory": "9G"})).hint
    assert "a GPU of 90G or more" in (await refused(smi.path, {"gpu_memory": "90G"})).hint
    smi.has(FakeGpu(A, free=None, total=None))
    assert (await refused(smi.path, {"gpu_memory": "1G"})).code == "gpu-unknown"
    smi.fail(9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    broken = await refused(smi.path, {"gpu_memory": "1G"})
    assert (broken.code, "couldn't communicate" in broken.text) == ("gpu-unavailable", True)
    without = await refused("/nowhere", {"gpu_memory": "1G"})
    assert (without.code, "--gpus all" in without.hint) == ("no-nvidia-smi", True)


async def test_an_nvidia_smi_that_hangs_is_not_waited_for(smi: FakeNvidiaSmi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "ASK_S", 0.2)
    smi.hang()
    assert (await refused(smi.path, {"gpu_memory": "1G"})).code == "gpu-unavailable"


async def test_memory_that_a_killed_process_still_holds_is_waited_for(
    smi: FakeNvidiaSmi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "FREED_S", 60.0)
    smi.has(FakeGpu(A, free=1))
    checking = asyncio.create_task(check(smi.path, {"gpu_memory": "8G"}))
    await until_async(lambda: smi.asked.count("-L") > 1, 30, "a second look")
    assert not checking.done()
    smi.has(FakeGpu(A, free=8192))
    await asyncio.wait_for(checking, 30)
    smi.has(FakeGpu(A, free=1))
    assert (await refused(smi.path, {"gpu_memory": "8G", "timeout": "3s"})).code == "gpu-memory", "no longer than that"


@pytest.mark.parametrize(
    ("code", "word", "reason"),
    [
        ("raise SystemExit(3)", "exit code 3", "preflight-failed"),
        ("print('loading', flush=True); raise SystemExit('no such tensor')", "no such tensor", "preflight-failed"),
        ("import os; os.abort()", "SIGABRT", "preflight-failed"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL", "preflight-killed"),
        ("print('loading', flush=True); import time; time.sleep(60)", "loading", "preflight-failed"),
    ],
)
async def test_a_command_that_fails(code: str, word: str, reason: str) -> None:
    given = {"command": python(code), "timeout": "1s" if "sleep" in code else "60s"}
    failed = await refused(None, given)
    assert (failed.code, word in failed.text) == (reason, True), failed.text


async def test_a_command_that_cannot_be_run() -> None:
    assert (await refused(None, {"command": ["/nowhere/check"]})).code == "preflight-not-run"


async def test_a_command_runs_as_the_app_does(smi: FakeNvidiaSmi, tmp_path: Path) -> None:
    code = "import os; open('seen', 'w').write(os.environ['A'])"
    given = {"command": [*python(code), "--token", "s3cret"], "gpu_memory": "1G"}
    app = AppSettings.model_validate({"command": ["x"], "directory": str(tmp_path), "preflight": given})
    seen: list[Reason] = []
    environment = {"PATH": smi.path, "A": "of the app"}
    await preflight.check("webui", app, environment=environment, user=None, shown=None, show=seen.append)
    assert (tmp_path / "seen").read_text() == "of the app"
    assert len(seen) == 2
    assert "s3cret" not in str(seen)


async def test_why_it_is_down_stays_on_show(smi: FakeNvidiaSmi) -> None:
    assert await check(smi.path, {"gpu_memory": "1G"}, shown=FAILED) == []


def test_how_long_it_may_take() -> None:
    app = AppSettings.model_validate({"command": ["x"]})
    assert preflight.limit_s(app) == 0
    checked = AppSettings.model_validate({"command": ["x"], "preflight": {"command": ["y"], "timeout": "5m"}})
    assert preflight.limit_s(checked) == 300 + preflight.KILL_S
