"""Separates what rclone has written into rclone.conf (OAuth tokens) from what mountd wrote, so that it is not lost.

Of what mountd wrote only digests are remembered. rclone's own values are remembered as they are: a provider may take
each refresh token once, and after a reboot, which empties the runtime directory, the one in the settings is used up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

Remotes = Mapping[str, Mapping[str, str]]
"""Sections of rclone.conf: by name, each with its options, `type` among them."""


class RemoteRecord(BaseModel):
    """One remote. `asked` and `own` are digests by option: of the value in the settings, and of its text in the file
    (a password is obscured there), `former` of previous texts; `kept` is what rclone put in their place or added."""

    model_config = ConfigDict(frozen=True)

    type: str
    asked: dict[str, str] = Field(default_factory=dict)
    own: dict[str, str] = Field(default_factory=dict)
    former: dict[str, str] = Field(default_factory=dict)
    kept: dict[str, str] = Field(default_factory=dict, repr=False)


class WritebackRecord(BaseModel):
    """`salt` makes the digests mean nothing elsewhere; `text` is the digest of rclone.conf as it was last seen."""

    model_config = ConfigDict(frozen=True)

    salt: str = Field(repr=False)
    text: str = ""
    remotes: dict[str, RemoteRecord] = Field(default_factory=dict)

    def digest(self, value: str) -> str:
        key = self.salt.encode()[: hashlib.blake2b.MAX_KEY_SIZE]
        return hashlib.blake2b(value.encode("utf-8", "surrogatepass"), key=key, digest_size=16).hexdigest()


def learn(record: WritebackRecord, found: Remotes, text: str) -> WritebackRecord:
    """The record after rclone.conf was found to hold `found` (`text` as a whole).

    A previous value of mountd is none of rclone's: it may have saved what it had read a moment before mountd wrote.
    """
    remotes = dict(record.remotes)
    for name, written in record.remotes.items():
        options = found.get(name)
        if options is not None and options.get("type") == written.type:
            kept = {
                option: value
                for option, value in options.items()
                if option != "type"
                and record.digest(value) not in (written.own.get(option), written.former.get(option))
            }
            remotes[name] = written.model_copy(update={"kept": kept})
    return record.model_copy(update={"remotes": remotes, "text": record.digest(text)})


def merge(record: WritebackRecord, own: Remotes, asked: Remotes) -> tuple[dict[str, dict[str, str]], WritebackRecord]:
    """What rclone.conf is to hold, and the record of it (whose `text` is still the previous one).

    `own` is what the settings make of it, `asked` the same before passwords were obscured. rclone's value stays unless
    the settings have another one than when mountd last wrote it, or the remote is of another type now.
    """
    result: dict[str, dict[str, str]] = {}
    remotes: dict[str, RemoteRecord] = {}
    for name, options in own.items():
        wanted = {option: record.digest(value) for option, value in asked[name].items()}
        texts = {option: record.digest(value) for option, value in options.items()}
        last = record.remotes.get(name)
        former, kept = {}, {}
        if last is not None and last.type == options["type"]:
            former = last.former | {
                option: digest for option, digest in last.own.items() if digest != texts.get(option)
            }
            kept = {
                option: value
                for option, value in last.kept.items()
                if wanted.get(option) == last.asked.get(option)  # both None: rclone added it
            }
        result[name] = {**options, **kept}
        remotes[name] = RemoteRecord(type=options["type"], asked=wanted, own=texts, former=former, kept=kept)
    return result, record.model_copy(update={"remotes": remotes})
