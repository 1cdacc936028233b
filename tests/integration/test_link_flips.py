"""A thousand flips of the link under eight processes that open directories and files through it all the time."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mountd.model import link as links
from tests.support.link_readers import READERS, LinkReaders

FLIPS = 1000
PAUSE_S = 0.002
"""Of a reader within its handle; and who flips needs some of the machine too."""
FILES = ("config.yaml", "models/gpt.pth", "models/s2mel.pth", "tokenizer/bpe.model")
MEMORY = Path("/dev/shm")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """In memory where that can be: each flip syncs its directory, and a disk may be busy with other tests."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="mountd-t-") as name:
        yield Path(name)


def test_who_opens_through_the_link_gets_one_whole_version(
    place: Path, record_property: Callable[[str, object], None]
) -> None:
    versions = {name: place / f"cache_hub_{name}" for name in ("v22", "v23")}
    for name, directory in versions.items():
        for file in FILES:
            (directory / file).parent.mkdir(parents=True, exist_ok=True)
            (directory / file).write_text(f"{name} {file}\n" * 100)
    (place / "app").mkdir()
    link = place / "app" / "cache_hub"
    links.point(link, str(versions["v22"]))

    with LinkReaders({link: None}, versions, FILES, pause_s=PAUSE_S) as readers:
        read = sum(readers.rounds)
        for flip in range(FLIPS):
            links.point(link, str(versions["v23" if flip % 2 == 0 else "v22"]))
            read = readers.until_more(read)  # so that every flip has its readers
        report = readers.end()

    record_property("readers", str(report))
    assert (report.wrong, report.reported) == (0, ())
    assert report.rounds > FLIPS
    assert report.files == report.rounds * (len(FILES) + 1)
    assert report.fewest > FLIPS // READERS // 10, "a reader was left out"
    assert min(report.versions[name] for name in versions) > FLIPS // 10
    assert report.moved > FLIPS // 10, "the link never moved under an open handle: nothing was shown"
    assert links.read(link) == str(versions["v22"])
    assert [path.name for path in link.parent.iterdir()] == ["cache_hub"]
