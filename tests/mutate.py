"""How many small faults in the pure modules the unit tests notice: `./dev mutate [--sample N] [MODULE …]`.

mutmut makes the faults, one at a time, in the bodies of functions and methods: not in the tables of a module, and not
in what has a decorator, but for classmethods and staticmethods. A fault counts as noticed when a test fails, when
Python crashes, and when the tests take far longer than without it.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import random
import resource
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

TOP = Path(__file__).parents[1]
BUILD = TOP / "build" / "mutate"
CONTRACT = "Decisions are pure"
MEMORY = 4 << 30
"""Bytes of address space of a process: a fault may make a loop that fills a list for ever."""

STATISTICS = "mutants/mutmut-stats.json"
"""mutmut writes it once all faults are made, and the tests were run without any of them."""
LEFT_OUT = (
    "--ignore=tests/unit/test_house.py",  # it measures the sources, and those with the faults are much longer
    # They look at files of the package or of the project that are no modules: mutmut does not copy links to them.
    "--ignore=tests/unit/test_carried.py",
    "--ignore=tests/unit/test_deploy_container.py",
    "--ignore=tests/unit/test_install.py",
    # A process without `site` does not find mutmut, which the faults need.
    "--deselect=tests/unit/test_survey.py::test_a_process_that_fails_is_reported",
    "-k",
    "not process]"
    # These measure processor time, of which a function that could have a fault takes more.
    " and not work_for_a_file_is_bounded and not do_not_hold_up_the_event_loop"
    " and not search_for_similar_names_is_short and not masking_takes_no_time and not hostile_line_costs_little",
)

# What mutmut keeps of a fault: the exit code of pytest, less than 0 a signal. Of every other code nothing follows.
FAILED = (1, 3)  # a test, or pytest itself
ENDED = (-24, -11, -9)  # SIGXCPU, which mutmut sends when it takes far longer, SIGSEGV, SIGKILL
SURVIVED = (0,)
NO_TEST = (5, 33)  # no test runs that function

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef

SETTINGS = """\
[mutmut]
source_paths =
    mountd
only_mutate =
    {files}
also_copy =
    {copied}
process_isolation = forkserver
use_git_change_detection = false
debug = {debug}
timeout_constant = 2
pytest_add_cli_args =
    --hypothesis-profile=mutate
    -p
    no:cacheprovider
pytest_add_cli_args_test_selection =
    tests/unit
    -m
    not thorough and not long
    {left_out}
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One change of mutmut: `line` is that of the original file, `code` None when it was not tried."""

    module: str
    function: str
    line: int
    change: tuple[str, ...]
    is_prose: bool
    code: int | None

    @property
    def counts(self) -> bool:
        return not self.is_prose and self.code in (*FAILED, *ENDED, *SURVIVED, *NO_TEST)

    @property
    def noticed(self) -> bool:
        return self.code in (*FAILED, *ENDED)


def pure_modules() -> tuple[str, ...]:
    contracts = tomllib.loads((TOP / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (pure,) = (each for each in contracts if each["name"] == CONTRACT)
    return tuple(pure["source_modules"])


def chosen(words: Sequence[str], pure: Sequence[str]) -> tuple[str, ...]:
    """The modules that `words` name, by name or file, with or without `mountd`; all of them for no words.

    Raises ValueError with the word that names none.
    """
    names = ["mountd." + word.removesuffix(".py").replace("/", ".").removeprefix("mountd.") for word in words]
    for word, name in zip(words, names, strict=True):
        if name not in pure:
            raise ValueError(word)
    return tuple(name for name in pure if name in names or not names)


def source_of(module: str) -> str:
    return module.replace(".", "/") + ".py"


# -- running mutmut ---------------------------------------------------------------------------------------------------


def digest(modules: Sequence[str]) -> str:
    """Of all that the result depends on."""
    found = hashlib.sha256(repr((modules, SETTINGS, LEFT_OUT)).encode())
    files = [path for name in ("mountd", "tests", "config") for path in (TOP / name).rglob("*") if path.is_file()]
    for path in sorted(each for each in files if each.parent.name != "__pycache__"):
        found.update(str(path.relative_to(TOP)).encode() + b"\0" + path.read_bytes())
    for name in ("pyproject.toml", "constraints.txt"):
        found.update((TOP / name).read_bytes())
    return found.hexdigest()


def prepare(place: Path, modules: Sequence[str]) -> None:
    """A directory in which mutmut copies what links lead to; what it has found there stays while nothing changed.

    A run that was interrupted before STATISTICS left half of the faults.
    """
    stamp, now = place / "stamp", digest(modules)
    made = (place / STATISTICS).exists()
    if made and stamp.exists() and stamp.read_text() == now:
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    visible = [each for each in TOP.iterdir() if not each.name.startswith(".") and each.name != BUILD.parent.name]
    for each in visible:
        (place / each.name).symlink_to(each)
    stamp.write_text(now)


def configure(place: Path, modules: Sequence[str], *, debug: bool) -> None:
    copied = sorted(each.name for each in place.iterdir() if each.is_symlink())
    (place / "setup.cfg").write_text(
        SETTINGS.format(
            files="\n    ".join(map(source_of, modules)),
            copied="\n    ".join(each for each in copied if each not in ("mountd", "tests", "pyproject.toml")),
            left_out="\n    ".join(LEFT_OUT),
            debug=str(debug).lower(),
        )
    )


def run(place: Path, names: Sequence[str] = ()) -> int:
    """Tries the faults with these names; without, all that were not tried."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    argv = [str(Path(sys.executable).with_name("mutmut")), "run", *names]
    return subprocess.run(argv, cwd=place, check=False).returncode


