"""An option or argument that is one of a few words; a wrong one is answered with the near one."""

from __future__ import annotations

from typing import Any

import click

from mountd.i18n import _
from mountd.text import nearest


class OneOf(click.Choice[str]):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in self.choices:
            text = _("{value!r} is not one of {names}.").format(value=value, names=", ".join(self.choices))
            near = nearest(str(value), self.choices)
            self.fail(_("{said} Did you mean {name}?").format(said=text, name=near) if near else text, param, ctx)
        return str(value)
