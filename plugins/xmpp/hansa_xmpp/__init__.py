"""XMPP for Hansa: a component (XEP-0114) of an XMPP server, or a server of its own, which hosts multi-user
chats (XEP-0045).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

from hansa import NetworkContext, hookimpl
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from hansa_xmpp.places import parse_place, parse_route

if TYPE_CHECKING:
    from hansa_xmpp.network import XmppNetwork

api = 1

_DOMAIN = re.compile(r"[^\s@/\"'<>&]{1,1023}")


class Config(BaseModel):
    """The settings of one component."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    component: str = Field(
        description="The component's domain, also that of its rooms (ROOM@DOMAIN) and of puppets."
    )
    host: str = Field("127.0.0.1", description="Where the XMPP server listens for components.")
    port: int = Field(5347, ge=1, le=65535, description="The port it listens on.")
    secret: SecretStr | None = Field(
        None, description="The secret shared with the XMPP server for this component; without `listen` only."
    )
    listen: tuple[str, ...] = Field(
        (),
        description="Addresses (`0.0.0.0:5269`) for other XMPP servers: this server is one of its own then,"
        " and the component of none.",
    )
    listen_tls: tuple[str, ...] = Field(
        (), description="The same for connections that begin with TLS (XEP-0368), such as `0.0.0.0:5270`."
    )
    certificate: Path | None = Field(
        None, description="Certificate chain (PEM) of the domain, with `listen`. Read again when it changes."
    )
    key: Path | None = Field(None, description="Its private key (PEM).")
    ca_file: Path | None = Field(
        None, description="Certificate authorities (PEM) that are trusted besides the system's."
    )
    client_certificates: bool = Field(
        False,
        description="Request the certificates of servers that connect, and accept them as proof (SASL"
        " EXTERNAL). A server whose certificate is for servers only then cannot connect.",
    )
    routes: dict[str, str] = Field(
        default_factory=dict,
        description="Servers of domains, instead of their DNS records: `HOST:PORT`, or `tls:HOST:PORT`.",
    )
    unverified: frozenset[str] = Field(
        frozenset(),
        description="Domains whose servers have no valid certificate: they prove themselves by dialback.",
    )
    history: int = Field(
        50,
        ge=0,
        le=1000,
        description="Messages of history sent to an occupant who joins and does not request a number.",
    )
    history_most: int = Field(
        1000,
        ge=0,
        le=10_000,
        description="Maximum messages of history sent to an occupant who requests more, or since a time.",
    )
    max_occupants: int = Field(
        1000, ge=1, le=100_000, description="XMPP sessions in one room at the same time."
    )
    queue: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Stanzas of one user to one room that may wait; further ones are answered with an error.",
    )
    queue_bytes: int = Field(
        16 * 1024 * 1024,
        ge=65_536,
        description="Bytes of all waiting stanzas: one user may use an eighth, one domain half.",
    )
    ping_timeout: float = Field(
        10.0,
        gt=0,
        le=60,
        description="Seconds for an occupant to answer a ping after a reconnect before it is removed.",
    )

    member_idle_days: int = Field(
        30,
        ge=0,
        le=3650,
        description="Days after which a member of a room without a connection leaves it; 0: never. "
        "Only the time counts in which Hansa runs.",
    )

    answer_subscriptions: bool = Field(
        True,
        description="Accept requests of XMPP users for the presence of people of other networks, where they"
        " could have a direct chat with the person. Else such requests are declined.",
    )
    puppet_presence: bool = Field(
        False,
        description="Send such users whether the person is here, away or busy, without a text, while they"
        " share a room or a direct chat.",
    )

    private_messages: bool = Field(
        True,
        description="Carry private messages between occupants of a hosted room; one to a person of another"
        " network is a message of a direct chat. Else they are answered with an error.",
    )

    muc_listener: str = Field(
        "hansa",
        min_length=1,
        max_length=100,
        pattern=r"^[a-z0-9._-]+$",
        description="Localpart and nick of the occupant that listens in MUCs of other services. No hosted"
        " room may have this name.",
    )
    muc_puppets: int = Field(
        20,
        ge=0,
        le=1000,
        description="People who have an occupant of their own in one MUC elsewhere; the listener speaks for"
        " further ones, with their name before the text.",
    )
    muc_members: int = Field(
        100,
        ge=0,
        le=10_000,
        description="Occupants of a MUC elsewhere who are shown as members at once; further ones are shown"
        " when they first speak.",
    )

    @field_validator("component")
    @classmethod
    def _is_a_domain(cls, value: str) -> str:
        if not _DOMAIN.fullmatch(value):
            raise ValueError("must be a domain such as bridge.example.org")
        return value.lower()

    @field_validator("routes")
    @classmethod
    def _are_routes(cls, value: dict[str, str]) -> dict[str, str]:
        for route in value.values():
            parse_route(route)
        return {domain.lower(): route for domain, route in value.items()}

    @field_validator("listen", "listen_tls")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for place in value:
            parse_place(place)
        return value

    @model_validator(mode="after")
    def _has_one_way(self) -> Self:
        native = bool(self.listen or self.listen_tls)
        if native == (self.secret is not None):
            raise ValueError(
                "give `secret` for a component of an XMPP server, or `listen` for a server of its own"
            )
        if native and (self.certificate is None or self.key is None):
            raise ValueError("`listen` needs `certificate` and `key`")
        return self

    @property
    def is_server(self) -> bool:
        """True for a server of its own, False for a component of one."""
        return self.secret is None


@hookimpl
def open_network(ctx: NetworkContext) -> XmppNetwork:
    """Make the network of one table; slixmpp is imported here and not before."""
    from hansa_xmpp.network import XmppNetwork  # noqa: PLC0415  # only where it is enabled

    if ctx.config.is_server:
        from hansa_xmpp.s2s.connections import ServerConnections  # noqa: PLC0415  # likewise

        return XmppNetwork(ctx, ServerConnections(ctx))
    from hansa_xmpp.component import ComponentConnection  # noqa: PLC0415  # likewise

    return XmppNetwork(ctx, ComponentConnection(ctx.config, ctx.clock, ctx.random))
