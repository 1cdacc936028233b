"""The commands of docs/troubleshooting.md, run against a real daemon: each of them answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.docs_pages import TOP, blocks, commands
from tests.support.s3 import RcloneS3

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(300)]

PROGRAM = Path(sys.prefix) / "bin" / "mountd"
LINE_S = 120.0
ALSO = {
    "mountd doctor": {1},  # whatever is wrong with the machine that runs the test
    "mountd logs webui --previous": {3},  # there was none yet
    "mountd profile": {3},  # where the kernel does not show what is opened
}
"""Exit codes besides 0."""
OTHERS = {"systemctl", "journalctl", "df", "ls"}
"""Programs of the machine, which are not run."""


def lines() -> list[str]:
    text = (TOP / "docs/troubleshooting.md").read_text()
    found = [line for block in blocks(text) if block.language == "sh" for line in block.text.splitlines()]
    assert {line.split()[0] for line in found} <= {"mountd", *OTHERS}
    return list(dict.fromkeys(line for line in found if line.startswith("mountd ")))


def test_each_command_answers(make_daemon: Callable[[], Daemon], store: RcloneS3) -> None:
    (store.directory / "outputs").mkdir(exist_ok=True)
    daemon = make_daemon()
    daemon.config["mounts"]["outputs"] = {
        "remote": "store:outputs",
        "path": str(daemon.root / "outputs"),
        "profile": "outputs",
        "cache": {"dir": str(daemon.root / "cache-outputs"), "min_free": "1%"},
    }
    daemon.start_ready()
    answers = {}
    for line in lines():
        assert len(commands(line)) == 1
        done = subprocess.run(
            ["sh", "-c", line],
            env={
                **os.environ,
                "MOUNTD_CONFIG": str(daemon.config_file),
                "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            timeout=LINE_S,
            check=False,
        )
        answers[line] = (done.returncode, done.stderr)
    assert len(answers) > 10
    wrong = {line: said for line, said in answers.items() if said[0] not in {0, *ALSO.get(line, ())}}
    assert wrong == {}


def test_without_a_daemon_the_exit_code_is_the_one_of_the_page(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(PROGRAM), "--socket", str(tmp_path / "none.sock"), "status"],
        capture_output=True,
        timeout=LINE_S,
        check=False,
    )
    assert done.returncode == 8
