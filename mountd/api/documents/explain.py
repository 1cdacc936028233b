"""Why something is wrong, as a document: the root cause, and the chain that leads from what is seen to it."""

from __future__ import annotations

from typing_extensions import TypedDict

from mountd.api.documents import SCHEMA, Schema, document
from mountd.status.explain import ChainLink, Explanation, Root


class RootDocument(TypedDict):
    """`evidence`: facts. `command`: the next one to run, "" where none helps. `docs`: a page and its heading."""

    code: str
    layer: str
    object: str
    text: str
    evidence: list[str]
    command: str
    hint: str
    docs: str


class ChainLinkDocument(TypedDict):
    layer: str
    object: str
    code: str
    text: str


class ExplainDocument(Schema):
    """`root` is null when nothing has to be explained; `others` are roots that it does not explain."""

    ready: bool
    health: str
    root: RootDocument | None
    chain: list[ChainLinkDocument]
    others: list[RootDocument]


def explain(found: Explanation) -> ExplainDocument:
    return ExplainDocument(
        schema=SCHEMA,
        ready=found.ready,
        health=found.health,
        root=_root(found.root) if found.root is not None else None,
        chain=[_link(each) for each in found.chain],
        others=[_root(each) for each in found.others],
    )


def _root(found: Root) -> RootDocument:
    return document(RootDocument, found)


def _link(found: ChainLink) -> ChainLinkDocument:
    return document(ChainLinkDocument, found)
