"""Admin commands about deliveries: the backlog, the dead letters, the destinations that have an event."""

from __future__ import annotations

from typing import Any

import orjson

from hansa.api.contracts import TracksDelivery
from hansa.app import App
from hansa.bus.schema import event_of
from hansa.environment import Request
from hansa.host.room_names import RoomNames, missing
from hansa.model.codec import content_to_json
from hansa.model.events import Event, Link
from hansa.model.ref import NativeId
from hansa.store.paging import scan_all


class DeliveryCommands:
    """``hansa deliveries ...`` and ``hansa where``."""

    def __init__(self, app: App, names: RoomNames) -> None:
        self._app = app
        self._names = names

    async def deliveries(self, _request: Request, _body: Any) -> Any:
        """Lists the backlog and the dead letters per link, and the backlog per server of a network that sends
        by itself.
        """
        found: list[dict[str, Any]] = []
        for link_id, consumer in self._app.consumers.items():
            dead = [row async for row in scan_all(self._app.core, "dead", equal=(link_id,))]
            found.append(
                {
                    "destination": link_id,
                    "waiting": consumer.room.head - consumer.position,
                    "unconfirmed": consumer.position - consumer.confirmed,
                    "since": consumer.waiting_since,
                    "reason": consumer.reason,
                    "dead": [{"seq": row.key[1], **orjson.loads(row.body)} for row in dead],
                }
            )
        for network_id in self._app.runners:
            network = self._app.network(network_id)
            if isinstance(network, TracksDelivery):
                found += [
                    {
                        "destination": f"{network_id}:{d.name}",
                        "waiting": d.waiting,
                        "since": d.since,
                        "reason": d.reason,
                        "failures": d.failures,
                        "dead": [],
                    }
                    for d in await network.list_destinations()
                ]
        return found

    async def retry(self, _request: Request, body: Any) -> Any:
        """Send dead letters of a link again, now; those that fail stay dead."""
        return await self._app.retry_dead_letters(await self._link_id(body), body.get("seq"))

    async def drop(self, _request: Request, body: Any) -> Any:
        """Forget dead letters of a link."""
        return {"dropped": await self._app.drop_dead_letters(await self._link_id(body), body.get("seq"))}

    async def _link_id(self, body: Any) -> str:
        """The link that is meant; one that is gone by its id, as dead letters of it may be there."""
        link = await self._names.link(str(body["link"]))
        return link.id if link is not None else str(body["link"])

    async def _require_event(self, name: str) -> Event:
        rows = await self._app.core.scan("event", index=("id",), equal=(name,), limit=1)
        if rows:
            return event_of(rows[0])
        for network in self._app.runners:
            event = await self._app.names.find(NativeId(network, name))
            if event is not None:
                return event
        raise missing(f"there is no event {name}: give its id here or on one of the networks")

    async def where(self, request: Request, _body: Any) -> Any:
        """Lists the destinations that have an event, and those that wait, with the reason."""
        event = await self._require_event(request.path["event"])
        room = self._app.rooms.get(event.room)
        found: list[dict[str, Any]] = []
        for link in room.links.values() if room else ():
            consumer = self._app.consumers.get(link.id)
            held = dict(event.withheld_from).get(link.id)
            dead = await self._app.core.get("dead", (link.id, event.seq))
            if event.is_withheld_from(link) and not held:
                found.append(
                    {"destination": link.id, "state": "withheld", "reason": "confined to its network"}
                )
            elif held:
                found.append({"destination": link.id, "state": "withheld", "reason": held})
            elif dead is not None:
                reason = orjson.loads(dead.body)["reason"]
                found.append({"destination": link.id, "state": "dead", "reason": reason})
            elif consumer is not None:
                done = consumer.position >= event.seq
                reached = "delivered" if consumer.confirmed >= event.seq else "unconfirmed"
                state = {"state": reached} if done else {"state": "waiting", "reason": consumer.reason}
                since = {} if done else {"since": consumer.waiting_since}
                found.append({"destination": link.id, **state, **since})
            found += await self._destination_statuses(link, event)
        return {
            "event": event.id,
            "room": event.room,
            "seq": event.seq,
            "sender": str(event.sender),
            "content": content_to_json(event.content)["kind"],
            "destinations": found,
        }

    async def _destination_statuses(self, link: Link, event: Event) -> list[dict[str, Any]]:
        network = self._app.network(link.native.network)
        context = self._app.contexts[link.native.network]
        native = await context.native_id(event) if isinstance(network, TracksDelivery) else None
        if native is None or not isinstance(network, TracksDelivery):
            return []
        return [
            {
                "destination": f"{link.native.network}:{d.name}",
                "state": d.state,
                "since": d.since,
                "reason": d.reason,
                "failures": d.failures,
            }
            for d in await network.delivery_status(native)
        ]
