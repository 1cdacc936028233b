"""Each code of an event, from the registry: what it means, which code ends it, and whether people must know."""

from __future__ import annotations

from mountd.codes import CODES
from pages.blocks import table


def render() -> str:
    rows = []
    for code, each in CODES.items():
        over = ", ".join(f"`{other}`" for other in each.healed_by)
        rows.append((f"`{code}`", each.meaning, over, "yes" if each.must_know else ""))
    return table(("code", "means", "is over with", "people must know"), rows)
