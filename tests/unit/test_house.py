"""The house is as it is drawn: every module has its place on the page, every place its module, and none is too long."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path

import pytest

import mountd

TOP = Path(mountd.__file__).parents[1]
PAGE = (TOP / "ARCHITECTURE.md").read_text()
PYTHON = sorted(path for package in ("mountd", "tests", "bench") for path in (TOP / package).rglob("*.py"))
MODULES = [path for path in PYTHON if path.is_relative_to(TOP / "mountd") and not path.stem.startswith("__")]
MOST_LINES = 400


def drawn(package: str) -> set[str]:
    """The names of modules that stand in the drawing from the line of `package` on, up to the next one."""
    found = re.search(rf"^  {package}/ .*?(?=^  [\w/]+/ |^```)", PAGE, re.MULTILINE | re.DOTALL)
    return set(re.findall(r"\b(\w+\.py)\b", found.group())) if found else set()


def package_of(path: Path) -> str:
    return str(path.parent.relative_to(TOP / "mountd"))


PACKAGES = sorted({package_of(path) for path in MODULES} - {"."})


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_drawn_is_there_and_what_is_there_is_drawn(package: str) -> None:
    assert drawn(package) == {path.name for path in MODULES if package_of(path) == package}


def marked() -> set[str]:
    """The modules with a · behind their names: `mountd.status.snapshot`."""
    found, package = set(), ""
    for line in PAGE.split("```")[1].splitlines():
        if named := re.match(r"  ([\w/]+)/ ", line):
            package = named[1].replace("/", ".") + "."
        for names in re.findall(r"((?:\w+\.py )+) *·", line):
            found |= {f"mountd.{package}{name.removesuffix('.py')}" for name in names.split()}
    return found


def test_what_is_marked_as_pure_is_what_the_linter_keeps_pure() -> None:
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (pure,) = (each for each in contracts if each["name"] == "Decisions are pure")
    assert set(pure["source_modules"]) == marked()


def test_no_class_name_stands_for_two_things() -> None:
    names = [name for path in MODULES for name in re.findall(r"^class (\w+)", path.read_text(), re.MULTILINE)]
    assert {name for name, count in Counter(names).items() if count > 1} == set()


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(TOP)): len(path.read_text().splitlines()) for path in PYTHON}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_each_module_says_its_job_first() -> None:
    silent = [str(path.relative_to(TOP)) for path in PYTHON if not path.read_text().startswith('"""')]
    assert [name for name in silent if not name.endswith("__init__.py")] == []
