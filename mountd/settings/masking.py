"""What is shown of a configuration: never a secret, also where it stands inside of something else.

Rather too much is hidden than too little: what is hidden can be looked up in the file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from mountd.settings.secret import is_secret, is_secret_option

HIDDEN = "********"
LONGEST_WORD = 7
"""Of a query without a `=`; what is longer may be a token."""

_QUERY = re.compile(r"(://[^\s?#'\"]*\?)([^\s#'\"]+)")
_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/@\s]+(?=@)")
_PARAMETER = re.compile(r"([A-Za-z0-9_]+=)(\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'|[^,:\s]*)")
_CONNECTION = re.compile(r"^[^/\s]*,[A-Za-z0-9_]+=", re.MULTILINE)
_HEADER = re.compile(
    r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|[\w-]*(?:token|secret|api-?key))(\s*:\s*)[^'\"\n]+"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/=-]{4,}")
_IS_HEADER = re.compile(r"^headers?$|[-_]headers?$|^header[-_]", re.IGNORECASE)
_MAKES_SECRET = re.compile(r"(token|password|pass|secret|key|credentials?)[-_]command$", re.IGNORECASE)
_NAMED = re.compile(r"(-{0,2})([A-Za-z][\w.-]*)=(.*)", re.DOTALL)


def text(value: str) -> str:
    """Without passwords and queries of addresses, and without headers that carry a secret."""
    value = _PASSWORD.sub(rf"\g<1>{HIDDEN}", value)
    value = _QUERY.sub(lambda match: match[1] + _query(match[2]), value)
    value = _HEADER.sub(rf"\g<1>\g<2>{HIDDEN}", value)
    return _BEARER.sub(rf"\g<1>\g<2>{HIDDEN}", value)


def _query(query: str) -> str:
    shown = []
    for part in query.split("&"):
        name, separator, _ = part.partition("=")
        shown.append(f"{name}={HIDDEN}" if separator else part if len(part) <= LONGEST_WORD else HIDDEN)
    return "&".join(shown)


def option(name: str, value: str) -> str:
    """Of a remote, or a flag of rclone."""
    if is_secret_option(name, value) or _IS_HEADER.search(name) or _MAKES_SECRET.search(name):
        return HIDDEN if value else value
    if any(_CONNECTION.search(word) for word in value.split()):
        value = _PARAMETER.sub(rf"\g<1>{HIDDEN}", value)
    return text(value)


def variable(name: str, value: str) -> str:
    """Of an environment."""
    return HIDDEN if is_secret(name, value) else text(value)


def command(words: Sequence[str]) -> list[str]:
    """A command line: the values of words such as `--token`, whatever form they have."""
    shown: list[str] = []
    hide_next = False
    for word in words:
        named = _NAMED.fullmatch(word)
        if hide_next:
            shown.append(HIDDEN)
            hide_next = False
        elif named:
            dashes, name, value = named.groups()
            hidden = option(name, value) if dashes else variable(name, value)
            shown.append(f"{dashes}{name}={hidden}")
        else:
            shown.append(text(word))
            bare = word.lstrip("-")
            hide_next = word in ("-H", "-u") or (word.startswith("--") and option(bare, "x") == HIDDEN)
    return shown
