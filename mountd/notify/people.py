"""Writes to people by apprise, in a short-lived process, so that its imports and leaks stay out of the daemon."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mountd import container
from mountd.errors import cause_of
from mountd.files.worker_process import WorkerProcess
from mountd.notify import apprise_worker, texts
from mountd.notify.delivery import OutgoingMessage, SenderDeps, Undelivered
from mountd.notify.language import in_language
from mountd.process.resources import lack
from mountd.settings.environment import of_notifier
from mountd.settings.notify import NotifySettings
from mountd.settings.secret import SecretRef

MOST_URLS = 50
MAX_ANSWER_BYTES = 64 * 1024
INSTALL = "install it: pip install 'mountd[notify]'"
IN_IMAGE = "; for mountd's image: --build-arg EXTRAS=rclone,notify"
KILL_S = 1.0


class PeopleSender:
    def __init__(self, name: str, settings: NotifySettings, deps: SenderDeps) -> None:
        self._name = name
        self._settings = settings
        self._deps = deps
        self._got: tuple[str, frozenset[str]] = ("", frozenset())
        """a message, and the addresses that have it: of a try that failed for others"""

    async def send(self, message: OutgoingMessage) -> None:
        """To each address that does not have it yet. Raises Undelivered, CannotStart."""
        reference = self._settings.apprise
        assert reference is not None
        urls = addresses((await self._deps.read_secrets({"apprise": reference}))["apprise"], reference)
        got = self._got[1] if self._got[0] == message.id else frozenset()
        left = [url for url in urls if url not in got]
        failed = await self._ask(message, left) if left else {}
        self._got = (message.id, frozenset(url for index, url in enumerate(left) if index not in failed) | got)
        if failed:
            index, cause = next(iter(failed.items()))
            scheme = left[index].partition("://")[0]
            number = urls.index(left[index]) + 1
            others = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
            raise Undelivered(
                f"cannot deliver by {scheme}:// (address {number} of {len(urls)}{others}): {cause}",
                hint=f"see what the service answers, and correct the address in {reference}",
                is_partial=bool(self._got[1]),
            )

    async def _ask(self, message: OutgoingMessage, urls: list[str]) -> dict[int, str]:
        translate = await in_language(self._settings.language)
        texts_of = {
            "title": texts.title(message, self._deps.host, translate),
            "body": texts.body(message, self._deps.host, translate),
            "kind": str(texts.tone(message.notification)),
        }
        marks = self._deps.marks(f"notify {self._name}")
        return await ask(urls, texts_of, marks, limit_s=self._settings.timeout_s)


async def ask(
    urls: Sequence[str], message: Mapping[str, str], marks: Mapping[str, str], *, limit_s: float
) -> dict[int, str]:
    """Why the message was not delivered, by the index of an address. Raises Undelivered, also where apprise is not
    installed, which no address at all finds out as well."""
    environment = {**of_notifier(os.environ), **marks}
    try:
        worker = await WorkerProcess.start(
            Path(apprise_worker.__file__), environment, longest_line=MAX_ANSWER_BYTES, packages=True
        )
    except OSError as error:
        found = lack(error)
        text = found.text if found is not None else cause_of(error)
        raise Undelivered(f"cannot write to people: {text}", hint=found.hint if found else "") from None
    try:
        async with asyncio.timeout(limit_s):
            worker.send({"urls": [*urls], **message})
            await worker.writer.drain()
            line = await worker.reader.readline()
    except TimeoutError:
        text = f"cannot write to people: no end after {limit_s:g} s"
        raise Undelivered(text, hint="see the network to the services; `timeout` of the target may be longer") from None
    except (OSError, ValueError):  # it has ended, or says too much
        line = b""
    finally:
        worker.kill()
        await worker.is_gone(KILL_S)
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    if answer.get("missing"):
        raise Undelivered("cannot write to people: apprise is not installed", hint=install_hint())
    failed = _failed(answer, len(urls))
    if failed is None:
        raise Undelivered("cannot write to people: apprise gave no answer", hint=install_hint())
    return failed


def install_hint() -> str:
    return INSTALL + (IN_IMAGE if container.is_here() else "")


def _failed(answer: dict[str, Any], count: int) -> dict[int, str] | None:
    """Why, by the index of an address of which `count` were asked for; None: this is no answer."""
    failed = answer.get("failed")
    places = {str(index): index for index in range(count)}
    if not isinstance(failed, dict) or not failed.keys() <= places.keys():
        return None
    return {places[key]: str(cause) for key, cause in failed.items()}


def addresses(text: str, reference: SecretRef) -> list[str]:
    """One a line; empty lines and those that begin with # do not count. Raises Undelivered."""
    lines = (line.strip() for line in text.splitlines())
    found = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not found or len(found) > MOST_URLS:
        why = "it holds no address" if not found else f"it holds more than {MOST_URLS} addresses"
        hint = "write addresses such as mailto://… or dingtalk://…, one a line"
        raise Undelivered(f"cannot use {reference}: {why}", hint=hint)
    return found
