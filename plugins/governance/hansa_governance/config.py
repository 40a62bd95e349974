"""The plugin's part of a ``[policies.<name>]`` table."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

_NO_NAME = re.compile(r"[/@\s]|^\w+://")


def _check_server_glob(value: str) -> str:
    """A glob of server names; one that no name could match is a mistake, since nothing would be kept out."""
    if _NO_NAME.search(value):
        named = re.fullmatch(r"\w+://([^/@\s:]+)(:[0-9]+)?(/.*)?", value)
        msg = f"{value!r} is not the name of a server{f': say {named[1]}' if named else ''}"
        raise ValueError(msg)
    return value


def _check_user_glob(value: str) -> str:
    """A glob of user ids, likewise."""
    if re.search(r"://|\s", value) or not re.search(r"[@*?]", value):
        msg = f"{value!r} is not the id of a person: say @name:server for Matrix, name@server for XMPP"
        raise ValueError(msg)
    return value


Glob = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Servers = Annotated[Glob, AfterValidator(_check_server_glob)]
Users = Annotated[Glob, AfterValidator(_check_user_glob)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]


class RateConfig(BaseModel):
    """How much one sender may say: everything but coming and going counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    events: int = Field(ge=1, description="how many messages")
    seconds: float = Field(gt=0, le=86_400, description="in how many seconds")


class Config(BaseModel):
    """The settings of the governance policy. ``*`` in a glob stands for any text, ``?`` for one character."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    deny_servers: tuple[Servers, ...] = Field(default=(), description="globs of server names to keep out")
    allow_servers: tuple[Servers, ...] = Field(
        default=(),
        description="globs of the only servers to talk to, your own included; empty: all not denied",
    )
    deny_users: tuple[Users, ...] = Field(default=(), description="globs of user ids to keep out")
    allow_users: tuple[Users, ...] = Field(
        default=(), description="globs of the only users to let in; empty: all that are not denied"
    )
    words: tuple[Word, ...] = Field(
        default=(),
        max_length=10_000,
        description="words or phrases that no message, name or topic may contain",
    )
    rate: RateConfig | None = Field(
        default=None, description="messages allowed for one sender, as events and seconds"
    )
