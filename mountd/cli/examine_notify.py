"""What `doctor` checks of notifications to people: is apprise installed, and are there addresses. It sends nothing."""

from __future__ import annotations

from mountd.cli.examine import Check
from mountd.errors import CannotStart
from mountd.i18n import M_
from mountd.notify import people as sender
from mountd.notify.delivery import Undelivered
from mountd.settings.schema import Settings

ASK_S = 20.0


async def people(settings: Settings) -> list[Check]:
    """A line for each target that writes to people. Whether its file can be read is among the secrets."""
    targets = {name: target.apprise for name, target in settings.notify.items() if target.apprise is not None}
    if not targets:
        return []
    try:
        await sender.ask([], {}, {}, limit_s=ASK_S)
    except Undelivered as error:
        return [Check(M_("notify {name}", name=name), "fail", error.text, error.hint) for name in targets]
    checks = []
    for name, reference in targets.items():
        where = M_("notify {name}", name=name)
        try:
            count = len(sender.addresses(reference.read(), reference))
        except Undelivered as error:
            checks.append(Check(where, "fail", error.text, error.hint))
        except CannotStart:
            checks.append(Check(where, "ok", M_("apprise is installed")))
        else:
            text = M_("apprise is installed, and there is one address")
            if count > 1:
                text = M_("apprise is installed, and there are {count} addresses", count=count)
            text = M_("{text}; `mountd notify {name}` sends a test message", text=text, name=name)
            checks.append(Check(where, "ok", text))
    return checks
