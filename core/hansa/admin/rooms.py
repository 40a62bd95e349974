"""Admin commands about rooms: the list of rooms, their members, their links."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hansa.api.contracts import CannotOpenRoom, RestrictsKinds, RoomWish, features_of
from hansa.app import App
from hansa.bus.rooms import Room
from hansa.environment import Request
from hansa.host.room_names import RoomNames, missing
from hansa.model.content import Kind
from hansa.model.crossing import PeerConnect
from hansa.model.errors import RemoteProtocolError
from hansa.model.events import Link
from hansa.model.feature_table import crossing_levels
from hansa.model.features import Features

#: Servers of a room that are looked at for denied ones.
_SERVERS = 500


class RoomCommands:
    """``hansa rooms ...``."""

    def __init__(self, app: App, names: RoomNames) -> None:
        self._app = app
        self._names = names

    def _describe_link(self, link: Link) -> dict[str, Any]:
        consumer = self._app.consumers.get(link.id)
        found: dict[str, Any] = {
            "link": link.id,
            "direction": link.direction.value,
            "hosted": link.hosted,
            "authority": link.authority,
        }
        if consumer is not None:
            found |= {"delivered": consumer.confirmed, "reason": consumer.reason}
        return found

    def _room_summary(self, room: Room, addresses: list[str]) -> dict[str, Any]:
        joined = sum(room.view.joined_servers.values())
        return {
            "room": room.id,
            "name": room.view.facts.name,
            "addresses": addresses,
            "events": room.head - room.kept.confined,
            "joined": joined,
            "links": [self._describe_link(link) for link in room.links.values()],
        }

    async def rooms(self, _request: Request, _body: Any) -> Any:
        """Every room."""
        found = list(self._app.rooms)
        addresses = await self._names.addresses(found)
        return [self._room_summary(room, addresses[room.id]) for room in found]

    async def room(self, request: Request, _body: Any) -> Any:
        """One room with its people."""
        room = await self._names.room(request.path["room"])
        facts = room.view.facts
        people = [
            {
                "user": str(p.user),
                "membership": p.membership.value,
                "name": p.name,
                "role": p.role.name.lower(),
                "server": p.server,
            }
            for p in room.view.people.values()
        ]
        return {
            **self._room_summary(room, (await self._names.addresses([room]))[room.id]),
            "topic": facts.topic,
            "join_rule": facts.join_rule,
            "version": facts.version,
            "people": people,
            "crosses": self._describe_crossings(room, await self._restricted_kinds(room)),
            "denied": await self._denied_servers(room),
        }

    async def _restricted_kinds(self, room: Room) -> tuple[str, Collection[Kind]]:
        """The network that decides in a room, and the kinds that it takes from ranked people alone."""
        link = room.authority
        network = self._app.network(link.native.network) if link is not None else None
        if link is None or not isinstance(network, RestrictsKinds):
            return "", ()
        return link.native.network, await network.restricted_kinds(link.native.id)

    def _describe_crossings(
        self, room: Room, restricted: tuple[str, Collection[Kind]]
    ) -> list[dict[str, Any]]:
        """What crosses between each two networks of a room, by kind."""
        decides, kinds = restricted
        found: dict[str, Features] = {}
        for link in room.links.values():
            network = self._app.network(link.native.network)
            if network is not None:
                found[link.native.network] = features_of(network)
        return [
            {
                "from": pair.origin,
                "to": pair.target,
                "levels": {kind.value: level.name.lower() for kind, level in pair.levels.items()},
                "losses": {kind.value: text for kind, text in pair.losses.items()},
                "ranked": [k.value for k in pair.levels if k in kinds and pair.origin != decides],
            }
            for pair in crossing_levels(found)
        ]

    async def _denied_servers(self, room: Room) -> list[dict[str, str]]:
        """The servers in a room that policies deny; nothing more is said to them, and so into the room."""
        found: list[dict[str, str]] = []
        if not self._app.decisions.policies:
            return found
        suspected = {(network, one) for network, servers in room.view.suspected.items() for one in servers}
        for network, server in sorted({*room.view.joined_servers, *suspected})[:_SERVERS]:
            crossing = PeerConnect(network=network, server=server, outbound=True)
            verdict = await self._app.decisions.judge_unrecorded(crossing)
            if not verdict.allowed:
                why = ", ".join(f"{r.policy}: {r.rule}" for r in verdict.reasons)
                found.append({"network": network, "server": server, "because": why})
        return found

    async def create(self, _request: Request, body: Any) -> Any:
        """Make or open native rooms and tie them together."""
        wish = RoomWish(name=str(body.get("name") or ""), published=bool(body.get("published")))
        return {"room": await self._link_rooms(body["links"], None, wish)}

    async def link(self, _request: Request, body: Any) -> Any:
        """Tie further native rooms to a room."""
        room = await self._names.room(str(body["room"]))
        return {"room": await self._link_rooms(body["links"], room.id, RoomWish())}

    async def _link_rooms(self, links: list[str], room: str | None, wish: RoomWish) -> str:
        try:
            return await self._app.link_room(links, room, create=True, wish=wish)
        except CannotOpenRoom as error:
            raise RemoteProtocolError(error.refusal.text, hint=409, code=error.refusal.code.value) from error

    async def unlink(self, _request: Request, body: Any) -> Any:
        """Untie a native room, whose people leave the others; what it holds stays."""
        link = await self._names.link(str(body["link"]))
        if link is None:
            raise missing(f"there is no link {body['link']}: `hansa rooms ls` shows them")
        await self._app.linker.unlink_room(link)
        return {"unlinked": link.id}
