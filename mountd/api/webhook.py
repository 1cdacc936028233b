"""The route of webhooks: a request that proves to know the secret makes mountd read a model's repository at once."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Mapping

import structlog
from aiohttp import web

from mountd.api.documents import SCHEMA, failures
from mountd.api.documents.operations import WebhookDocument
from mountd.api.history import answer
from mountd.api.roles import Route, RouteAccess
from mountd.errors import CannotStart, UsageError
from mountd.gitops import webhook
from mountd.model.model import Model
from mountd.settings.secret import ReadSecrets, SecretRef
from mountd.text import storable

log = structlog.get_logger()

WEBHOOKS = "/api/v1/webhook/"
MAX_BODY_BYTES = 25 * 1024 * 1024
"""What GitHub sends at most. It is hashed as it comes, and not kept."""
BODY_S = 10.0
AT_ONCE = 10
"""More get 429: no request has proved anything before its whole body has arrived."""
LOG_EVERY_S = 10.0
"""Refused ones: anybody can send them."""


class Webhooks:
    def __init__(self, models: Mapping[str, Model], poke: Callable[[str], bool], read_secrets: ReadSecrets) -> None:
        self._models = models
        self._poke = poke
        self._read_secrets = read_secrets
        self._open = 0
        self._logged = -LOG_EVERY_S

    def routes(self) -> list[Route]:
        definition = web.post(f"{WEBHOOKS}{{model}}", self.receive)
        about = inspect.getdoc(self.receive) or ""
        return [Route(definition, RouteAccess.SIGNED, answers={202: WebhookDocument}, about=about)]

    async def receive(self, request: web.Request) -> web.Response:
        """Makes mountd read the repository of the model now, when the request proves to know the webhook's secret.

        The body is what GitHub, Gitea, Forgejo or GitLab send, with their signature or token in a header. 401 has no
        reason: the log has it.
        """
        if self._open >= AT_ONCE:
            return answer(failures.error(UsageError("cannot take another webhook now")), 429)
        self._open += 1
        try:
            async with asyncio.timeout(BODY_S):
                why = await self._refusal(request)
        except TimeoutError:
            why = f"its body did not come within {BODY_S:g} s"
        finally:
            self._open -= 1
        name = request.match_info["model"]
        if why or not self._poke(name):
            self._log_refused(name, why or "the model has no source that is followed")
            return answer(failures.error(UsageError("cannot accept the webhook")), 401)
        log.info("webhook received", model=name)
        return answer(WebhookDocument(schema=SCHEMA, model=name), 202)

    async def _refusal(self, request: web.Request) -> str:
        """Why the request is not to be believed; empty when it is."""
        reference = self._secret(request.match_info["model"])
        if reference is None:
            return "no model of this name has a webhook"
        try:
            secret = (await self._read_secrets({"secret": reference}))["secret"]
        except CannotStart as error:
            return error.text
        if webhook.is_token(request.headers, secret):
            return ""
        if not webhook.has_signature(request.headers):
            return "it has neither a signature nor the token"
        signature, size = webhook.begin(secret), 0
        try:
            while chunk := await request.content.read(64 * 1024):
                size += len(chunk)
                if size > MAX_BODY_BYTES:
                    return f"its body is larger than {MAX_BODY_BYTES >> 20} MiB"
                signature.update(chunk)
        except (web.RequestPayloadError, ConnectionError):
            return "its body is not complete"
        return "" if webhook.is_signed(request.headers, signature) else "its signature is not made with the secret"

    def _secret(self, model: str) -> SecretRef | None:
        found = self._models.get(model)
        desired = found.settings.desired if found else None
        hook = desired.git.webhook if desired and desired.git else None
        return hook.secret if hook else None

    def _log_refused(self, model: str, why: str) -> None:
        now = time.monotonic()
        if now - self._logged >= LOG_EVERY_S:
            self._logged = now
            log.warning("webhook refused", model=storable(model, 64), cause=why)
