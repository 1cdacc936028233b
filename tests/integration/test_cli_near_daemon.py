"""A version that is not there, asked of a real daemon: the near name, and a wait that ends."""

from __future__ import annotations

import time

import pytest

from tests.support.daemon import Daemon


@pytest.mark.fuse
def test_a_version_that_is_not_there(daemon: Daemon) -> None:
    daemon.start_ready()
    for words in (["warm", "v32"], ["switch", "v32"]):
        found = daemon.cli(*words)
        assert found.code == 3, found
        assert "cannot find version v32" in found.err
        assert "did you mean v23?" in found.err
    assert daemon.cli("switch", "x-y-z", "--dry-run").err.count("did you mean") == 0

    began = time.monotonic()
    waited = daemon.cli("wait", "--for", "version=v32", "--timeout", "5m")
    assert waited.code == 3, waited
    assert "v32 does not become live" in waited.err
    assert "did you mean v23?" in waited.err

    assert daemon.cli("switch", "v34", "--no-wait").code == 0
    assert daemon.cli("wait", "--for", "version=v34", "--timeout", "5m").code == 3
    assert time.monotonic() - began < 200, "long before its timeout"

    for words, near in (
        (["logs", "webiu"], "webui"),
        (["restart", "stroage"], "storage"),
        (["switch", "v23", "--model", "cachehub"], "cache_hub"),
        (["drill", "kill", "--yes", "--mount", "strage"], "storage"),
    ):
        found = daemon.cli(*words)
        assert found.code == 3, found
        assert f"did you mean {near}?" in found.err
