"""What nvidia-smi says of the GPUs, and which of them an app uses: by index or UUID, a MIG device also by its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

LIST = ("nvidia-smi", "-L")
MEMORY = ("nvidia-smi", "--query-gpu=uuid,memory.total,memory.free", "--format=csv,noheader,nounits")
MEMORY_OF_PARTS = ("nvidia-smi", "-q", "-x")
"""The only output that has the memory of MIG devices; with driver 535 it names them by their place alone."""
VISIBLE = "CUDA_VISIBLE_DEVICES"
SHOWN = 8
"""GPUs that a message names."""
_GPU = re.compile(r"GPU (\d+): .*\(UUID: (\S+)\)")
_PART = re.compile(r"\s+MIG .*Device\s+(\d+): \(UUID: (\S+)\)")
_ROW = re.compile(r"(GPU-\S+), ([^,]+), ([^,]+)")
_NUMBER = re.compile(r"(\d+)(?: MiB)?")


class NoSuchGpu(Exception):
    """`code`: gpu-missing, there is none of that name; gpu-hidden, the app does not see it. Its text says which."""

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        super().__init__(text)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a MIG device of one: its index is `GPU:PART` then. Memory in bytes; None: nvidia-smi does not say."""

    index: str
    uuid: str
    total: int | None = None
    free: int | None = None
    parts: tuple[Gpu, ...] = ()

    def __str__(self) -> str:
        return f"GPU {self.index} ({self.uuid})"


def read_list(output: str) -> tuple[Gpu, ...]:
    """Of LIST: each GPU, with its MIG devices if it has been divided."""
    found: list[Gpu] = []
    for line in output.splitlines():
        if gpu := _GPU.match(line):
            found.append(Gpu(gpu[1], gpu[2]))
        elif (part := _PART.match(line)) and found:
            whole = found[-1]
            found[-1] = replace(whole, parts=(*whole.parts, Gpu(f"{whole.index}:{part[1]}", part[2])))
    return tuple(found)


def with_memory(listed: Sequence[Gpu], output: str) -> tuple[Gpu, ...]:
    """Of MEMORY: for whole GPUs."""
    rows = {row[1]: row for line in output.splitlines() if (row := _ROW.fullmatch(line.strip()))}
    return tuple(
        replace(gpu, total=_bytes(row[2]), free=_bytes(row[3])) if (row := rows.get(gpu.uuid)) else gpu
        for gpu in listed
    )


def with_memory_of_parts(listed: Sequence[Gpu], output: str) -> tuple[Gpu, ...]:
    """Of MEMORY_OF_PARTS: for MIG devices. Read by its tags, as warnings of the driver may stand around the XML."""
    known: dict[tuple[str, str], tuple[int | None, int | None]] = {}
    for block in re.findall(r"<gpu id=.*?</gpu>", output, re.DOTALL):
        whole = re.sub(r"<mig_devices>.*?</mig_devices>", "", block, flags=re.DOTALL)
        for part in re.findall(r"<mig_device>.*?</mig_device>", block, re.DOTALL):
            memory = _tag(part, "fb_memory_usage")
            place = (_tag(whole, "uuid"), _tag(part, "index"))
            known[place] = (_bytes(_tag(memory, "total")), _bytes(_tag(memory, "free")))
    return tuple(replace(gpu, parts=tuple(_with(part, known, gpu.uuid) for part in gpu.parts)) for gpu in listed)


def _with(part: Gpu, known: Mapping[tuple[str, str], tuple[int | None, int | None]], uuid: str) -> Gpu:
    total, free = known.get((uuid, part.index.partition(":")[2]), (None, None))
    return replace(part, total=total, free=free)


def _tag(text: str, name: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return found[1].strip() if found else ""


def _bytes(mebibytes: str) -> int | None:
    found = _NUMBER.fullmatch(mebibytes.strip())
    return int(found[1]) << 20 if found else None


def chosen(listed: Sequence[Gpu], named: Sequence[str], visible: str | None) -> tuple[Gpu, ...]:
    """Those that are `named`; without any the first one that the app sees, which most programs use.

    `visible`: its CUDA_VISIBLE_DEVICES, None where that is not set. A GPU with MIG devices stands for the first of
    them, as it does for CUDA. Raises NoSuchGpu.
    """
    seen = _seen(listed, visible)
    if not listed:
        raise NoSuchGpu("gpu-missing", "nvidia-smi lists no GPU")
    if not seen:
        raise NoSuchGpu("gpu-hidden", f"{VISIBLE}={visible} names none that there is ({_listing(listed)})")
    if not named:
        return (seen[0],)
    found = []
    for name in named:
        gpu = find(listed, name)
        if gpu is None:
            raise NoSuchGpu("gpu-missing", f"there is no GPU {name}, only {_listing(listed)}")
        if gpu not in seen:
            raise NoSuchGpu("gpu-hidden", f"the app does not see {gpu}: {VISIBLE}={visible}")
        found.append(gpu)
    return tuple(dict.fromkeys(found))


def _seen(listed: Sequence[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    if visible is None:
        return tuple(each for gpu in listed for each in gpu.parts or (gpu,))
    found = []
    for name in visible.split(","):
        gpu = find(listed, name.strip())
        if gpu is None:
            break  # CUDA ignores what follows a name that is none
        found.append(gpu)
    return tuple(found)


def find(listed: Sequence[Gpu], name: str) -> Gpu | None:
    """By index, GPU:PART, UUID, or the beginning of a UUID that no other one has, as CUDA takes it."""
    everything = [*listed, *(part for gpu in listed for part in gpu.parts)]
    exact = [gpu for gpu in everything if name in (gpu.index, gpu.uuid)]
    begins = [gpu for gpu in everything if name[4:] and gpu.uuid.lower().startswith(name.lower())]
    matches = exact or begins
    if len(matches) != 1:
        return None
    return matches[0].parts[0] if matches[0].parts else matches[0]


def _listing(listed: Sequence[Gpu]) -> str:
    names = [str(each) for gpu in listed for each in gpu.parts or (gpu,)]
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
