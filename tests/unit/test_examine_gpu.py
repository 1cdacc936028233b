"""What doctor says of an app's GPU: at once, and only where preflight asks for its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mountd.cli import examine_gpu
from mountd.settings.load import Places, parse
from mountd.settings.schema import Settings
from tests.support.fake_gpu import FakeGpu, FakeNvidiaSmi, uuid_of

PLACES = Places(Path("/state"), Path("/cache"), Path("/run"))


def settings(path: str, **preflight: Any) -> Settings:
    data = {
        "remotes": {"s": {"type": "local"}},
        "mounts": {"m": {"remote": "s:/x", "path": "/m"}},
        "apps": {
            "webui": {"command": ["x"], "environment": {"PATH": path}, "preflight": preflight or None},
            "other": {"command": ["x"], "preflight": {"command": ["y"]}},
        },
    }
    return parse(yaml.safe_dump(data), "x.yaml", PLACES).settings


@pytest.mark.parametrize(("free", "result"), [(9_000, "ok"), (300, "fail")])
async def test_its_memory(tmp_path: Path, free: int, result: str) -> None:
    smi = FakeNvidiaSmi(tmp_path / "bin", FakeGpu(uuid_of(0), free))
    (check,) = await examine_gpu.checks(settings(smi.path, gpu_memory="8G"))
    assert (check.name, check.result) == ("gpu of webui", result)
    assert bool(check.hint) == (result == "fail")
    assert smi.asked.count("-L") == 1


async def test_a_machine_without_the_program(tmp_path: Path) -> None:
    (check,) = await examine_gpu.checks(settings(str(tmp_path), gpu_memory="8G"))
    assert (check.result, "--gpus all" in check.hint) == ("fail", True)


async def test_who_asks_for_none_has_no_line() -> None:
    assert await examine_gpu.checks(settings("/usr/bin")) == []
