"""What is shown of a configuration without its secrets, also where they stand inside of something else.

A secret is known by what stands before it: the name of an option, variable, header or parameter, or the user of an
address. A word that nothing of that kind names (`login hunter2`) looks like any other, and is shown. Otherwise
rather too much is hidden than too little: what is hidden can be looked up in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from mountd.settings.schema import Settings
from mountd.settings.secret import is_secret, is_secret_option

HIDDEN = "********"
LONGEST_WORD = 7
"""Of a query without a `=`; what is longer may be a token."""
LONGEST_USER = 20
"""Of an address, in characters; what is longer may be a token."""
DEEPEST = 8
"""Commands within commands; what lies deeper is hidden."""

_QUERY = re.compile(r"[?#]")
_USER = re.compile(r"(://)([^/@\s:]*)(?=@|:[^\s/@]*@)")
_PARAMETER = re.compile(r"([A-Za-z0-9_]+=)(\"(?:[^\"]|\"\")*\"|'(?:[^']|'')*'|[^,:\s]*)")
_CONNECTION = re.compile(r"^[^/\s]*,[A-Za-z0-9_]+=", re.MULTILINE)
_BEARS = r"(?:token|secret|passw(?:or)?d|passphrase|pwd|api[-_]?key|(?:account|access|secret)[-_]?key)"
_NAME = rf"[\w-]*(?:authorization|cookie|{_BEARS})"
_HEADER = re.compile(
    # In JSON the name has its quotes; a header on a command line may be quoted with its name.
    rf"(?i)(?P<json>(?<![\w-]){_NAME}[\"']\s*:\s*)(?:(?:\"(?:[^\"\\\n]|\\.)*\"?|'[^'\n]*'?)[^,}}\]\s'\"]*|[^,}}\]\s]+)"
    rf"|(?P<quoted>(?P<quote>[\"']){_NAME}\s*:\s*)(?:(?!(?P=quote))[^\n])+"
    rf"|(?P<plain>(?<![\w-]){_NAME}\s*:\s*)[^\n]+"
)
_PAIR = re.compile(
    # A shell joins what stands in quotes with what follows.
    rf"(?i)(?<![\w-])([\w-]*{_BEARS}=)(?:(?:\"[^\"]*\"|'[^']*')+[^\s;&'\"]*|\"[^\"]*|'[^']*|[^\s;&'\"]+)"
)
TOKEN_PART = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[\w~-]{20,}|[\w~-]{32,}")
"""A part of a path that may be a token, as in the addresses of chat services."""
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.~+/=-]{4,}")
_IS_HEADER = re.compile(r"^headers?$|[-_]headers?$|^header[-_]", re.IGNORECASE)
_MAKES_SECRET = re.compile(r"(token|password|pass|secret|key|credentials?)[-_]command$", re.IGNORECASE)
_NAMED = re.compile(r"(-{0,2})([A-Za-z][\w.-]*)=(.*)", re.DOTALL)
_LOGIN = re.compile(r"(^|[-_])(auth|basic-?auth|userpwd|user|login)$|(^|[-_])auth[-_]", re.IGNORECASE)
"""Names of options that take `user:password`."""
_SHORT_LOGIN = re.compile(r"(-[uU])([^:=]*:.*)", re.DOTALL)
_HEADER_NAME = re.compile(r"([\w-]+\s*:\s*)")
_SHELL = re.compile(r"[\s;|&`()<>]")
_SHELL_WORD = re.compile(r"(?:\\.|'[^']*'|\"(?:[^\"\\]|\\.)*\"|[^\s;|&`()<>])+", re.DOTALL)
_QUOTED = re.compile(r"\\(.)|'([^']*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)


def effective(settings: Settings) -> dict[str, Any]:
    """What a person would have to write for them: plain data in the units of the file, with every default.

    Parsing it again gives equal settings, but for what is hidden. A key that has no value (`uid` of a mount, say) is
    left out.
    """
    shown: dict[str, Any] = settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    for remote in shown["remotes"].values():
        _mask(remote, option)
    for mount in shown["mounts"].values():
        _mask(mount["options"], option)
    for app in shown["apps"].values():
        _mask(app["environment"], variable)
    for target in shown["notify"].values():
        if isinstance(target.get("webhook"), str):
            target["webhook"] = address(target["webhook"])
    masked: dict[str, Any] = _everywhere(shown)
    return masked


def address(url: str) -> str:
    """Of a webhook: without its query, and without parts of its path that may be tokens."""
    path, query, hidden = text(url).partition("?")
    shown = [HIDDEN if TOKEN_PART.fullmatch(part) else part for part in path.split("/")]
    return f"{'/'.join(shown)}{query}{hidden}"


def _mask(group: dict[str, Any], mask: Callable[[str, str], str]) -> None:
    for name, value in group.items():
        if isinstance(value, str):
            group[name] = mask(name, value)
        elif isinstance(value, list):
            group[name] = [mask(name, each) for each in value]


def _everywhere(shown: Any, key: str = "") -> Any:
    """Commands and addresses, wherever a key has one."""
    match shown:
        case dict():
            return {name: _everywhere(value, name) for name, value in shown.items()}
        case list() if key == "command":
            return command(shown)
        case list():
            return [_everywhere(each, key) for each in shown]
        case str() if "://" in shown:
            return text(shown)
    return shown


def text(value: str) -> str:
    """Without passwords and queries of addresses, and without headers and parameters that carry a secret."""
    if "://" in value:
        value = re.sub(r"\S+", lambda word: _password(word[0]), value)
        value = re.sub(r"[^\s'\"]+", lambda word: _query(word[0]), value)
    value = _HEADER.sub(lambda found: f"{found['json'] or found['quoted'] or found['plain']}{HIDDEN}", value)
    value = _PAIR.sub(rf"\g<1>{HIDDEN}", value)
    return _BEARER.sub(rf"\g<1>\g<2>{HIDDEN}", value)


def _password(word: str) -> str:
    """Of an address in `word`: from the first `:` to the last `@`, as a password may hold `/`, `:` and `@` itself."""
    begin = word.find("://") + 3
    colon, at = word.find(":", begin), word.rfind("@")
    if begin > 2 and begin <= colon < at - 1:
        word = f"{word[: colon + 1]}{HIDDEN}{word[at:]}"
    return _USER.sub(lambda match: match[1] + (HIDDEN if len(match[2]) > LONGEST_USER else match[2]), word)


def _query(word: str) -> str:
    begin = word.find("://")
    query = _QUERY.search(word, begin + 3) if begin >= 0 else None
    if query is None:
        return word
    return word[: query.end()] + re.sub(r"[^&;#?]+", lambda part: _query_part(part[0]), word[query.end() :])


def _query_part(part: str) -> str:
    name, separator, _ = part.partition("=")
    return f"{name}={HIDDEN}" if separator else part if len(part) <= LONGEST_WORD else HIDDEN


def option(name: str, value: str) -> str:
    """Of a remote, or a flag of rclone."""
    if is_secret_option(name, value) or _IS_HEADER.search(name) or _MAKES_SECRET.search(name):
        return HIDDEN if value else value
    if any(_CONNECTION.search(word) for word in value.split()):
        value = _PARAMETER.sub(rf"\g<1>{HIDDEN}", value)
    return text(value)


def variable(name: str, value: str, depth: int = 0) -> str:
    """Of an environment; it may hold options of a command (`COMMANDLINE_ARGS`). `depth`: commands that it lies in."""
    if is_secret(name, value) or _is_login(name, value):
        return HIDDEN
    return _script(text(value), depth)


def command(words: Sequence[str], depth: int = 0) -> list[str]:
    """A command line: the values of words such as `--token`, whatever form they have, also in scripts for a shell."""
    shown: list[str] = []
    before = ""
    for word in words:
        if before and _hides_next(before):
            shown.append(_header_value(word) if before == "-H" else HIDDEN)
        elif before.startswith("-") and _is_login(before.lstrip("-"), word):
            shown.append(HIDDEN)
        else:
            shown.append(_word(word, depth))
        before = word
    return shown


def _word(word: str, depth: int) -> str:
    if login := _SHORT_LOGIN.fullmatch(word):
        return f"{login[1]}{HIDDEN}"
    if named := _NAMED.fullmatch(word):
        dashes, name, value = named.groups()
        if not dashes:
            return f"{name}={variable(name, value, depth)}"
        hidden = HIDDEN if _is_login(name, value) else option(name, value)
        return f"{dashes}{name}={_script(hidden, depth)}"
    hidden = text(word)
    return _script(hidden, depth) if _SHELL.search(hidden) else hidden


def _hides_next(word: str) -> bool:
    """Whether what follows this word of a command is its value, and a secret."""
    return word in ("-H", "-u", "-U") or (
        word.startswith("-") and "=" not in word and option(word.lstrip("-"), "x") == HIDDEN
    )


def _header_value(word: str) -> str:
    name = _HEADER_NAME.match(word)
    return f"{name[1]}{HIDDEN}" if name else HIDDEN


def _is_login(name: str, value: str) -> bool:
    return ":" in value and "://" not in value and bool(_LOGIN.search(name))


def _script(value: str, depth: int) -> str:
    """`value` as a shell reads it: words with quotes; as it is written but for what `command` hides of its words."""
    found = list(_SHELL_WORD.finditer(value))
    single = len(found) == 1 and found[0][0] == value and not _SHELL.search(_unquoted(value))
    if not found or (single and not value.startswith("-")):
        return value  # nothing to look into
    if depth >= DEEPEST:
        return HIDDEN
    if single:
        return _word(value, depth + 1)
    plain = [_unquoted(word[0]) for word in found]
    pieces, end = [], 0
    for word, before, after in zip(found, plain, command(plain, depth + 1), strict=True):
        quote = word[0][0] if word[0][0] in "'\"" and word[0][-1] == word[0][0] else ""
        pieces += [value[end : word.start()], word[0] if before == after else f"{quote}{after}{quote}"]
        end = word.end()
    return "".join([*pieces, value[end:]])


def _unquoted(word: str) -> str:
    return _QUOTED.sub(
        lambda match: match[1] or match[2] or re.sub(r"\\([\"\\$`\n])", r"\1", match[3] or ""),
        word,
    )
