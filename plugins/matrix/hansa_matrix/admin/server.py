"""The admin commands of a running Matrix network, besides those about rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hansa import AdminCommand, LocalProtocolError, NetworkContext

from hansa_matrix.rooms.inbound.pdu_staging import PduStaging
from hansa_matrix.rooms.local_server import LocalServer


class ServerCommands:
    """Keys, destinations, events that are stuck; ``commands.py`` declares them."""

    def __init__(self, own: LocalServer, ingest: PduStaging) -> None:
        self._ctx: NetworkContext = own.ctx
        self._keys = own.keys
        self._sender = own.sender
        self._ingest = ingest

    def admin_commands(self) -> Mapping[str, AdminCommand]:
        """See ``hansa.HasAdminCommands.admin_commands``."""
        return {
            "keys ls": self.keys,
            "keys rotate": self.rotate,
            "destinations ls": self.destinations,
            "destinations retry": self.retry,
            "destinations reset": self.reset,
            "rooms stuck": self.stuck,
            "rooms skip": self.skip,
        }

    async def keys(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Our signing keys."""
        current = self._keys.current
        old = [{"key": k, "public": o.public, "expired": o.expired_ts} for k, o in self._keys.old.items()]
        return [{"key": current.key_id, "public": current.public, "expired": 0}, *old]

    async def rotate(self, _arguments: Mapping[str, Any]) -> dict[str, str]:
        """Sign with a new key."""
        try:
            new = self._keys.rotate(self._ctx.random.bytes(36), self._ctx.clock.now())
        except OSError as error:
            raise LocalProtocolError(f"{error.filename}: {error.strerror}; the key is as it was") from error
        self._ctx.log.warning("events and requests are signed with %s from now on", new.key_id)
        return {"key": new.key_id}

    async def destinations(self, _arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Every server that we send to."""
        return [asdict(one) for one in await self._sender.destinations()]

    async def retry(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Try a server at once."""
        await self._sender.retry_server(str(arguments["server"]))
        return {"retried": str(arguments["server"])}

    async def reset(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Give up what waits for a server."""
        server = str(arguments["server"])
        return {"server": server, "given_up": await self._sender.discard_backlog(server)}

    async def stuck(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Events of a room that wait to be judged."""
        found = self._ingest.waiting_events(str(arguments["room"]))
        return [{"event": event, "origin": origin, "attempts": tries} for event, origin, tries in found]

    async def skip(self, arguments: Mapping[str, Any]) -> dict[str, str]:
        """Give up one of them."""
        event = str(arguments["event"])
        if not await self._ingest.discard(str(arguments["room"]), event):
            raise LocalProtocolError(f"{event} is not waiting there: `hansa matrix rooms stuck ROOM`")
        return {"skipped": event}
