"""An S3 remote's static keys → the files by which rclone takes rotated keys while it runs (`credential_process`).

rclone reads rclone.conf once, but its AWS SDK runs a command when credentials expire. So the keys are in a prepared
file, and a script prints them as expiring in a moment. Tried with 1.75.2: a profile of rclone's
`shared_credentials_file` needs no variable in the environment, keeps one remote's files from another's, and counts
before AWS_* and ~/.aws; the command runs through `sh -c`; ` #` and ` ;` begin a comment, even in quotes.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Generic, TypeVar

V = TypeVar("V")

LIFE_S = 3
"""How long rclone uses keys before it asks again; that request then takes 5 ms longer."""
KEYS = {
    "access_key_id": "AccessKeyId",
    "secret_access_key": "SecretAccessKey",
    "session_token": "SessionToken",
}
"""What may change under a running rclone: option of the remote → its name in what `credential_process` prints."""
CONFIG_NAME = "aws.config"
SCRIPT_NAME = "aws-credentials.sh"

VARIABLES = frozenset(
    {
        *("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN"),
        *("AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PASSWORD", "AZURE_PASSWORD", "AZURE_STORAGE_ACCOUNT_KEY"),
        *("OS_PASSWORD", "OS_AUTH_TOKEN", "OS_APPLICATION_CREDENTIAL_SECRET", "ST_KEY"),
    }
)
"""What a remote with `env_auth` takes from mountd's environment, and no other program has to."""

_ELSEWHERE = ("env_auth", "profile", "shared_credentials_file")  # the admin has decided where the keys come from
_HEADER = "# Written by mountd: changes are lost.\n"
_TRUE = ("true", "1", "t")

# Not executable, and run by name: /run is often mounted noexec. The keys pass through no variable and no word of a
# command, which others could read. LD_PRELOAD could give `date` a clock that is not rclone's.
SCRIPT = f"""\
# Written by mountd: prints the keys of the remote $1 for rclone, which asks again after {LIFE_S} s.
unset LD_PRELOAD
set -e
expires=$(date -u -d "@$(($(date +%s) + {LIFE_S}))" +%Y-%m-%dT%H:%M:%SZ)
printf '{{"Expiration": "%s",\\n' "$expires"
exec sed 1d "${{0%/*}}/aws-$1.json"
"""


@dataclass(frozen=True, slots=True)
class Split(Generic[V]):
    """`remotes` as rclone.conf is to have them, and the keys taken out of them, by remote and option."""

    remotes: Mapping[str, Mapping[str, V | str]]
    keys: Mapping[str, Mapping[str, V]]


def split(remotes: Mapping[str, Mapping[str, V]], directory: PurePath) -> Split[V]:
    """Takes the keys out of each S3 remote that has static ones; `directory` is that of the files."""
    kept: dict[str, Mapping[str, V | str]] = {}
    keys: dict[str, Mapping[str, V]] = {}
    for name, options in remotes.items():
        kept[name] = dict(options)
        if has_live_keys(options):
            keys[name] = {option: options[option] for option in KEYS if options.get(option)}
            rest = {option: value for option, value in options.items() if option not in KEYS}
            kept[name] = rest | {
                "env_auth": "true",
                "profile": profile_of(name),
                "shared_credentials_file": str(directory / CONFIG_NAME),
            }
    return Split(kept, keys)


def has_live_keys(options: Mapping[str, object]) -> bool:
    """Whether rclone can be given new keys of this remote while it runs; `type` is one of the options.

    Not when the admin decides where they come from (`env_auth: false` leaves them in rclone.conf), and not with
    signature version 2, for which rclone takes the keys from rclone.conf only.
    """
    old_signature = str(options.get("v2_auth", "")).lower() in _TRUE or options.get("region") == "other-v2-signature"
    return (
        options.get("type") == "s3"
        and bool(options.get("access_key_id") and options.get("secret_access_key"))
        and not old_signature
        and not any(option in options for option in _ELSEWHERE)
    )


def takes_environment(options: Mapping[str, object]) -> bool:
    """Whether rclone looks for the keys of this remote in its environment."""
    return str(options.get("env_auth", "")).lower() in _TRUE


def profile_of(remote: str) -> str:
    return f"mountd-{remote}"  # not one that ~/.aws/credentials may have, which the SDK reads as well


def keys_name(remote: str) -> str:
    return f"aws-{remote}.json"


def render_config(remotes: Iterable[str], directory: PurePath) -> str:
    """The AWS config file: a profile for each of these remotes."""
    script = shlex.quote(str(directory / SCRIPT_NAME)).replace("#", "''#").replace(";", "'';")  # neither is a comment
    return _HEADER + "".join(
        f"\n[profile {profile_of(name)}]\ncredential_process = /bin/sh {script} {name}\n" for name in sorted(remotes)
    )


def render_keys(keys: Mapping[str, object]) -> str:
    """What the script prints, without the expiry: JSON, the brace alone on its line as the script drops that."""
    document = {"Version": 1} | {KEYS[option]: str(keys[option]) for option in KEYS if option in keys}
    return json.dumps(document, indent=0) + "\n"
