"""Who is notified of events: the targets, which events each of them gets, and how often at most."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from mountd import codes
from mountd.settings.fields import PositiveDuration, WebAddress
from mountd.settings.secret import SecretRef
from mountd.settings.section import Section
from mountd.settings.source import Place
from mountd.settings.units import Duration, Limit

NotifyLanguage = Literal["en", "zh_CN"]
LONGEST_WAIT_S = 3600.0
PEOPLE_LIMIT = Limit(10, 3600.0)
PEOPLE_AFTER_S = 30.0
TIMEOUT_S = {"webhook": 10.0, "apprise": 30.0}


class NotifySettings(Section):
    """One target of notifications: a program, by webhook, or people, by apprise."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["webhook"]}, {"required": ["apprise"]}]})

    webhook: WebAddress | SecretRef | None = Field(
        None, description="the address that each event is posted to, as a CloudEvent"
    )
    secret: SecretRef | None = Field(
        None, description="of the webhook: the key of its signature, as Standard Webhooks has it"
    )
    apprise: SecretRef | None = Field(
        None, description="where addresses for apprise stand, one a line: mail, DingTalk, Feishu, WeCom, Slack …"
    )
    events: Annotated[list[str], Field(max_length=100)] | None = Field(
        None, description="codes, also with * such as switch-*; default: what people must know"
    )
    at_most: Limit | None = Field(
        None, description="messages; what is more is summarised. Default: no limit for a webhook, 10 in 1h for people"
    )
    after: Annotated[Duration, Field(le=LONGEST_WAIT_S)] | None = Field(
        None,
        description="an alarm that is over within this time is not sent. Default: 0s for a webhook, 30s for people",
    )
    healed: bool = Field(True, description="one message when an alarm that was sent is over")
    language: NotifyLanguage | None = Field(None, description="of what people read; default: en")
    timeout: Annotated[PositiveDuration, Field(le=120)] | None = Field(
        None, description="for one try; default: 10s for a webhook, 30s for people"
    )

    @model_validator(mode="after")
    def _check(self) -> NotifySettings:
        if (self.webhook is None) == (self.apprise is None):
            raise ValueError("write exactly one of webhook and apprise")
        if self.secret is not None and self.webhook is None:
            raise ValueError("secret belongs to webhook")
        if self.language is not None and self.apprise is None:
            raise ValueError("language belongs to apprise")
        return self

    @property
    def is_for_people(self) -> bool:
        return self.apprise is not None

    @property
    def patterns(self) -> tuple[str, ...]:
        return codes.MUST_KNOW if self.events is None else tuple(self.events)

    @property
    def limit(self) -> Limit | None:
        """How many messages at most; None: any number."""
        return self.at_most or (PEOPLE_LIMIT if self.is_for_people else None)

    @property
    def after_s(self) -> float:
        if self.after is not None:
            return self.after
        return PEOPLE_AFTER_S if self.is_for_people else 0.0

    @property
    def timeout_s(self) -> float:
        return self.timeout or TIMEOUT_S["apprise" if self.is_for_people else "webhook"]

    def secrets(self) -> Iterator[tuple[Place, SecretRef]]:
        """Every secret that is referred to, and its key."""
        named = {"webhook": self.webhook, "secret": self.secret, "apprise": self.apprise}
        yield from (((key,), each) for key, each in named.items() if isinstance(each, SecretRef))
