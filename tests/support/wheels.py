"""What pip needs to install this checkout on a machine without network: a directory of wheels, made once."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.support.nspawn import KEPT, PROJECT

DOWNLOAD_S = 300.0
PLATFORMS = ("manylinux_2_36", "manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")


def directory(python: str) -> Path:
    """For Python `3.11` and the like; all that `.[rclone]` needs, and to build it. Raises OSError."""
    text = (PROJECT / "pyproject.toml").read_text() + (PROJECT / "constraints.txt").read_text()
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    project = settings["project"]
    needed = [
        *settings["build-system"]["requires"],
        *project["dependencies"],
        *project["optional-dependencies"]["rclone"],
    ]
    KEPT.mkdir(parents=True, exist_ok=True)
    wheels, done = KEPT / f"wheels-{python}", KEPT / f"wheels-{python}.sum"
    with (KEPT / f"wheels-{python}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists() and done.read_text() == hashlib.sha256(text.encode()).hexdigest():
            return wheels
        shutil.rmtree(wheels, ignore_errors=True)
        words = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--dest",
            str(wheels),
        ]
        words += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
        words += [word for name in PLATFORMS for word in ("--platform", f"{name}_x86_64")]
        words += ["-c", str(PROJECT / "constraints.txt"), *needed]
        got = subprocess.run(words, capture_output=True, text=True, timeout=DOWNLOAD_S, check=False)
        if got.returncode != 0:
            raise OSError((got.stderr.strip().splitlines() or [f"exit code {got.returncode}"])[-1])
        done.write_text(hashlib.sha256(text.encode()).hexdigest())
    return wheels
