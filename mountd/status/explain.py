"""Snapshot → why: the chain from what a person sees down to the root cause, with evidence and the next command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mountd.i18n import N_
from mountd.status import readiness
from mountd.status.causes import SEEN
from mountd.status.grounds import Background, Chain, Ground, Grounds
from mountd.status.snapshot import Health, Snapshot
from mountd.text import storable

EVIDENCE, LONGEST = 8, 400
"""Facts of a root, and characters of one."""
LINES = 3
"""Of output."""
Translate = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Root:
    """Why, for people: a sentence, facts, what to do and the next command; `docs` is a page of the documentation."""

    code: str
    layer: str
    object: str
    text: str
    evidence: tuple[str, ...]
    command: str
    hint: str
    docs: str


@dataclass(frozen=True, slots=True)
class ChainLink:
    layer: str
    object: str
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`root` None: nothing has to be explained. `chain`: from what is seen to the root; `others`: further roots."""

    ready: bool
    health: Health
    root: Root | None = None
    chain: tuple[ChainLink, ...] = ()
    others: tuple[Root, ...] = ()

    @property
    def is_well(self) -> bool:
        return self.ready and self.health is Health.HEALTHY


def explain(snapshot: Snapshot, background: Background | None = None, translate: Translate = str) -> Explanation:
    """`translate`: a template of the catalogue → the same in another language."""
    background = background or Background()
    ready, health = readiness.is_ready(snapshot), readiness.health(snapshot)
    chains: list[Chain] = []
    explained: set[tuple[str, str]] = set()
    for chain in Grounds(snapshot, background).all(ready=ready, health=health):
        if chain and (chain[-1].code, chain[-1].object) not in explained:
            chains.append(chain)
            explained |= {(each.code, each.object) for each in chain}
    if not chains:
        return Explanation(ready, health)
    first, *others = chains
    seen = _seen(first[-1].code, snapshot, ready=ready, health=health)
    links = (ChainLink("mountd", "mountd", seen, translate(SEEN[seen])), *(_link(each, translate) for each in first))
    roots = [root_of(each[-1], background, translate) for each in (first, *others)]
    return Explanation(ready, health, roots[0], links, tuple(roots[1:]))


def _seen(root: str, snapshot: Snapshot, *, ready: bool, health: Health) -> str:
    if not ready:
        return "not-ready"
    if health is not Health.HEALTHY:
        return health.value
    return "rolled-back" if root == "rolled-back" else "OutOfSync"


def _link(ground: Ground, translate: Translate) -> ChainLink:
    return ChainLink(ground.cause.layer, ground.object, ground.code, _text(ground, translate))


def _text(ground: Ground, translate: Translate) -> str:
    return translate(ground.cause.text).format(object=ground.object)


def root_of(ground: Ground, background: Background, translate: Translate = str) -> Root:
    cause, because = ground.cause, ground.because
    facts = [because.text] if because is not None else []
    since = background.since.get((ground.code, ground.object), "")
    facts += [translate(N_("since {time}")).format(time=since)] if since else []
    facts += ground.facts
    facts += [f"{ground.object}: {line}" for line in background.said.get(ground.object, ())[-LINES:]]
    advice = translate(cause.advice).format(object=ground.object)
    if because is not None and because.hint:
        # What found it knows more than the table. In another language it is added, as it is, to the evidence.
        if translate is str:
            advice = because.hint
        else:
            facts.insert(1, because.hint)
    return Root(
        code=ground.code,
        layer=cause.layer,
        object=ground.object,
        text=_text(ground, translate),
        evidence=tuple(storable(" ".join(each.split()), LONGEST) for each in facts[:EVIDENCE]),
        command=cause.command.format(object=ground.object),
        hint=advice,
        docs=cause.docs,
    )
