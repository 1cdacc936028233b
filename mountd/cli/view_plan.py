"""The plan of a switch → lines for people: in English as the daemon words it, else from the same values."""

from __future__ import annotations

import os

from mountd.cli.labels import STEPS, joined, word
from mountd.cli.wrap import columns, padded
from mountd.client.api import Document
from mountd.i18n import ENGLISH, N_, _, language_of

_PLANNED = {
    "preflight": N_("load the names and sizes of its files, at most {limit}; see that {to} is complete"),
    "warm": N_("load the data that the switch needs, at most {limit}"),
    "verify": N_("see that the mount shows them, at most {limit}"),
    "stop": N_("stop {apps}, at most {limit}"),
    "flip": N_("point {link} at {target}"),
    "start": N_("start {apps}"),
    "ready": N_("wait until {apps} are ready, at most {limit}"),
    "gates": N_("ask the gates: {gates}"),
    "watch": N_("for {watch}: {crashes} crashes or a gate that fails bring {former} back"),
    "commit": N_("{to} is live for good, and {former} its way back"),
}
_UNFORCED = N_(", and not in quarantine")
_PLACED = N_(", and that the link can be placed")
SUSPENDS = N_(", and automatic sync is suspended until `mountd resume`")
"""What the daemon adds to a commit that goes against the model's source."""


def lines(plan: Document) -> list[str]:
    """A line for each step, and what is undone."""
    from mountd.cli.labels import duration

    if language_of(os.environ) == ENGLISH:
        return [*plan["text"]]
    former = plan["from"] or word("nothing")
    if not plan["steps"]:
        return [_("{model} is at {version} already: nothing to do").format(model=plan["model"], version=plan["to"])]
    said = [f"{word(plan['kind'])} {plan['model']} {former} → {plan['to']}"]
    width = max(columns(word(step)) for step in STEPS)
    for step in plan["steps"]:
        text = step["text"]
        if step["step"] in _PLANNED:
            text = _(_PLANNED[step["step"]]).format(
                apps=joined(plan["apps"]),
                crashes=plan["watch"]["crashes"],
                former=former,
                gates=joined(plan["gates"]),
                limit=duration(step["limit_s"]),
                link=plan["link"],
                target=plan["target"],
                to=plan["to"],
                watch=duration(plan["watch"]["for_s"]),
            ) + _added(step, plan)
        said.append(f"  {padded(word(step['step']), width)}  {text}")
    if plan["digests"]:
        said.append(_("Every byte is read for its sha256."))
    if plan["stopped"]:
        said.append(_("{apps}: stays stopped, and no gate is asked.").format(apps=joined(plan["stopped"])))
    undone = joined(word(each) for each in plan["undo"])
    return [*said, _("Whatever fails after the version was verified is undone: {steps}.").format(steps=undone)]


def _added(step: Document, plan: Document) -> str:
    """What holds for some plans only."""
    if step["step"] == "preflight":
        return ("" if plan["force"] else _(_UNFORCED)) + _(_PLACED)
    return _(SUSPENDS) if step["step"] == "commit" and str(step["text"]).endswith(SUSPENDS) else ""