def make(place: Path, modules: Sequence[str]) -> None:
    """The faults, and which tests reach each; tries none of them. Raises RuntimeError with the end of the output."""
    if (place / STATISTICS).exists():
        return
    configure(place, modules, debug=True)  # else it does not say which test fails without any fault
    argv = [str(Path(sys.executable).with_name("mutmut")), "run", "none*"]  # it ends when no fault has such a name
    done = subprocess.run(argv, cwd=place, check=False, capture_output=True, text=True)
    if not (place / STATISTICS).exists():
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-2000:])


# -- what it found ----------------------------------------------------------------------------------------------------


def functions(tree: ast.Module) -> dict[str, Function]:
    """Those of the module by name, methods as `Class.method`."""
    found = _of(tree.body, "")
    for section in tree.body:
        if isinstance(section, ast.ClassDef):
            found |= _of(section.body, f"{section.name}.")
    return found


def _of(body: Sequence[ast.stmt], prefix: str) -> dict[str, Function]:
    return {prefix + each.name: each for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def lines_of(function: Function, source: Sequence[str]) -> list[str]:
    """Its lines from its `def` on, which is without the name: that says which fault it is."""
    assert function.end_lineno is not None
    first = source[function.lineno - 1].replace(function.name, "", 1)
    return [first, *source[function.lineno : function.end_lineno]]


def differs_in_prose(before: Function, after: Function) -> bool:
    """Whether nothing but one text of several words does: tests assert codes and fields, not sentences for people."""
    texts = [[node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)] for tree in (before, after)]
    if len(texts[0]) != len(texts[1]):
        return False
    changed = [(old, new) for old, new in zip(*texts, strict=True) if old != new]
    return len(changed) == 1 and all(isinstance(text, str) and " " in text.strip() for text in changed[0])


def faults(module: str, original: str, mutated: str, codes: dict[str, int | None]) -> Iterator[Fault]:
    """`codes`: exit codes by the names of faults, `mountd.package.module.x_function__mutmut_3`; a method's is
    `xǁClassǁmethod__mutmut_3`, and what it was made from ends in `__mutmut_orig`."""
    source, begins = mutated.splitlines(), functions(ast.parse(original))
    made = {name.rpartition(".")[2]: node for name, node in functions(ast.parse(mutated)).items()}
    for name, code in codes.items():
        variant = name.rpartition(".")[2]
        stem = variant.partition("__mutmut_")[0]
        function = stem[2:].replace("ǁ", ".")
        before, after = made[f"{stem}__mutmut_orig"], made[variant]
        old, new = lines_of(before, source), lines_of(after, source)
        parts = [part for part in difflib.SequenceMatcher(None, old, new).get_opcodes() if part[0] != "equal"]
        change: list[str] = []
        for _, old_from, old_to, new_from, new_to in parts:
            change += [f"- {line.strip()}" for line in old[old_from:old_to]]
            change += [f"+ {line.strip()}" for line in new[new_from:new_to]]
        line = begins[function].lineno + (parts[0][1] if parts else 0)
        yield Fault(module, function, line, tuple(change), differs_in_prose(before, after), code)


