"""Whether mountd runs in a container, and which flag gives it there what it lacks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_SIGNS = ("KUBERNETES_SERVICE_HOST", "container")
"""Variables of a container's processes; the second one is set by mountd's image, Podman and systemd-nspawn."""


def is_here() -> bool:
    return any(name in os.environ for name in _SIGNS) or any(map(os.path.exists, MARKS))


def for_directory(path: Path | str, error: OSError, *, volume: str = "") -> str:
    """What to add for a directory that cannot be made or written; "" where nothing that a container is given helps.

    `volume`: the name of one for what must outlive the container.
    """
    if not is_here():
        return ""
    flag = f"--volume {volume}:{path}" if volume else f"--tmpfs {path}"
    if error.errno == errno.EROFS:
        return f"the container's root is read-only: start it with {flag} (Kubernetes: a volume mounted there)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"start the container with {flag} that uid {os.geteuid()} may write (chown; Kubernetes: fsGroup), or with"
            " --user 0"
        )
    return ""


def for_configuration(path: Path | str) -> str:
    """What to add where the configuration is not there; "" outside of a container."""
    if not is_here():
        return ""
    directory = Path(path).parent
    return f"start the container with --volume ./config:{directory}:ro (Kubernetes: a ConfigMap at {directory})"
