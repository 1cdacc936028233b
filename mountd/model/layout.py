"""Where versions lie: a pattern such as `cache_hub_{version}` ↔ a version and its directory."""

from __future__ import annotations

from dataclasses import dataclass

from mountd.settings.names import MUTABLE, VERSION

PLACEHOLDER = "{version}"


@dataclass(frozen=True, slots=True)
class Layout:
    """`pattern` is relative to the mount and holds `{version}` once, in any of its components."""

    pattern: str

    def _parts(self) -> tuple[str, str, str]:
        """Directory that holds the versions, the component that names them, what lies beneath it."""
        components = self.pattern.strip("/").split("/")
        index = next(i for i, component in enumerate(components) if PLACEHOLDER in component)
        return "/".join(components[:index]), components[index], "/".join(components[index + 1 :])

    @property
    def parent(self) -> str:
        """The directory to list in order to find versions; empty for the root of the mount."""
        return self._parts()[0]

    def directory(self, version: str) -> str:
        return self.pattern.strip("/").replace(PLACEHOLDER, version)

    def version_of_target(self, root: str, target: str) -> str | None:
        """The version that a link to `target` points at on the mount at `root`; None when that is something else."""
        beneath = f"{root.rstrip('/')}/"
        if not target.startswith(beneath):
            return None
        relative = target.removeprefix(beneath).rstrip("/")
        depth = self.parent.count("/") + 1 if self.parent else 0
        component = (relative.split("/") + [""] * depth)[depth]
        version = self.version_of(component)
        return version if version is not None and self.directory(version) == relative else None

    def version_of(self, name: str) -> str | None:
        """The version that a directory called `name` in `parent` holds, None when it is something else."""
        before, _, after = self._parts()[1].partition(PLACEHOLDER)
        if len(name) <= len(before) + len(after) or not (name.startswith(before) and name.endswith(after)):
            return None
        version = name[len(before) : len(name) - len(after)]
        usable = VERSION.fullmatch(version) and ".." not in version and version.lower() not in MUTABLE
        return version if usable else None
