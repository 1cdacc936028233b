"""What nvidia-smi prints, read; and which GPU an app uses, by index, UUID, MIG device and CUDA_VISIBLE_DEVICES."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mountd.app import gpus
from mountd.app.gpus import Gpu, NoSuchGpu
from tests.support.fake_gpu import FakeGpu, all_text, list_text, memory_text, uuid_of

A, B, C = (uuid_of(index) for index in range(3))
M, N = (uuid_of(index, "MIG") for index in (7, 8))
OLD = "MIG-GPU-00000001-33ee-9063-b049-1e69664bb298/3/0"
"""A MIG device as drivers before 470 name it."""
MACHINE = [
    FakeGpu(A, free=20_000),
    FakeGpu(B, free=None, total=40_960, parts=(FakeGpu(M, 9_000, 19_968), FakeGpu(N, 11, 19_968))),
    FakeGpu(C, free=1, total=2),
]
MIB = 1024**2


def read(machine: list[FakeGpu]) -> tuple[Gpu, ...]:
    listed = gpus.with_memory(gpus.read_list(list_text(machine)), memory_text(machine))
    return gpus.with_memory_of_parts(listed, all_text(machine))


def test_what_it_prints() -> None:
    parts = (Gpu("1:0", M, 19_968 * MIB, 9_000 * MIB), Gpu("1:1", N, 19_968 * MIB, 11 * MIB))
    assert read(MACHINE) == (
        Gpu("0", A, 24_576 * MIB, 20_000 * MIB),
        Gpu("1", B, 40_960 * MIB, None, parts),
        Gpu("2", C, 2 * MIB, MIB),
    )


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    listed = gpus.read_list(list_text(MACHINE))
    assert gpus.read_list(f"{text}\n{list_text(MACHINE)}")[-3:] == listed
    gpus.with_memory(gpus.read_list(text), text)
    gpus.with_memory(listed, text)
    gpus.with_memory_of_parts(listed, text)


@pytest.mark.parametrize(
    ("named", "visible", "found"),
    [
        ([], None, [A]),
        (["0"], None, [A]),
        (["2", "0"], None, [C, A]),
        ([C], None, [C]),
        (["1"], None, [M]),  # one with MIG devices stands for the first of them
        (["1:1"], None, [N]),
        ([N, M, "1:0"], None, [N, M]),
        (["GPU-00000002"], None, [C]),
        (["gpu-00000002-33EE"], None, [C]),
        ([], "2", [C]),
        ([], "2,0", [C]),
        ([], f"{C},{A}", [C]),
        ([], M, [M]),
        ([], "1", [M]),
        ([], " 2 ,0", [C]),
        (["0"], "2,0", [A]),
        ([A], "2,0", [A]),
        (["2"], "2,-1,0", [C]),
    ],
)
def test_which_one(named: list[str], visible: str | None, found: list[str]) -> None:
    assert [gpu.uuid for gpu in gpus.chosen(read(MACHINE), named, visible)] == found


@pytest.mark.parametrize(
    ("named", "visible", "code", "word"),
    [
        (["3"], None, "gpu-missing", "GPU 3"),
        (["1:2"], None, "gpu-missing", A),
        (["GPU-0000000"], None, "gpu-missing", C),  # of three
        (["MIG-"], None, "gpu-missing", C),
        ([], "", "gpu-hidden", "CUDA_VISIBLE_DEVICES="),
        ([], "-1", "gpu-hidden", "-1"),
        ([], "NoDevFiles", "gpu-hidden", "NoDevFiles"),
        (["0"], "2", "gpu-hidden", "=2"),
        (["0"], "-1,0", "gpu-hidden", A),  # CUDA ignores what follows a name that is none
        (["1:1"], "1", "gpu-hidden", N),
    ],
)
def test_why_none(named: list[str], visible: str | None, code: str, word: str) -> None:
    with pytest.raises(NoSuchGpu, match=word) as refused:
        gpus.chosen(read(MACHINE), named, visible)
    assert refused.value.code == code


def test_a_machine_without_any_and_one_with_many() -> None:
    with pytest.raises(NoSuchGpu) as refused:
        gpus.chosen((), [], None)
    assert refused.value.code == "gpu-missing"
    many = read([FakeGpu(uuid_of(index), 1) for index in range(16)])
    with pytest.raises(NoSuchGpu, match="and 8 more"):
        gpus.chosen(many, ["16"], None)


def test_names_of_old_drivers() -> None:
    machine = [FakeGpu(A, 1), FakeGpu(B, None, parts=(FakeGpu(OLD, 5, 9),))]
    (found,) = gpus.chosen(read(machine), [OLD], OLD)
    assert (found.uuid, found.free) == (OLD, 5 * MIB)
