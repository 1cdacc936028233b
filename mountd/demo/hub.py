"""Builds the bucket of the demo and of the tests: versions of the IndexTTS2 model hub at a fraction of their size.

Names and sizes are IndexTTS2's own, the bytes are made up. They are the same on every build and differ from version to
version and from file to file, so that a digest can be compared and a mixed-up read shows.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from mountd.model import manifest as manifests

BUCKET = "index-tts-data"
VERSIONS = ("v22", "v23")
MANIFEST = manifests.NAME
TOOL = "mountd demo"

# A constant, so that a rebuilt demo is the same bytes.
CREATED = "2026-01-01T00:00:00Z"

# The file that no application opens: a test can show that fewer bytes are read than are stored.
UNUSED = "models/gpt_ema.pth"

# Bytes of the published files (huggingface.co/IndexTeam/IndexTTS-2), except UNUSED, which stands for the padding of the
# redistributed hubs.
FULL_BYTES = {
    "config.yaml": 2_882,
    "models/gpt.pth": 3_484_663_079,
    "models/hf_cache/w2v-bert-2.0/model.safetensors": 2_322_063_736,
    "models/s2mel.pth": 1_202_198_223,
    "models/qwen0.6bemo4-merge/model.safetensors": 1_192_135_096,
    "models/hf_cache/bigvgan/bigvgan_generator.pt": 449_228_171,
    "models/hf_cache/semantic_codec_model.safetensors": 177_183_712,
    "models/hf_cache/campplus_cn_common.bin": 28_036_335,
    UNUSED: 50_000_000,
    "tokenizer/bpe.model": 475_997,
    "tokenizer/tokenizer.json": 11_422_654,
}
FULL_SIZE = "config.yaml"  # small enough to keep its size

SMALLEST_SCALE, LARGEST_SCALE = 1 / 100_000, 1 / 2  # files of other sizes would need other headers
SMALLEST_FILE_BYTES = 64
BLOCK_BYTES = (
    1_048_583  # a prime: bytes from a wrong offset never look right, whatever power of two the offset is off by
)
SAFETENSORS_HEADER_BYTES = 512
ZIP_ENTRY = "archive/data/0"
ZIP_OVERHEAD_BYTES = 30 + 46 + 22 + 2 * len(ZIP_ENTRY)  # local header, central header, end record, the name in both


def build(root: Path, versions: Sequence[str] = VERSIONS, scale: float = 1 / 100) -> None:
    """Write `root/BUCKET/cache_hub_VERSION/…` for each version, each manifest last, and `audio_samples/`.

    `scale` is the fraction of the real sizes. What is there already is written over.
    """
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        raise ValueError(f"scale must be from {SMALLEST_SCALE} to {LARGEST_SCALE}, not {scale}")
    base = root / BUCKET
    samples = base / "audio_samples"
    samples.mkdir(parents=True, exist_ok=True)
    prompts = [{"text": "今天天气很好"}, {"text": "欢迎使用"}]
    (samples / "prompts_zh.json").write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n", "utf-8")
    # Threads pay: hashing, checksums and writing all release the interpreter lock.
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda version: _build_version(base / f"cache_hub_{version}", version, scale), versions))


def manifest(directory: Path, version: str) -> bytes:
    """The `MANIFEST.json` of everything below `directory`."""
    files = [path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST]
    entries = [(path.relative_to(directory).as_posix(), path.stat().st_size, _sha256(path)) for path in files]
    return manifests.render(version, entries, created=CREATED, tool=TOOL)


def _build_version(directory: Path, version: str, scale: float) -> None:
    # A manifest promises that the rest is complete, so it must be gone while the rest is being written.
    (directory / MANIFEST).unlink(missing_ok=True)
    for path, full in FULL_BYTES.items():
        size = full if path == FULL_SIZE else max(math.ceil(full * scale), SMALLEST_FILE_BYTES)
        write_file(directory / path, size, seed=f"{version}/{path}")
    (directory / MANIFEST).write_bytes(manifest(directory, version))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(target: Path, size: int, seed: str) -> None:
    """`size` bytes that `seed` decides, in the format that the name's ending says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        match target.suffix:
            case ".safetensors":
                _write_safetensors(file, size, seed)
            case ".pth" | ".pt" | ".bin":
                _write_zip(file, size, seed)
            case ".json":  # one long string
                words = b"".join(_content(math.ceil(size / 2), seed)).hex().encode()
                file.write(b'"' + words[: size - 2] + b'"')
            case ".yaml":  # comments
                line = f"# IndexTTS2, made-up weights {seed}\n".encode()
                file.write((line * size)[: size - 1] + b"\n")
            case _:
                file.writelines(_content(size, seed))
    written = target.stat().st_size
    if written != size:
        raise AssertionError(f"{target} has {written} bytes instead of {size}")


def _content(size: int, seed: str) -> Iterator[bytes]:
    """`size` bytes: one seeded block repeated, each time with its number at its start."""
    rest = random.Random(seed).randbytes(BLOCK_BYTES - 8)  # noqa: S311 - made-up weights, no secret
    for number in range(math.ceil(size / BLOCK_BYTES)):
        left = min(size - number * BLOCK_BYTES, BLOCK_BYTES)
        yield number.to_bytes(8, "little")[:left]
        yield rest[: max(left - 8, 0)]


def _write_safetensors(file: io.BufferedWriter, size: int, seed: str) -> None:
    """8 bytes header length, a JSON header, the tensors (github.com/huggingface/safetensors, "Format")."""
    data_bytes = size - 8 - SAFETENSORS_HEADER_BYTES
    edges = [data_bytes * part // 4 for part in range(5)]
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for layer, (begin, end) in enumerate(pairwise(edges)):
        header[f"layers.{layer}.weight"] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode().ljust(SAFETENSORS_HEADER_BYTES)
    file.write(len(encoded).to_bytes(8, "little") + encoded)
    file.writelines(_content(data_bytes, seed))


def _write_zip(file: io.BufferedWriter, size: int, seed: str) -> None:
    """What `torch.save` writes, roughly: one stored entry, the central directory at the very end."""
    with zipfile.ZipFile(file, "w") as archive, archive.open(zipfile.ZipInfo(ZIP_ENTRY), "w") as entry:
        for chunk in _content(size - ZIP_OVERHEAD_BYTES, seed):
            entry.write(chunk)
