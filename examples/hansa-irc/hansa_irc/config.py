"""The settings of a ``[networks.<id>]`` table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr


class Config(BaseModel):
    """The settings of a ``[networks.<id>]`` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(description="name or address of the IRC server", min_length=1)
    port: int = Field(default=6697, ge=1, le=65535, description="its port")
    transport: Literal["tls", "tcp"] = Field(
        default="tls", description='"tls", or "tcp" for a connection that everybody on the way can read'
    )
    ca_file: Path | None = Field(default=None, description="certificates to trust, instead of the system's")
    nick: str = Field(default="hansa", min_length=1, max_length=32, description="nick of the bridge")
    user: str = Field(
        default="hansa", pattern=r"^[A-Za-z0-9_.-]{1,9}$", description="user name of its connections"
    )
    real_name: str = Field(default="Hansa bridge", max_length=100, description="its real name")
    password: SecretStr | None = Field(default=None, description="password of the server")
    sasl_account: str = Field(default="", description="account for SASL PLAIN; empty for no account")
    sasl_password: SecretStr | None = Field(default=None, description="its password")
    lines_per_second: float = Field(
        default=0.5,
        ge=0,
        description="lines of text that a connection sends per second, each with a PING; 0 for no limit",
    )
    burst: int = Field(default=5, ge=1, le=1000, description="lines that it may send at once")
    puppets: int = Field(
        default=0, ge=0, le=1000, description="people of other networks who get a connection of their own"
    )
    puppet_idle: float = Field(
        default=3600, gt=0, description="seconds without a word after which a puppet leaves"
    )
    accounts: int = Field(
        default=100,
        ge=0,
        le=1000,
        description="people who may be logged in with accounts of their own, if [commands] logins allows it",
    )
    decides: bool = Field(
        default=False,
        description="the channel decides what others may say in it; not beside a Matrix room",
    )
    members: int = Field(
        default=200, ge=0, description="people of a channel who are shown before they say anything"
    )
