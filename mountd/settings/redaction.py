"""Takes secrets out of text that leaves the machine: known values in each usual encoding, and what looks like one.

`masking` knows a secret by the name before it. Here the values themselves are known as well, wherever they stand: in
what an app printed, in an event, in a command line. Rather too much is hidden than too little.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

from mountd.settings import masking
from mountd.settings.masking import HIDDEN
from mountd.settings.secret import is_secret, is_secret_option

SHORTEST = 5
"""Characters of a secret that is looked for: a shorter one stands in many words by chance."""
SHORTEST_LINE = 12
"""Of a secret with several lines, such as a key in PEM, each of them is looked for."""
_LOOKS = re.compile(
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"  # access key ids of Amazon
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON Web Tokens
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|hf_|sk-)[\w-]{16,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)
_NAMED = re.compile(r"(?m)^(?P<head>\s*(?P<name>[A-Za-z][\w-]*)\s*[=:]\s+)(?P<value>[^\n]+)$")
"""As in rclone.conf, YAML and the properties of a unit: one a line."""
_NO_SECRETS = ("", "key")
"""Names in documents: a key is that of an object."""
_CREDENTIAL = re.compile(r"(?m)^(\s*SetCredential(?:Encrypted)?=[^:\n]*:).*$")

_COMMAND = re.compile(r"([#;\s]*(?:Exec\w*|Environment)\s*=)(.*)")
"""In the file of a unit; also where it is a comment."""


class Redactor:
    """Replaces each known secret, and what looks like one, by `********`."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = sorted({form for secret in secrets for form in forms_of(secret)}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, forms))) if forms else None

    def text(self, value: str) -> str:
        if self._known is not None:
            value = self._known.sub(HIDDEN, value)
        value = _LOOKS.sub(HIDDEN, value)
        value = _CREDENTIAL.sub(rf"\g<1>{HIDDEN}", value)
        value = _NAMED.sub(_named, value)
        return masking.text(value)

    def document(self, value: object, name: str = "") -> object:
        """A JSON document: each text by itself, as in JSON the marks around it are escaped; keys as well."""
        match value:
            case str():
                return HIDDEN if name not in _NO_SECRETS and is_secret(name, value) else self.text(value)
            case Mapping():
                return {self.text(str(key)): self.document(each, str(key)) for key, each in value.items()}
            case list() | tuple():
                return [self.document(each, name) for each in value]
        return value


def unit_file(text: str) -> str:
    """The file of a unit without the secrets of its commands; what goes on in the next line stands in one."""
    joined: list[str] = []
    continued: dict[bool, int] = {}
    """where what goes on begins: comments may stand in between, and be continued themselves"""
    for line in text.splitlines():
        is_comment = line.lstrip()[:1] in ("#", ";")
        if not is_comment:
            continued.pop(True, None)
        goes_on = (len(line) - len(line.rstrip("\\"))) % 2 == 1
        shown = line[:-1].rstrip() if goes_on else line
        if (index := continued.get(is_comment)) is not None:
            joined[index] += f" {shown.lstrip('#; ' if is_comment else None)}"
        else:
            joined.append(shown)
            index = len(joined) - 1
        if goes_on:
            continued[is_comment] = index
        else:
            continued.pop(is_comment, None)
    return "".join(f"{_command(line)}\n" for line in joined)


def _command(line: str) -> str:
    found = _COMMAND.fullmatch(line)
    if found is None:
        words = line.split() if line.lstrip()[:1] in ("#", ";") else []  # it may be a part of a command
        shown = masking.command(words)
        return line if shown == words else " ".join(shown)
    try:
        words = shlex.split(found[2])
    except ValueError:  # quotes that are not closed
        return f"{found[1]}{HIDDEN}"
    shown = masking.command(words)
    return line if shown == words else f"{found[1]}{shlex.join(shown)}"


def forms_of(secret: str) -> Iterator[str]:
    """How it may stand in text: as it is, quoted for an address or for JSON, and as base64 within other text."""
    secret = secret.strip()
    lines = [line.strip() for line in secret.splitlines()]
    if len(lines) > 1:
        for line in lines:
            if len(line) >= SHORTEST_LINE and not line.startswith("-----"):
                yield from forms_of(line)
    if len(secret) < SHORTEST:
        return
    yield secret
    yield quote(secret, safe="")
    yield quote(secret)
    yield quote_plus(secret)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    data = secret.encode()
    for before in range(3):
        # What stands before it shifts it within its groups of three bytes; the characters at its edges mix with others.
        encoded = base64.b64encode(b"\0" * before + data).decode().rstrip("=")
        inside = encoded[(before * 8 + 5) // 6 : (before + len(data)) * 8 // 6]
        if len(inside) >= SHORTEST:
            yield inside
            yield inside.translate(str.maketrans("+/", "-_"))


def _named(found: re.Match[str]) -> str:
    hides = is_secret_option(found["name"], found["value"].strip())
    return f"{found['head']}{HIDDEN}" if hides else found[0]
