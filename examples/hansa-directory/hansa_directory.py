"""Passwords: another service says whether they are right."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from hansa import Crossing, HttpError, HttpRequest, PluginContext, Verdict, hookimpl
from pydantic import BaseModel, ConfigDict, Field

api = 1

_RIGHT, _WRONG = 200, frozenset({401, 403})


class Config(BaseModel):
    """The settings of a ``[policies.<name>]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(
        default="https://localhost/check",
        pattern=r"^https://[^/\s]+(/\S*)?$",
        description="where the service is",
    )
    seconds: float = Field(default=5, gt=0, description="how long it may take to answer")


class Directory:
    """See ``hansa.Policy``; it has no opinion of crossings."""

    def __init__(self, ctx: PluginContext) -> None:
        self.ctx = ctx
        self.config: Config = ctx.config

    @hookimpl
    async def check(self, crossing: Crossing) -> Verdict | None:
        """None of this plugin's business."""

    @hookimpl
    async def check_password(self, user: str, password: str) -> bool | None:
        """Ask the service; neither the password nor the answer is kept."""
        url = urlsplit(self.config.url)
        request = HttpRequest(
            method="POST",
            host=url.hostname or "",
            port=url.port or 443,
            target=(url.path or "/") + (f"?{url.query}" if url.query else ""),
            host_header=url.netloc,
            tls_name=url.hostname or "",
            headers={"Content-Type": "application/json"},
            body=json.dumps({"user": user, "password": password}).encode(),
            timeout=self.config.seconds,
            max_body=65_536,
        )
        try:
            answer = await self.ctx.http.request(request)
        except HttpError as error:
            self.ctx.log.warning("%s: %s", self.config.url, error)
            return None
        if answer.status == _RIGHT:
            return True
        return False if answer.status in _WRONG else None


@hookimpl
def open_policy(ctx: PluginContext) -> Directory:
    """One ``[policies.<name>]`` table with ``plugin = "directory"``."""
    return Directory(ctx)
