"""docs/quick-start.md as a newcomer follows it: each line of its shell, in order, leads to what the page says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator

import pytest

from mountd.client.find import SYSTEM_SOCKET
from tests.support.demos import PROGRAM, Demo, Room
from tests.support.docs_pages import TOP, blocks

pytestmark = [pytest.mark.fuse, pytest.mark.timeout(300)]

PAGE = (TOP / "docs/quick-start.md").read_text()
PATH_LINE = "export PATH=/opt/mountd/bin:$PATH"
DEMO = "mountd demo"
MOST_COMMANDS = 5
"""From nothing to a served page."""
LINE_S = 180.0


def sections() -> dict[str, list[str]]:
    """Headline → the lines of the commands below it."""
    found = {}
    for part in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        lines = [line for block in blocks(text) if block.language == "sh" for line in block.text.splitlines() if line]
        if lines:
            found[title] = lines
    return found


@pytest.fixture
def room() -> Iterator[Room]:
    made = Room()
    try:
        yield made
    finally:
        made.close()


def test_few_commands_lead_to_a_served_page() -> None:
    begin = sections()["Start the demo"]
    assert begin[-2:] == [PATH_LINE, DEMO]
    assert len(begin) <= MOST_COMMANDS


def test_what_is_not_run_here_is_run_by_the_test_of_the_page_about_installing() -> None:
    found = sections()
    install = {line.removeprefix("/opt/mountd/bin/") for line in (TOP / "docs/install.md").read_text().splitlines()}
    lines = [*found["Start the demo"][:-2], *found["With your own bucket"]]
    assert [line for line in lines if line.removeprefix("/opt/mountd/bin/") not in install] == []


def test_the_rest_of_the_page_works_as_written(room: Room) -> None:
    if os.path.exists(SYSTEM_SOCKET):
        pytest.skip("a mountd of this machine would be found first")
    found = sections()
    demo = Demo(room.path, path=f"{PROGRAM.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
    try:
        demo.until_ready()
        assert json.loads(demo.page("/config"))["version"] == "v23"
        said = {}
        for title in ("Look around", "Switch, and go back", "Break it"):
            for line in found.pop(title):
                if line != PATH_LINE:
                    typed = demo.type(line.replace("127.0.0.1:7860", f"127.0.0.1:{demo.port}"), LINE_S)
                    assert typed.returncode == 0, f"{line}: {typed.stdout}{typed.stderr}"
                    said[line] = typed.stdout
        assert "ready, Healthy" in said["mountd status"]
        assert json.loads(next(text for line, text in said.items() if line.startswith("curl ")))["version"] == "v22"
        assert {"switch", "rollback"} <= set(said["mountd history"].split())
        assert json.loads(demo.page("/config"))["version"] == "v23"
        assert found.keys() == {"Start the demo", "With your own bucket"}, "each section is run"
        assert demo.interrupt() == 0
        room.assert_empty()
    finally:
        demo.close()
