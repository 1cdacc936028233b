"""What `mountd explain` finds out where no daemon answers: unit, configuration, mounts that were left, last log lines.

No path of a mount is touched: the kernel's table says what is mounted.
"""

from __future__ import annotations

import os
from pathlib import Path

from mountd.api.documents.explain import ExplainDocument
from mountd.api.documents.explain import explain as as_document
from mountd.cli import unit_facts
from mountd.errors import ConfigError, Unreachable
from mountd.fuse import table
from mountd.fuse.watch import read_table
from mountd.i18n import ENGLISH, _, language_of
from mountd.process.instance import Instance
from mountd.settings.load import config_path, load
from mountd.settings.schema import Settings
from mountd.status.causes import SEEN
from mountd.status.explain import ChainLink, Explanation, root_of
from mountd.status.grounds import Background, Ground
from mountd.status.snapshot import Health, Reason

LINES = 3
"""Of mountd's log."""


def explanation(config: str | None, socket: str | None, error: Unreachable) -> ExplainDocument:
    """`error`: what asking the daemon failed for; `config` and `socket` as they were given."""
    unit = unit_facts.unit_of(config)
    properties = unit_facts.properties(unit)
    facts = (*unit_facts.shown(unit, properties), *unit_facts.last_lines(unit, LINES))
    code = _code(error, properties.get("ActiveState", ""), properties.get("SubState", ""))
    grounds = [Ground(code, "mountd", Reason("", error.text, hint=error.hint), facts)]
    if code in ("not-running", "unit-failed"):
        path = config_path(config, os.environ)
        settings, broken = _load(path)
        if broken is not None and (config or not socket) and os.path.lexists(path):
            grounds.insert(
                0, Ground("config-invalid", str(path), Reason("config-invalid", broken.text, hint=broken.hint))
            )
        if settings is not None:
            grounds += _stale(settings)
    return _document(grounds)


def _document(grounds: list[Ground]) -> ExplainDocument:
    translate = _ if language_of(os.environ) != ENGLISH else str
    roots = [root_of(each, Background(), translate) for each in grounds]
    first = roots[0]
    chain = (
        ChainLink("mountd", "mountd", "no-daemon", translate(SEEN["no-daemon"])),
        ChainLink(first.layer, first.object, first.code, first.text),
    )
    return as_document(Explanation(False, Health.UNKNOWN, first, chain, tuple(roots[1:])))


def _code(error: Unreachable, state: str, substate: str) -> str:
    if "may not use the socket" in error.text:
        return "daemon-not-permitted"
    if "does not answer" in error.text:
        return "daemon-silent"
    if state == "failed" or substate.startswith("auto-restart"):  # it has ended, and may do so again and again
        return "unit-failed"
    return "unit-starting" if state in ("activating", "deactivating", "reloading") else "not-running"


def _load(path: Path) -> tuple[Settings | None, ConfigError | None]:
    try:
        return load(path).settings, None
    except ConfigError as error:
        return None, error


def _stale(settings: Settings) -> list[Ground]:
    """Mounts of this instance that are still there."""
    instance = Instance.of(settings.state, settings.runtime)
    sources = {table.devname(instance.id, name) for name in settings.mounts}
    return [
        Ground("stale-mount", entry.mount_point, None, (f"{entry.source} ({entry.fs_type})",))
        for entry in read_table()
        if entry.source in sources
    ]
