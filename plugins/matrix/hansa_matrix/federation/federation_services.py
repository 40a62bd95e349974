"""The services that reach other servers, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from hansa_matrix.federation.client import FederationClient
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.federation.sender import FederationSender
from hansa_matrix.federation.server_discovery import ServerDiscovery


@dataclass(frozen=True, slots=True)
class Federation:
    """The way out: where a server is, requests to it, its keys, and the queue of what is sent to it."""

    discovery: ServerDiscovery
    client: FederationClient
    keyring: Keyring
    sender: FederationSender
