"""Switches under eight processes that read through the link and the mount all the time: nobody sees a seam."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mountd.demo import hub
from tests.support import quick_app
from tests.support.daemon import Daemon
from tests.support.link_readers import LinkReaders
from tests.support.s3 import RcloneS3

pytestmark = pytest.mark.fuse

PAUSE_S = 0.1
"""Of a reader within its handle: eight of them must leave the machine something for what they watch."""
FILES = ("config.yaml", "models/gpt.pth", "models/hf_cache/campplus_cn_common.bin", "tokenizer/bpe.model")
VERSIONS = ("v22", "v23")


@pytest.mark.parametrize(
    "switches",
    [
        pytest.param(3, marks=[pytest.mark.slow, pytest.mark.timeout(300)]),
        pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(600)]),
    ],
)
def test_no_reader_sees_a_seam(
    daemon: Daemon, store: RcloneS3, switches: int, record_property: Callable[[str, object], None]
) -> None:
    app = daemon.config["apps"]["webui"]
    app["command"] = [
        *(sys.executable, "-I", "-S", str(Path(quick_app.__file__))),
        *(str(daemon.web_port), str(daemon.link), str(daemon.root / "hold")),
    ]
    app["stop"]["signal"] = "SIGTERM"
    before = daemon.start_ready()
    sources = {version: store.directory / hub.BUCKET / f"cache_hub_{version}" for version in VERSIONS}
    roots: dict[Path, str | None] = {daemon.link: None}
    roots |= {daemon.mount / f"cache_hub_{version}": version for version in VERSIONS}

    with LinkReaders(roots, sources, FILES, pause_s=PAUSE_S) as readers:
        pids = {before["apps"]["webui"]["pid"]}
        for number in range(switches):
            version = VERSIONS[number % 2]
            ended = daemon.cli("switch", version)
            assert ended.code == 0, ended.err
            page = daemon.page()
            assert page["version"] == version
            pids.add(page["pid"])
        report = readers.end()

    record_property("readers", str(report))
    assert (report.wrong, report.reported) == (0, ())
    assert report.fewest > switches, "a reader was left out"
    assert report.moved > switches // 5, "the link never moved under an open handle: nothing was shown"
    assert len(pids) == switches + 1, "each switch has an app of its own"
    after = daemon.status()
    assert after["ready"]
    assert after["models"]["cache_hub"]["current"] == VERSIONS[(switches - 1) % 2]
    was, is_ = before["mounts"]["storage"], after["mounts"]["storage"]
    assert (is_["pid"], is_["restarts"]) == (was["pid"], was["restarts"]), "a switch leaves the mount alone"