def codes_of(place: Path, module: str) -> dict[str, int | None]:
    """By the names of its faults."""
    copy = place / "mutants" / source_of(module)
    meta = copy.with_name(copy.name + ".meta")
    if not meta.exists():
        return {}  # nothing in it can be changed
    found: dict[str, int | None] = json.loads(meta.read_text("utf-8"))["exit_code_by_key"]
    return found


def found_in(place: Path, module: str) -> list[Fault]:
    codes = codes_of(place, module)
    if not codes:
        return []
    mutated = (place / "mutants" / source_of(module)).read_text("utf-8")
    return list(faults(module, (TOP / source_of(module)).read_text("utf-8"), mutated, codes))


def drawn(place: Path, modules: Sequence[str], count: int, seed: int) -> list[str]:
    """The names of so many faults, at random; none that changes a sentence for people."""
    names = [
        name
        for module in modules
        for name, fault in zip(codes_of(place, module), found_in(place, module), strict=True)
        if not fault.is_prose
    ]
    return random.Random(seed).sample(names, min(count, len(names)))


def score(found: Sequence[Fault]) -> str:
    """`noticed of all, per cent`."""
    counted = [fault for fault in found if fault.counts]
    noticed = sum(fault.noticed for fault in counted)
    # Rounded down: 100 % means all.
    return f"{noticed:5} of {len(counted):5}  {f'{100 * noticed // len(counted):3} %' if counted else '    -'}"


def report(found: dict[str, list[Fault]]) -> str:
    lines = []
    for module, of_it in found.items():
        for fault in of_it:
            if fault.counts and not fault.noticed:
                untested = "  (no test runs it)" if fault.code in NO_TEST else ""
                lines += [f"{source_of(module)}:{fault.line} {fault.function}{untested}"]
                lines += [f"    {line}" for line in fault.change]
    width = max(map(len, found))
    lines += ["", *(f"{module:{width}}  {score(of_it)}" for module, of_it in found.items())]
    every = [fault for of_it in found.values() for fault in of_it]
    lines += [f"{'in all':{width}}  {score(every)}"]
    ended = sum(fault.code in ENDED and not fault.is_prose for fault in every)
    lines += [f"{ended} of those noticed made the tests crash or last far longer"]
    prose = sum(fault.is_prose for fault in every)
    lines += [f"{prose} more are not counted: they change a sentence for people, which no test asserts"]
    without = [fault.code for fault in every if not fault.is_prose and not fault.counts]
    if untried := without.count(None):
        lines += [f"{untried} more were not tried: run it again"]
    if len(without) > untried:
        kept = BUILD.relative_to(TOP)
        lines += [f"{len(without) - untried} more ended without a result: to try them again, delete {kept}/"]
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    """The exit code: 0, 1 when not every fault was tried, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="./dev mutate", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as process.lifecycle; without one, all")
    parser.add_argument("--sample", type=int, metavar="N", help="try only N faults, drawn at random")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="which ones (default: 1)")
    options = parser.parse_args(words)
    try:
        modules = chosen(options.modules, pure_modules())
    except ValueError as unknown:
        parser.error(f"cannot find {unknown} among the pure modules: they are listed in pyproject.toml")
    place = BUILD / ("some" if options.modules else "all")
    prepare(place, modules)
    try:
        make(place, modules)
    except RuntimeError as error:
        print(f"{error}\ndev: cannot make the faults, see above", file=sys.stderr)
        return 1
    configure(place, modules, debug=False)
    names = drawn(place, modules, options.sample, options.seed) if options.sample is not None else []
    if code := run(place, names):
        print(f"dev: cannot try the faults: mutmut ended with {code}, see above", file=sys.stderr)
        return 1
    found = {module: found_in(place, module) for module in modules}
    if names:  # those that were not drawn are none of it, whether they were tried before or not
        wanted = {*names}
        found = {
            module: [fault for name, fault in zip(codes_of(place, module), of_it, strict=True) if name in wanted]
            for module, of_it in found.items()
        }
    print("\n" + report(found))
    return int(any(not fault.is_prose and not fault.counts for of_it in found.values() for fault in of_it))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
