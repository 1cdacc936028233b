"""Builds the bucket of the demo and of the tests: versions of the IndexTTS2 model hub at a fraction of their size.

Names and sizes are IndexTTS2's own, the bytes are made up. They are the same on every build and differ from version to
version and from file to file, so that a digest can be compared and a mixed-up read shows. Standard library only.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import struct
import wave
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

BUCKET = "index-tts-data"
MANIFEST = "MANIFEST.json"
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
ODD_NAMES = ("models/a name with spaces.pth", "models/声音 模型.safetensors", "models/take#2.pth")

SMALLEST_FILE_BYTES = 64
SMALL_TEXT_BYTES = 64 * 1024  # JSON and YAML up to this size keep their full size
BLOCK_BYTES = (
    1_048_583  # a prime: bytes from a wrong offset never look right, whatever power of two the offset is off by
)
SAFETENSORS_HEADER_BYTES = 512
ZIP_ENTRY = "archive/data/0"
ZIP_OVERHEAD_BYTES = 30 + 46 + 22 + 2 * len(ZIP_ENTRY)  # local header, central header, end record, the name in both
ZIP_END_BYTES = 22


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """One version as built: `files` and `bytes` without the manifest; `digest` is "" when there is no manifest."""

    version: str
    directory: Path
    files: int
    bytes: int
    digest: str


def build(
    root: Path, versions: Sequence[str] = ("v22", "v23"), scale: float = 1 / 100, bucket: str = BUCKET
) -> list[VersionInfo]:
    """Write `root/bucket/cache_hub_VERSION/…` for each version, each manifest last, and `audio_samples/`.

    `scale` is the fraction of the real sizes, over 0 and up to 0.5 (larger ZIP files would need other headers). What is
    there already is written over.
    """
    if not 0 < scale <= 0.5:
        raise ValueError(f"scale must be over 0 and up to 0.5, not {scale}")
    base = root / bucket
    _write_samples(base / "audio_samples")
    # Threads pay: hashing, checksums and writing all release the interpreter lock.
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda version: _build_version(base, version, scale), versions))


def build_bad(root: Path, scale: float = 1 / 10_000, bucket: str = BUCKET) -> list[VersionInfo]:
    """Write what a bucket may hold as well, for tests; returns these versions in this order:

    - `bad`: its manifest is wrong twice: `models/s2mel.pth` is shorter, `campplus_cn_common.bin` is missing;
    - `bare`: no manifest;
    - `odd`: complete, and has files named with spaces, Chinese characters and `#` (`ODD_NAMES`).
    """
    base = root / bucket
    odd_sizes = {path: int(1_000_000_000 * scale) for path in ODD_NAMES}
    bad = _build_version(base, "bad", scale)
    bare = _build_version(base, "bare", scale)
    odd = _build_version(base, "odd", scale, extra=odd_sizes)

    shorter = bad.directory / "models/s2mel.pth"
    shorter.write_bytes(shorter.read_bytes()[:-1])
    (bad.directory / "models/hf_cache/campplus_cn_common.bin").unlink()
    (bare.directory / MANIFEST).unlink()
    return [_describe(bad.directory, "bad"), _describe(bare.directory, "bare"), odd]


def manifest(directory: Path, version: str, *, created: str = CREATED) -> bytes:
    """The `MANIFEST.json` of everything below `directory`: the path, size and sha256 of each file, sorted by path."""
    entries = [
        {"path": path.relative_to(directory).as_posix(), "size": path.stat().st_size, "sha256": _sha256(path)}
        for path in _files(directory)
    ]
    document = {"schema": 1, "version": version, "created": created, "tool": TOOL, "files": entries}
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def content_digest(manifest: bytes) -> str:
    """As mountd computes it: sha256 over the sorted lines of path, size and sha256."""
    entries = sorted((each["path"], each["size"], each["sha256"]) for each in json.loads(manifest)["files"])
    lines = "".join(f"{path}\t{size}\t{sha256}\n" for path, size, sha256 in entries)
    return hashlib.sha256(lines.encode()).hexdigest()


def scaled_bytes(path: str, scale: float) -> int:
    """The size that `build` gives to one of FULL_BYTES."""
    full = FULL_BYTES[path]
    if full <= SMALL_TEXT_BYTES and path.endswith((".json", ".yaml")):
        return full
    return max(math.ceil(full * scale), SMALLEST_FILE_BYTES)


def _build_version(base: Path, version: str, scale: float, extra: dict[str, int] | None = None) -> VersionInfo:
    directory = base / f"cache_hub_{version}"
    # A manifest promises that the rest is complete, so it must be gone while the rest is being written.
    (directory / MANIFEST).unlink(missing_ok=True)
    sizes = {path: scaled_bytes(path, scale) for path in FULL_BYTES} | (extra or {})
    for path, size in sizes.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_file(target, size, seed=f"{version}/{path}")
    (directory / MANIFEST).write_bytes(manifest(directory, version))
    return _describe(directory, version)


def _describe(directory: Path, version: str) -> VersionInfo:
    files = _files(directory)
    listed = directory / MANIFEST
    digest = content_digest(listed.read_bytes()) if listed.exists() else ""
    return VersionInfo(version, directory, len(files), sum(path.stat().st_size for path in files), digest)


def _files(directory: Path) -> list[Path]:
    found = [path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST]
    return sorted(found, key=lambda path: path.relative_to(directory).as_posix())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_file(target: Path, size: int, seed: str) -> None:
    with target.open("wb") as file:
        match target.suffix:
            case ".safetensors":
                _write_safetensors(file, size, seed)
            case ".pth" | ".pt" | ".bin":
                _write_zip(file, size, seed)
            case ".json":
                _write_json(file, size, seed)
            case ".yaml":
                _write_yaml(file, size, seed)
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


def _tag(seed: str) -> str:
    return hashlib.sha256(seed.encode()).hexdigest()[:8]


def _write_safetensors(file: io.BufferedWriter, size: int, seed: str) -> None:
    """8 bytes header length, a JSON header, the tensors (github.com/huggingface/safetensors, "Format")."""
    data_bytes = size - 8 - SAFETENSORS_HEADER_BYTES
    header: dict[str, object] = {"__metadata__": {"seed": _tag(seed)}}
    if data_bytes <= 0:  # too small for tensors: a valid file that holds none
        header_bytes, data_bytes = size - 8, 0
    else:
        header_bytes = SAFETENSORS_HEADER_BYTES
        edges = [data_bytes * part // 4 for part in range(5)]
        for layer, (begin, end) in enumerate(pairwise(edges)):
            header[f"layers.{layer}.weight"] = {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode().ljust(header_bytes)
    file.write(struct.pack("<Q", len(encoded)) + encoded)
    file.writelines(_content(data_bytes, seed))


def _write_zip(file: io.BufferedWriter, size: int, seed: str) -> None:
    """What `torch.save` writes, roughly: one stored entry, the central directory at the very end."""
    if size < ZIP_OVERHEAD_BYTES:  # too small for an entry: an empty archive, filled up by its comment
        with zipfile.ZipFile(file, "w") as archive:
            archive.comment = _tag(seed).encode().ljust(size - ZIP_END_BYTES)
        return
    with zipfile.ZipFile(file, "w") as archive, archive.open(zipfile.ZipInfo(ZIP_ENTRY), "w") as entry:
        for chunk in _content(size - ZIP_OVERHEAD_BYTES, seed):
            entry.write(chunk)


def _write_json(file: io.BufferedWriter, size: int, seed: str) -> None:
    """A tokenizer's file as far as JSON goes; its vocabulary is one long string."""
    before, after = b'{"version":"1.0","vocab":"', b'"}'
    words = b"".join(_content(math.ceil(size / 2), seed)).hex().encode()
    file.write(before + words[: size - len(before) - len(after)] + after)


