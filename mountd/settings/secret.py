"""A secret by reference: where it is, never what it is, until the moment it is needed."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from mountd.errors import CannotStart, cause_of, needs_fix
from mountd.settings.plain_file import read_plain

MAX_SECRET_BYTES = 64 * 1024
EXACTLY_ONE = "a secret is exactly one of {env: NAME}, {file: /path} or {credential: NAME}"

# Names under which rclone's backends (`rclone config providers`: IsPassword and Sensitive) and programs take secrets.
_SECRET_NAME = re.compile(
    r"(^|[_-])(secret|pass|passwd|password2?|passphrase|token|api_?key|account_key|private_key|secret_key|secret_access_key"
    r"|private_access_key|master_keys?|library_key|sse_customer_key(_base64)?|key_pem|sas_url|connection_string|access_grant"
    r"|service_account_credentials|config_credentials|mnemonic|cookies|authorization)$|^key$",
    re.IGNORECASE,
)
_URL_WITH_PASSWORD = re.compile(r"://[^/@\s:]*:[^/@\s]+@")
# Of a remote, whatever looks like one: a secret under a mistyped name is still a secret. What rclone's backends have of
# that look and is none stands in _NO_SECRET.
_LOOKS_SECRET = re.compile(r"secret|token|key|credential|(^|_)pas(?!sive)", re.IGNORECASE)
_WORDS = ("secret", "token", "password", "passphrase", "credentials")
_NO_SECRET = re.compile(
    r"_(id|name|file|path|url|uri|endpoint|type|command|expiry|md5|sha256|algorithms|exchange|agent|blocks)$"
    r"|^(host_keys|pin_host_key|pubkey|public_key|resource_key|client_credentials)$",
    re.IGNORECASE,
)


def is_secret(name: str, value: str) -> bool:
    """Whether the text `value` under the option or variable `name` is to be taken for a secret."""
    if value.lower() in ("", "true", "false"):
        return False
    return bool(_SECRET_NAME.search(name.replace("-", "_")) or _URL_WITH_PASSWORD.search(value))


def is_secret_option(name: str, value: str) -> bool:
    """As `is_secret`, for an option of a remote: also under a name that only looks like that of a secret."""
    if is_secret(name, value) or value.lower() in ("", "true", "false"):
        return is_secret(name, value)
    name = name.replace("-", "_")
    if _NO_SECRET.search(name):
        return False
    words = re.split(r"[^A-Za-z]+", name.lower())
    return bool(_LOOKS_SECRET.search(name)) or any(difflib.get_close_matches(word, _WORDS, 1, 0.8) for word in words)


class SecretRef(BaseModel):
    """`{env: NAME}`, `{file: /path}` or `{credential: NAME}` (a file in systemd's $CREDENTIALS_DIRECTORY)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    file: Annotated[Path, WithJsonSchema({"type": "string", "pattern": "^/"})] | None = None
    credential: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretRef:
        if sum(value is not None for value in (self.env, self.file, self.credential)) != 1:
            raise ValueError(EXACTLY_ONE)
        if self.file is not None and not self.file.is_absolute():
            raise ValueError("the path of a secret must be absolute")  # what stands there may be the secret itself
        return self

    def __str__(self) -> str:
        kind, value = next((kind, value) for kind, value in self if value is not None)
        return f"{{{kind}: {value}}}"

    @property
    def path(self) -> Path | None:
        """The file that holds it; None for a variable, or when systemd passed no credentials."""
        directory = os.environ.get("CREDENTIALS_DIRECTORY")
        if self.credential is not None:
            return Path(directory, self.credential) if directory is not None else None
        return self.file

    @property
    def is_elsewhere(self) -> bool:
        """A credential, where systemd passed none: only the unit can read it."""
        return self.credential is not None and self.path is None

    def read(self) -> str:
        """The secret itself, without the line end. Raises CannotStart naming the place, never the content."""
        if self.env is not None:
            value = os.environ.get(self.env)
            if value is None:
                raise cannot_read(
                    f"the environment variable {self.env} is not set",
                    f"set {self.env} in mountd's environment and restart it",
                )
            return _checked(value, f"the environment variable {self.env}")
        path = self.path
        load = f"LoadCredential={self.credential}:/path/to/secret"
        if path is None:
            unit = "INVOCATION_ID" in os.environ
            raise cannot_read(
                f"the credential {self.credential} was asked for, but systemd passed none",
                f"add {load} to the unit" if unit else f"only systemd passes it: systemd-run --pipe -p {load} mountd …",
            )
        only = "point the reference at a file that holds only the secret"
        try:
            data = read_plain(path, MAX_SECRET_BYTES)
        except OSError as error:
            hint = f"create {path}, readable by mountd's user only"
            if self.credential is not None:
                hint = f"add {load} to the unit"
            elif error.errno in (errno.EINVAL, errno.EISDIR):
                hint = only
            elif not isinstance(error, FileNotFoundError):
                hint = f"let uid {os.geteuid()} read it, and nobody else"
            cause = cause_of(error)
            raise cannot_read(f"{path}{' ' if error.errno == errno.EINVAL else ': '}{cause}", hint) from None
        if len(data) > MAX_SECRET_BYTES:
            raise cannot_read(f"{path} is larger than 64 KiB", only)
        try:
            return _checked(data.decode(), str(path))
        except UnicodeDecodeError:
            raise cannot_read(f"{path} is not text", "store the secret as UTF-8 text") from None


ReadSecrets = Callable[[Mapping[str, SecretRef]], Awaitable[dict[str, str]]]
"""Each secret by the same name, read without blocking the event loop; raises CannotStart."""
LookAtSecrets = Callable[[Collection[SecretRef]], Awaitable[object]]
"""What is there, unread: the same twice means the same secrets. None: not known. Does not block, either."""


def _checked(value: str, place: str) -> str:
    value = value.rstrip("\r\n")
    if not value:
        raise cannot_read(f"{place} is empty", "put the secret there")
    if "\0" in value:
        raise cannot_read(f"{place} holds a NUL character", "store the secret as text")
    try:
        value.encode()
    except UnicodeEncodeError:  # a variable, whose bytes nobody has checked
        raise cannot_read(f"{place} is not text", "store the secret as UTF-8 text") from None
    return value


def cannot_read(cause: str, hint: str) -> CannotStart:
    return needs_fix("secret-missing", f"cannot read a secret: {cause}", hint)
