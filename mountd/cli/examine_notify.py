"""What `doctor` checks of notifications to people: is apprise installed, and are there addresses. It sends nothing."""

from __future__ import annotations

from mountd.cli.examine import Check
from mountd.errors import CannotStart
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
        return [Check(f"notify {name}", "fail", error.text, error.hint) for name in targets]
    checks = []
    for name, reference in targets.items():
        where = f"notify {name}"
        try:
            count = len(sender.addresses(reference.read(), reference))
        except Undelivered as error:
            checks.append(Check(where, "fail", error.text, error.hint))
        except CannotStart:
            checks.append(Check(where, "ok", "apprise is installed"))
        else:
            many = f"are {count} addresses" if count > 1 else "is one address"
            text = f"apprise is installed, and there {many}; `mountd notify {name}` sends a test message"
            checks.append(Check(where, "ok", text))
    return checks
