"""What a bucket may hold besides good versions: one that is wrong, one without a manifest, one with odd names."""

from __future__ import annotations

from pathlib import Path

from mountd.demo import hub

ODD_NAMES = ("models/a name with spaces.pth", "models/声音 模型.safetensors", "models/take#2.pth")
ODD_BYTES = 100_000


def build_bad(root: Path) -> None:
    """Beside what `hub.build` writes there:

    - `bad`: its manifest is wrong twice: `models/s2mel.pth` is shorter, `campplus_cn_common.bin` is missing;
    - `bare`: no manifest;
    - `odd`: complete, and has files named with spaces, Chinese characters and `#` (`ODD_NAMES`).
    """
    versions = ("bad", "bare", "odd")
    hub.build(root, versions, scale=1 / 10_000)
    bad, bare, odd = (root / hub.BUCKET / f"cache_hub_{version}" for version in versions)
    shorter = bad / "models/s2mel.pth"
    shorter.write_bytes(shorter.read_bytes()[:-1])
    (bad / "models/hf_cache/campplus_cn_common.bin").unlink()
    (bare / hub.MANIFEST).unlink()
    for name in ODD_NAMES:
        hub.write_file(odd / name, ODD_BYTES, seed=f"odd/{name}")
    (odd / hub.MANIFEST).write_bytes(hub.manifest(odd, "odd"))
