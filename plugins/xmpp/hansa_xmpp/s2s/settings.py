"""What both directions of the streams need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hansa_xmpp.places import Target
from hansa_xmpp.proto.stream_xml import dialback_key
from hansa_xmpp.s2s.certificates import Certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """``domain`` is ours. ``routes`` are servers whose address is configured; ``unverified`` are domains that
    may prove themselves without a valid certificate. ``secret`` makes the dialback keys.
    ``client_certificates``: servers that connect are asked for theirs.
    """

    domain: str
    certificates: Certificates
    secret: bytes
    routes: Mapping[str, Target] = field(default_factory=dict)
    unverified: frozenset[str] = frozenset()
    client_certificates: bool = False

    def key_for(self, receiving: str, originating: str, stream_id: str) -> str:
        """The dialback key by which ``originating``, ours, proves itself."""
        return dialback_key(self.secret, receiving, originating, stream_id)
