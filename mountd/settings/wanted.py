"""What must hold between the keys that say which version of a model is wanted, and when mountd follows that."""

from __future__ import annotations

from collections.abc import Iterator

from mountd.settings.schema import ModelSettings
from mountd.settings.source import Place
from mountd.settings.sync import GitSettings
from mountd.settings.words import Finding


def check_wanted(place: Place, model: ModelSettings) -> Iterator[Finding]:
    if model.sync.retry.max < model.sync.retry.initial:
        yield Finding((*place, "sync", "retry", "max"), "must not be less than initial")
    if model.version is None and model.desired is None:
        yield Finding((*place, "version"), "is missing or empty: write it, or `desired` instead")
    if model.version is not None and model.desired is not None:
        yield Finding((*place, "desired"), "cannot stand beside version: which of the two is wanted is not clear")
    if model.desired is not None and model.desired.git is not None:
        yield from _git((*place, "desired", "git"), model.desired.git)


def _git(place: Place, git: GitSettings) -> Iterator[Finding]:
    if git.token is not None and git.is_ssh:
        yield Finding((*place, "token"), "belongs to https: ssh takes ssh_key")
    if git.ssh_key is not None and not git.is_ssh:
        yield Finding((*place, "ssh_key"), "belongs to ssh: https takes token")
    if git.known_hosts is not None and not git.is_ssh:
        yield Finding((*place, "known_hosts"), "belongs to ssh")
    if git.is_in_the_open and git.token is not None:
        yield Finding((*place, "url"), "would send the token in the open: write https://")
    elif git.is_in_the_open:
        yield Finding((*place, "url"), "can be changed by anybody on the way: write https://", warning=True)
    if git.timeout > git.interval:
        yield Finding((*place, "timeout"), "should not be longer than interval", warning=True)
