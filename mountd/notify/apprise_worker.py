"""Writes one message to people by apprise: a process of its own, which takes its order as one line of JSON on stdin.

The order: {"urls", "title", "body", "kind"}. The answer, one line: {"failed": {INDEX: why}}, or {"missing": true} where
apprise is not installed. The addresses hold secrets, so nothing of them is in the answer.
"""

import json
import logging
import os
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, unquote

AT_ONCE = 8
LONGEST_CAUSE = 200
SHORTEST_SECRET = 4
HIDDEN = "***"


class Said(logging.Handler):
    """What apprise complains of, by the thread that sends."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        self._last[threading.get_ident()] = record.getMessage()

    def take(self) -> str:
        return self._last.pop(threading.get_ident(), "")


def without_secrets(text: str, url: str) -> str:
    """`text` without anything that stands in the address but its scheme and port, however it is quoted there."""
    words = set(re.split(r"[^\w~%+-]+", url.partition("://")[2]))
    words |= {form for word in words for form in (unquote(word), quote(word, safe=""), quote(unquote(word), safe=""))}
    for word in sorted(words, key=len, reverse=True):
        if len(word) >= SHORTEST_SECRET and not (word.isdigit() and len(word) <= 5):
            text = text.replace(word, HIDDEN)
    return " ".join(text.split())[:LONGEST_CAUSE]


def deliver(url: str, order: dict[str, str], said: Said) -> str:
    """Why it was not delivered; empty when it was."""
    import apprise

    said.take()
    one = apprise.Apprise()
    if not one.add(url):
        return "this is no address that apprise knows"
    try:
        sent = one.notify(title=order["title"], body=order["body"], notify_type=order["kind"], body_format="text")
    except Exception as error:  # of one service's module: the others are still delivered
        return without_secrets(f"{type(error).__name__}: {error}", url)
    return "" if sent else without_secrets(said.take() or "it was not accepted", url)


def main() -> dict[str, object]:
    order = json.loads(sys.stdin.buffer.readline())
    try:
        import apprise  # noqa: F401
    except ImportError:
        return {"missing": True}
    said = Said()
    logger = logging.getLogger("apprise")
    logger.addHandler(said)
    logger.propagate = False
    urls: list[str] = order["urls"]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        causes = list(pool.map(lambda url: deliver(url, order, said), urls))
    return {"failed": {str(index): cause for index, cause in enumerate(causes) if cause}}


if __name__ == "__main__":
    answer_to = os.dup(1)  # a module of apprise may print
    os.dup2(2, 1)
    os.write(answer_to, json.dumps(main()).encode() + b"\n")
