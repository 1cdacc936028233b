"""Settings → what a person would have to write for them: with defaults, secrets as references, plain ones hidden."""

from __future__ import annotations

from typing import Any

from mountd.settings.schema import Settings
from mountd.settings.secret import is_secret, is_secret_option

HIDDEN = "********"


def effective(settings: Settings) -> dict[str, Any]:
    """Plain data in the units of the file, ready for YAML or JSON.

    Parsing it again gives equal settings, but for plain secrets, of which only HIDDEN is shown. A key that has no value
    (`uid` of a mount, say) is left out.
    """
    shown: dict[str, Any] = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    groups = [(remote, is_secret_option) for remote in shown["remotes"].values()]
    groups += [(app["environment"], is_secret) for app in shown["apps"].values()]
    for group, hides in groups:
        for name, value in group.items():
            if isinstance(value, str) and hides(name, value):
                group[name] = HIDDEN
    return shown
