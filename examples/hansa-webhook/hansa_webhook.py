"""An observer that tells another service of every event, by HTTP."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from typing import Any
from urllib.parse import urlsplit

from hansa import (
    DeliveryRejected,
    Formatted,
    HttpError,
    HttpRequest,
    HttpResponse,
    Message,
    Observation,
    PluginContext,
    RetryLater,
    hookimpl,
)
from hansa.markdown import render_markdown
from pydantic import BaseModel, ConfigDict, Field

api = 1

#: Answers in the 400s that are about this moment, and not about the event.
_PASSING = frozenset({401, 403, 404, 408, 425, 429})
#: The longest wait in seconds that the service may ask for.
_MAX_RETRY_AFTER = 3600
#: Digits of the number of seconds that are read.
_MAX_DIGITS = 9


class Config(BaseModel):
    """The settings of an ``[observers.<name>]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        pattern=r"^https?://[^/\s@]+(/\S*)?$",
        description="where events are sent; http:// only where nobody else can read",
    )
    secret: str = Field(
        min_length=16,
        repr=False,
        description="key of the signature, which the service has too; may be a secret",
    )
    seconds: float = Field(default=10, gt=0, le=50, description="how long the service may take to answer")


class Webhook:
    """See ``hansa.Observer``. It keeps nothing: Hansa remembers how far it is."""

    def __init__(self, ctx: PluginContext) -> None:
        self.ctx = ctx
        self.config: Config = ctx.config

    async def observe(self, observation: Observation) -> None:
        """One request for one event. The same event has the same key, whenever it comes."""
        url = urlsplit(self.config.url)
        tls = url.scheme == "https"
        body = body_of(observation)
        sent = str(self.ctx.clock.now() // 1000)
        request = HttpRequest(
            method="POST",
            host=url.hostname or "",
            port=url.port or (443 if tls else 80),
            target=(url.path or "/") + (f"?{url.query}" if url.query else ""),
            host_header=url.netloc,
            tls_name=(url.hostname or "") if tls else "",
            headers={
                "Content-Type": "application/json",
                "Idempotency-Key": observation.key,
                "Hansa-Timestamp": sent,
                "Hansa-Signature": signature(self.config.secret, sent, body),
            },
            body=body,
            timeout=self.config.seconds,
            max_body=65_536,
            share=f"webhook {self.ctx.id}",
        )
        try:
            answer = await self.ctx.http.request(request)
        except HttpError as error:
            raise RetryLater(f"{url.hostname} {error}") from error
        if 200 <= answer.status < 300:
            return
        reason = f"{url.hostname} answered {answer.status}"
        if 400 <= answer.status < 500 and answer.status not in _PASSING:
            raise DeliveryRejected(reason)
        raise RetryLater(reason, after=retry_after(answer))


def body_of(observation: Observation) -> bytes:
    """The JSON object of an event. ``key`` is in it, so that the signature covers it. A message's text is
    in it as Markdown too. ``confined`` is true for what no other network gets.
    """
    event, said = observation.event, observation.event.content
    formatted = Formatted(text=said.text, spans=said.spans) if isinstance(said, Message) else None
    return json.dumps(
        {
            "key": observation.key,
            "id": event.id,
            "room": event.room,
            "seq": event.seq,
            "network": event.origin.network,
            "sender": str(event.sender),
            "ts": event.ts,
            "received": event.received,
            "confined": event.is_confined,
            "kind": said.kind.value,
            "content": plain(dataclasses.asdict(said)),
            **({"markdown": render_markdown(formatted)} if formatted else {}),
        }
    ).encode()


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def signature(secret: str, sent: str, body: bytes) -> str:
    """``sha256=`` and the HMAC of the time, a dot and the body, in hex. A service refuses an old time."""
    return "sha256=" + hmac.new(secret.encode(), sent.encode() + b"." + body, hashlib.sha256).hexdigest()


def retry_after(answer: HttpResponse) -> float:
    """The seconds that the service asks to wait, 0 if it asks for none."""
    asked = answer.headers.get("retry-after", "")
    if not (asked.isascii() and asked.isdigit()):
        return 0.0
    return float(min(int(asked[:_MAX_DIGITS]), _MAX_RETRY_AFTER))


@hookimpl
def open_observer(ctx: PluginContext) -> Webhook:
    """One ``[observers.<name>]`` table with ``plugin = "webhook"``."""
    return Webhook(ctx)
