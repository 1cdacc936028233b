"""Argo CD's health check of a ConfigMap, run as Argo CD runs it: Lua 5.1 with few libraries, `obj` as its input."""

from __future__ import annotations

from typing import Any

from lupa import lua51

from tests.support.manifests import build, of_kind

KEY = "resource.customizations.health.ConfigMap"
WITHOUT = ("string", "os", "io", "math", "debug", "coroutine", "package", "require", "print", "python")
"""Not there for a check, unless Argo CD's configuration opens all libraries for it; `os` is reduced to times."""


def script() -> str:
    (config,) = of_kind(build("argocd/health"), "ConfigMap")
    return str(config["data"][KEY])


def health(item: dict[str, Any]) -> tuple[str, str | None]:
    """Status and message. Raises lupa's LuaError, AssertionError for anything but a table."""
    runtime = lua51.LuaRuntime(unpack_returned_tuples=True)
    scope = runtime.globals()
    for name in WITHOUT:
        scope[name] = None
    scope["obj"] = runtime.table_from(item, recursive=True)
    found = runtime.execute(script())
    assert lua51.lua_type(found) == "table", "Argo CD takes nothing else"
    return found["status"], found["message"]