def _write_yaml(file: io.BufferedWriter, size: int, seed: str) -> None:
    """A configuration with the keys that the web UI's loader reads, filled up with comment lines."""
    settings = "\n".join(
        [
            f"# IndexTTS2, made-up weights {_tag(seed)}",
            "dataset: {bpe_model: bpe.model, sample_rate: 24000}",
            "gpt: {model_dim: 1280, layers: 24, heads: 20, max_mel_tokens: 1815}",
            "gpt_checkpoint: gpt.pth",
            "s2mel_checkpoint: s2mel.pth",
            "qwen_emo_path: qwen0.6bemo4-merge/",
            "version: 2.0\n",
        ]
    ).encode()
    line = b"#" * 79 + b"\n"
    padding = (line * math.ceil(size / len(line)))[: size - len(settings) - 1] + b"\n"
    file.write(settings + padding)


def _write_samples(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with wave.open(str(directory / "reference_voice_a.wav"), "wb") as voice:
        voice.setnchannels(1)
        voice.setsampwidth(2)
        voice.setframerate(16_000)
        samples = (int(9_000 * math.sin(2 * math.pi * 220 * n / 16_000)) for n in range(16_000))
        voice.writeframes(b"".join(struct.pack("<h", sample) for sample in samples))
    prompts = [{"name": "reference_voice_a", "text": "今天天气很好"}, {"name": "reference_voice_a", "text": "欢迎使用"}]
    (directory / "prompts_zh.json").write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n", "utf-8")
