"""A machine's GPUs without any: an nvidia-smi on PATH that answers in its formats, and can fail as it does."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = """#!/bin/sh
here='{here}'
echo "$*" >>"$here/asked"
[ ! -e "$here/hang" ] || exec sleep 600
[ ! -e "$here/code" ] || {{ cat "$here/said"; exit "$(cat "$here/code")"; }}
case "$*" in
    -L) cat "$here/list" ;;
    --query-gpu=uuid,*csv,noheader,nounits)
        if [ -e "$here/holder" ] && grep -qsaF -f "$here/holder" /proc/[0-9]*/cmdline; then cat "$here/held"
        else cat "$here/memory"; fi ;;
    "-q -x") cat "$here/all" ;;
    *) exit 2 ;;
esac
"""
PART = """\
            <mig_device>
                <index>{index}</index>
                <gpu_instance_id>{id}</gpu_instance_id>
                <compute_instance_id>0</compute_instance_id>
                <fb_memory_usage>
                    <total>{total} MiB</total>
                    <reserved>0 MiB</reserved>
                    <used>0 MiB</used>
                    <free>{free} MiB</free>
                </fb_memory_usage>
                <bar1_memory_usage>
                    <total>32767 MiB</total>
                    <used>0 MiB</used>
                    <free>32767 MiB</free>
                </bar1_memory_usage>
            </mig_device>
"""


@dataclass(frozen=True, slots=True)
class FakeGpu:
    """`total`, `free` in MiB, of `parts` (MIG devices) each; None: not supported."""

    uuid: str
    free: int | None
    total: int | None = 24_576
    parts: tuple[FakeGpu, ...] = field(default=())


def uuid_of(index: int, kind: str = "GPU") -> str:
    return f"{kind}-{index:08x}-33ee-9063-b049-1e69664bb298"


def list_text(gpus: list[FakeGpu]) -> str:
    """`nvidia-smi -L`."""
    lines = []
    for index, gpu in enumerate(gpus):
        lines.append(f"GPU {index}: NVIDIA A100-SXM4-80GB (UUID: {gpu.uuid})")
        for place, part in enumerate(gpu.parts):
            lines.append(f"  MIG 3g.20gb     Device  {place}: (UUID: {part.uuid})")
    return "".join(f"{line}\n" for line in lines)


def memory_text(gpus: list[FakeGpu]) -> str:
    def shown(mebibytes: int | None) -> str:
        return "[N/A]" if mebibytes is None else str(mebibytes)

    return "".join(f"{gpu.uuid}, {shown(gpu.total)}, {shown(gpu.free)}\n" for gpu in gpus)


def all_text(gpus: list[FakeGpu]) -> str:
    """`nvidia-smi -q -x`, as driver 535 has it: no UUID of a MIG device."""
    blocks = []
    for index, gpu in enumerate(gpus):
        parts = "".join(
            PART.format(index=place, id=place + 3, total=part.total, free=part.free)
            for place, part in enumerate(gpu.parts)
        )
        mig = f"<mig_devices>\n{parts}        </mig_devices>" if parts else "<mig_devices>None</mig_devices>"
        blocks.append(
            f'    <gpu id="00000000:{index:02d}:00.0">\n        {mig}\n        <uuid>{gpu.uuid}</uuid>\n'
            f"        <fb_memory_usage>\n            <total>{gpu.total} MiB</total>\n            <free>{gpu.free} MiB"
            "</free>\n        </fb_memory_usage>\n    </gpu>\n"
        )
    head = '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v12.dtd">\n<nvidia_smi_log>\n'
    return f"{head}{''.join(blocks)}</nvidia_smi_log>\nWARNING: infoROM is corrupted at gpu 00000000:00:00.0\n"


class FakeNvidiaSmi:
    """In `directory`, which `path` has in front of this process' own PATH."""

    def __init__(self, directory: Path, *gpus: FakeGpu) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        self._directory = directory
        program = directory / "nvidia-smi"
        program.write_text(SCRIPT.format(here=directory))
        program.chmod(0o755)
        (directory / "asked").touch(mode=0o666)
        (directory / "asked").chmod(0o666)
        self.has(*gpus)

    @property
    def path(self) -> str:
        return f"{self._directory}:{os.environ['PATH']}"

    @property
    def asked(self) -> list[str]:
        return (self._directory / "asked").read_text().splitlines()

    def has(self, *gpus: FakeGpu) -> None:
        """From its next call on."""
        self._write("list", list_text([*gpus]))
        self._write("all", all_text([*gpus]))
        self._write("memory", memory_text([*gpus]))

    def held_by(self, words: str, *gpus: FakeGpu) -> None:
        """While a process has these words in its command line, this is what there is."""
        self._write("held", memory_text([*gpus]))
        self._write("holder", words)

    def fail(self, code: int, said: str) -> None:
        self._write("said", f"{said}\n")
        self._write("code", str(code))

    def hang(self) -> None:
        self._write("hang", "")

    def answer(self) -> None:
        (self._directory / "hang").unlink()

    def _write(self, name: str, text: str) -> None:
        new = self._directory / f"{name}.new"
        new.write_text(text)
        new.replace(self._directory / name)
