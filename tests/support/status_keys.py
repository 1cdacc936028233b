"""The keys of the status document of a demo, which scripts rely on."""

from __future__ import annotations

from typing import Any

from mountd.api.documents.outbox import OutboxDocument

# With None for every value.
STATUS: dict[str, Any] = {
    "schema": None,
    "version": None,
    "pid": None,
    "uptime_s": None,
    "ready": None,
    "health": None,
    "reasons": None,
    "remotes": {"demo": {"health": None}},
    "mounts": {
        "storage": {
            "state": None,
            "stage": None,
            "health": None,
            "path": None,
            "remote": None,
            "pid": None,
            "restarts": None,
            "since": None,
            "cache": {"bytes_used": None, "files": None, "uploads_queued": None},
            "drain": None,
            "said": None,
        }
    },
    "models": {
        "cache_hub": {
            "mount": None,
            "stage": None,
            "health": None,
            "current": None,
            "previous": None,
            "desired": None,
            "pending": None,
            "sync": None,
            "suspended": None,
            "source": None,
            "window": None,
            "link": None,
            "target": None,
            "digest": None,
            "verified": None,
            "warmed_percent": None,
            "level": None,
            "pinned": None,
            "loading": None,
        }
    },
    "apps": {
        "webui": {
            "state": None,
            "health": None,
            "needs": None,
            "pid": None,
            "restarts": None,
            "since": None,
            "versions": {"cache_hub": None},
            "load": None,
            "stopped": None,
            "said": None,
        },
    },
    "outbox": {"results": dict.fromkeys(OutboxDocument.__annotations__)},
    "notify": {},
    "operation": None,
    "operations": None,
    "scheduled": None,
    "config": {"source": None, "loaded": None, "summary": None, "problems": None, "warnings": None},
}


def keys(document: object) -> Any:
    """The document with None for everything but its objects."""
    return {key: keys(value) for key, value in document.items()} if isinstance(document, dict) else None
