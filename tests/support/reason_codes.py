"""Every code that the package gives to a reason or an error, found in its source, so that none is forgotten.

A code is the argument `code` of whatever takes one, wherever it is called, or the attribute of a class of errors. What
only passes on the code of something else adds none.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import mountd
from mountd import errors
from mountd.gitops import git_command
from mountd.mount.health import MountVerdict
from mountd.process import resources
from mountd.rclone import failures

TOP = Path(mountd.__file__).parent
NOT_OF_REASONS = frozenset({
    "Happening", "event", "events", "_event", "report_event", "_report", "_write", "_end", "EventRecord",  # of events
    "EventDocument", "change", "statement", "_note", "_is_due",
    "Exit", "leave", "answer", "explain",  # numbers
    "Ground", "Root", "ChainLink", "RootDocument", "ChainLinkDocument", "cause_of_code",  # of what is explained
    "after", "_give_up", "FileFault", "logged", "warning", "debug", "info", "error",
})  # fmt: skip
"""Functions whose `code` is another one."""
FORMATTED = {"mount-{found.verdict}": {f"mount-{verdict}" for verdict in MountVerdict}}
_KEBAB = re.compile(r"[a-z]+(-[a-z]+)+")
TABLES = {
    **{kind[1]: "" for kind in failures._KINDS},
    **{kind[0]: "" for kind in resources._LACKS.values()},
    **{kind[1]: "" for kind in git_command._MEANINGS},
}


def trees() -> Iterator[tuple[ModuleType, ast.Module]]:
    for path in sorted(TOP.rglob("*.py")):
        if path.stem == "__main__" or path == TOP / "status" / "events.py":  # whose codes are those of events
            continue
        name = ".".join(path.relative_to(TOP.parent).with_suffix("").parts).removesuffix(".__init__")
        yield importlib.import_module(name), ast.parse(path.read_text())


@cache
def _takers() -> dict[str, int | None]:
    """By the name of a function or class: the place of its argument `code`, None where it has to be named.

    One with `_` in front is called in its own module only: its name has that in front.
    """
    found: dict[str, int | None] = dict.fromkeys(vars(errors))
    for module, tree in trees():
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
                names = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
                named = {each.arg for each in node.args.kwonlyargs}
                names = [each for each in names if each not in ("self", "cls")]
                if "code" in named:
                    found[_full(module, node.name)] = None
            elif isinstance(node, ast.ClassDef):
                made = [each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"]
                names = [each.arg for each in made[0].args.args[1:]] if made else _fields(node)
            if "code" in names and not (module is errors and isinstance(node, ast.ClassDef)):
                found[_full(module, node.name)] = names.index("code")  # type: ignore[attr-defined]
    return {name: place for name, place in found.items() if name.rpartition(":")[2] not in NOT_OF_REASONS}


def _fields(node: ast.ClassDef) -> list[str]:
    """Of a data class, in their order."""
    annotated = [each.target for each in node.body if isinstance(each, ast.AnnAssign)]
    return [each.id for each in annotated if isinstance(each, ast.Name)]


def _full(module: ModuleType, name: str) -> str:
    return f"{module.__name__}:{name}" if name.startswith("_") else name


def _argument(module: ModuleType, call: ast.Call) -> ast.expr | None:
    function = call.func
    name = (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )
    name = _full(module, name)
    if name not in _takers():
        return None
    for keyword in call.keywords:
        if keyword.arg == "code":
            return keyword.value
    place = _takers()[name]
    return call.args[place] if place is not None and len(call.args) > place else None


class _Codes:
    """Of one module."""

    def __init__(self, module: ModuleType, tree: ast.Module) -> None:
        self._module = module
        self._tree = tree
        self.found: set[str] = set()
        self.unknown: set[str] = set()
        """what is neither a code nor passes one on"""

    def look(self) -> None:
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Call) and (given := _argument(self._module, node)) is not None:
                self._resolve(given)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                self._assignments(node)
            elif isinstance(node, ast.ClassDef):
                for each in node.body:
                    if isinstance(each, ast.Assign | ast.AnnAssign) and each.value is not None and _is_code(each):
                        self._resolve(each.value)

    def _assignments(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """`code = …` in a function, also of several names at once, and the default of an argument."""
        arguments = [*function.args.posonlyargs, *function.args.args]
        defaults = dict(
            zip(
                [each.arg for each in arguments][-len(function.args.defaults) or None :],
                function.args.defaults,
                strict=False,
            )
        )
        if function.args.defaults and isinstance(defaults.get("code"), ast.Constant):
            self._resolve(defaults["code"])
        for node in ast.walk(function):
            if (
                isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and node.value.elts
            ):  # (code, text, …)
                first = node.value.elts[0]
                if isinstance(first, ast.Constant) and _KEBAB.fullmatch(str(first.value)):
                    self._resolve(first)
            if not isinstance(node, ast.Assign):
                continue
            (target,) = node.targets[:1]
            if isinstance(target, ast.Name) and target.id == "code":
                self._resolve(node.value)
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for name, value in zip(target.elts, node.value.elts, strict=True):
                    if isinstance(name, ast.Name) and name.id == "code":
                        self._resolve(value)

    def _resolve(self, given: ast.expr) -> None:
        match given:
            case ast.Constant(value=str() as code):
                self.found |= {code} - {""}
            case ast.Constant():
                pass
            case ast.IfExp():
                self._resolve(given.body)
                self._resolve(given.orelse)
            case ast.BoolOp():
                for each in given.values:
                    self._resolve(each)
            case ast.JoinedStr():
                written = ast.unparse(given)[2:-1]
                self.found |= FORMATTED.get(written, set())
                self.unknown |= set() if written in FORMATTED else {written}
            case ast.Name() | ast.Attribute():
                self._named(given)
            case ast.Subscript() | ast.Starred() | ast.Call() | ast.Tuple() | ast.Await() | ast.BinOp():
                pass  # of something else
            case _:
                self.unknown.add(ast.unparse(given))

    def _named(self, given: ast.Name | ast.Attribute) -> None:
        """A constant of the module, or of one that it imports; any other name passes a code on."""
        value: object = self._module
        for part in ast.unparse(given).split("."):
            value = getattr(value, part, None)
        if isinstance(value, str) and value:
            self.found.add(value)


def _is_code(statement: ast.Assign | ast.AnnAssign) -> bool:
    target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
    return isinstance(target, ast.Name) and target.id == "code"


@cache
def produced() -> tuple[frozenset[str], frozenset[str]]:
    """The codes, and expressions for codes that are not understood."""
    found, unknown = set(TABLES), set[str]()
    for module, tree in trees():
        codes = _Codes(module, tree)
        codes.look()
        found |= codes.found
        unknown |= codes.unknown
    return frozenset(found), frozenset(unknown)
