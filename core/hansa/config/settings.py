"""The settings of the configuration, table by table, besides those that plugins add."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from hansa.model.errors import ConfigError
from hansa.store import check_url


def at_most(value: int, info: ValidationInfo, of: str) -> int:
    """A share that may not be more than the whole, which is the setting ``of`` of the same table."""
    whole = info.data.get(of)
    if whole is not None and value > whole:
        msg = f"must be {whole} or less, as {of} is {whole}"
        raise ValueError(msg)
    return value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsConfig(_Strict):
    """A certificate."""

    certificate: Path = Field(description="PEM file: the certificate, then its chain")
    key: Path = Field(description="PEM file: the private key")


class ServerConfig(_Strict):
    """The ``[server]`` table."""

    listen: list[str] = Field(
        default=["https://127.0.0.1:8448"], description="public addresses; use http:// only behind a proxy"
    )
    tls: TlsConfig | None = Field(default=None, description="certificate of the https:// addresses")
    admin: str = Field(default="unix:hansa.sock", description="socket of the command line; mode 0600")
    metrics: str = Field(default="", description="HOST:PORT for /health and /metrics; empty: none")
    ca_file: Path | None = Field(
        default=None, description="additional certificate authorities for connections to peers"
    )
    private_networks: list[str] = Field(
        default=[], description="private networks in which peers may be, such as 10.0.0.0/8"
    )
    trusted_proxies: list[str] = Field(
        default=[], description="networks of reverse proxies whose X-Forwarded-For header is trusted"
    )

    decisions_days: int = Field(default=90, ge=1, le=36_500, description="days to keep decisions of policies")
    decisions_rows: int = Field(
        default=100_000, ge=1_000, description="number of decisions to keep; the oldest are removed first"
    )
    decisions_of_strangers: int = Field(
        default=1_000,
        ge=10,
        le=100_000,
        description="number of unknown servers whose refused requests are recorded one by one;"
        " all others are counted together",
    )
    connections: int = Field(
        default=4096, ge=64, le=100_000, description="incoming connections at a time on the public addresses"
    )
    connections_per_address: int = Field(
        default=256, ge=8, description="connections from one address; requests, if it is a trusted proxy"
    )
    connections_per_subnet: int = Field(
        default=512, ge=8, description="connections from one IPv4 /24 or IPv6 /64"
    )
    body_memory: int = Field(
        default=128,
        ge=64,
        le=65_536,
        description="MiB of request bodies in memory at a time; one peer or subnet may use at most an eighth",
    )

    @field_validator("listen")
    @classmethod
    def _check_addresses(cls, value: list[str]) -> list[str]:
        for one in value:
            parts = urlsplit(one)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port is None:
                msg = f"{one!r} is not like https://0.0.0.0:8448"
                raise ValueError(msg)
        return value

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, value: str) -> str:
        parts = urlsplit(f"//{value}")
        if value and (not parts.hostname or parts.port is None):
            msg = f"{value!r} is not like 127.0.0.1:9100"
            raise ValueError(msg)
        return value

    @field_validator("connections_per_address", "connections_per_subnet")
    @classmethod
    def _check_share(cls, value: int, info: ValidationInfo) -> int:
        return at_most(value, info, "connections")

    @field_validator("private_networks", "trusted_proxies")
    @classmethod
    def _check_networks(cls, value: list[str]) -> list[str]:
        for one in value:
            ipaddress.ip_network(one, strict=False)
        return value

    @field_validator("admin")
    @classmethod
    def _check_socket(cls, value: str) -> str:
        if not value.startswith("unix:"):
            msg = "must be unix:PATH"
            raise ValueError(msg)
        return value


class StoreConfig(_Strict):
    """The ``[store]`` table."""

    url: str = Field(
        default="sqlite:hansa.db",
        description=(
            "sqlite:FILE, postgres://USER:PASSWORD@HOST/DATABASE (PostgreSQL 14 or newer), or "
            "mongodb://USER:PASSWORD@HOST/DATABASE (a replica set); may be a secret"
        ),
        repr=False,
    )

    @field_validator("url")
    @classmethod
    def _check_store(cls, value: str) -> str:
        try:
            check_url(value)
        except ConfigError as error:
            raise ValueError(error.reason) from None
        return value


class MediaConfig(_Strict):
    """The ``[media]`` table. Quotas are of the files that Hansa itself keeps for networks; the Matrix
    repository has quotas of its own.
    """

    folder: Path = Field(default=Path("media"), description="folder for uploaded and fetched files")
    public_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s?#]+)?$",
        max_length=200,
        description="beginning of links to files, such as https://chat.example, which leads to the public"
        " addresses; empty: as the Matrix network is reached, and no links without one",
    )
    link_days: int = Field(default=7, ge=1, le=365, description="days that a link to a file can be opened")
    max_file: int = Field(
        default=52_428_800, ge=1024, description="largest file that a network may store or fetch, in bytes"
    )
    quota: int = Field(
        default=21_474_836_480, ge=1024, description="bytes that all stored files may take together"
    )
    quota_per_sender: int = Field(
        default=1_073_741_824, ge=1024, description="bytes that the stored files of one sender may take"
    )
    quota_per_server: int = Field(
        default=10_737_418_240,
        ge=1024,
        description="bytes that the stored files of all senders of one server may take",
    )
    files_per_sender: int = Field(default=10_000, ge=1, description="number of stored files of one sender")
    reserve: int = Field(
        default=1_073_741_824,
        ge=0,
        description="bytes of the disk that files leave free, at most a twentieth of it",
    )


class CommandsConfig(_Strict):
    """The ``[commands]`` table: commands that people write in a chat."""

    enabled: bool = Field(
        default=False, description="whether people can write commands to the bridge in a chat"
    )
    prefix: str = Field(
        default="!hansa",
        pattern=r"^[!-~]{2,32}$",
        description="beginning of a message that is a command; such messages reach no other network",
    )
    operators: list[str] = Field(
        default=[],
        description="NETWORK:USER of those who may change every room; a network must prove who a person is,"
        " and a nick of IRC proves nothing",
    )
    linkable: list[str] = Field(
        default=[],
        description="globs of the NETWORK:ADDRESS that an owner of a room may link to it; a wildcard stands"
        " for neither : nor @; empty: only operators link",
    )

    logins: list[str] = Field(
        default=[],
        description="networks on which people of other networks may log in with accounts of their own",
    )
    login_key: Path = Field(
        default=Path("logins.key"),
        description="file with the key that encrypts the passwords of logins; made if it is missing",
    )

    @field_validator("operators", "linkable")
    @classmethod
    def _check_names(cls, value: list[str]) -> list[str]:
        for one in value:
            network, colon, name = one.partition(":")
            if not colon or not network or not name:
                msg = f"{one!r} is not NETWORK:NAME"
                raise ValueError(msg)
        return value


class ThrottleConfig(_Strict):
    """How fast deliveries to one network may be."""

    rate: float = Field(default=0.0, ge=0, description="events per second; 0 means unlimited")
    burst: int = Field(default=50, ge=1, description="deliveries that may go at once before the rate applies")


class RoomTable(_Strict):
    """One ``[[rooms]]`` table."""

    links: list[str] = Field(min_length=1, description="NETWORK:ADDRESS of every native room")
    name: str = Field(
        default="",
        max_length=255,
        description="name of the room; empty: a room that is created is named after its address",
    )
    published: bool = Field(default=False, description="list the room in the public directory")
    owners: list[str] = Field(
        default=[],
        max_length=100,
        description="NETWORK:USER of everybody who is made an owner at each start, such as"
        " xmpp:juliet@example.org; only where no Matrix room decides who may do what",
    )

    @field_validator("owners")
    @classmethod
    def _are_people(cls, value: list[str]) -> list[str]:
        for one in value:
            network, _, user = one.partition(":")
            if not network or not user:
                raise ValueError(f"{one!r} is not NETWORK:USER, such as xmpp:juliet@example.org")
        return value


class NetworkTable(_Strict):
    """The settings of a ``[networks.<id>]`` table that are Hansa's own; the rest is the plugin's."""

    plugin: str = Field(description="the plugin's name, as `hansa plugins` shows it")
    throttle: ThrottleConfig = Field(
        default=ThrottleConfig(), description="limit of deliveries to this network"
    )
    tls: TlsConfig | None = Field(
        default=None, description="certificate for this network's server name alone"
    )
    presence_members: int = Field(
        default=100,
        ge=0,
        le=10_000,
        description="largest room, in members, in which other networks see who is away here, and people"
        " here who is away there; 0: none",
    )


class PolicyTable(_Strict):
    """The settings of a ``[policies.<name>]`` table that are Hansa's own; the rest is the plugin's."""

    plugin: str = Field(description="the plugin's name, as `hansa plugins` shows it")
    on_error: Literal["deny", "allow"] = Field(
        default="deny", description='result if the policy cannot answer: "deny" or "allow"'
    )
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce", description='"shadow" stops nothing and logs what it would have stopped'
    )
    timeout: float = Field(default=1.0, gt=0, le=60, description="seconds allowed for one answer")


class ObserverTable(_Strict):
    """The settings of an ``[observers.<name>]`` table that are Hansa's own; the rest is the plugin's."""

    plugin: str = Field(description="the plugin's name, as `hansa plugins` shows it")
