"""What an operator may ask of a running Hansa, as JSON over its local socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import orjson

from hansa import plugins
from hansa.admin_gate import AdminGate
from hansa.app import App
from hansa.contracts import Operated, RoomRefused, TracksDelivery
from hansa.decisions import facts_of
from hansa.dispatch import ask
from hansa.http import Endpoint, Router
from hansa.pure.codec import content_to_json
from hansa.pure.content import Message
from hansa.pure.crossing import EventIn, PeerConnect
from hansa.pure.errors import HansaError, LocalProtocolError, RemoteProtocolError
from hansa.pure.model import Event, Link, NativeFacts, Ref
from hansa.pure.verdict import strictest
from hansa.rooms import Room
from hansa.seams import Request, Response
from hansa.store.faults import StoreFault
from hansa.tables import event_of

_PAGE = 1000
_BODY = 1024 * 1024
#: Servers of a room that are looked at for denied ones.
_SERVERS = 500


def _missing(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(text, hint=404, code="not-found")


class Operations:
    """The endpoints. ``reload`` is given by whoever read the configuration."""

    def __init__(self, app: App, reload: Callable[[], Awaitable[list[str]]]) -> None:
        self._app = app
        self._reload = reload
        self._modules: dict[str, ModuleType] = {}
        self._gate = AdminGate(app.decisions, self._module)

    def routes(self) -> Router:
        """The admin socket's router."""
        router = Router()
        for method, pattern, work in (
            ("GET", "/status", self.status),
            ("GET", "/plugins", self.plugins),
            ("GET", "/rooms", self.rooms),
            ("GET", "/rooms/{room}", self.room),
            ("POST", "/rooms/create", self.create),
            ("POST", "/rooms/link", self.link),
            ("POST", "/rooms/unlink", self.unlink),
            ("GET", "/deliveries", self.deliveries),
            ("POST", "/deliveries/retry", self.retry),
            ("POST", "/deliveries/drop", self.drop),
            ("GET", "/where/{event}", self.where),
            ("POST", "/policy/test", self.policy_test),
            ("GET", "/policy/explain/{decision}", self.policy_explain),
            ("GET", "/policy/log", self.policy_log),
            ("POST", "/reload", self.reload),
            ("POST", "/operate/{plugin}", self.operate),
            ("GET", "/progress", self.progress),
        ):
            router.add(method, pattern, _json(self._gate.behind(method, pattern, work)), max_body=_BODY)
        return self._watch(router)

    def watched(self) -> Router:
        """The router of the metrics address: health and counters, nothing else."""
        return self._watch(Router())

    def _watch(self, router: Router) -> Router:
        router.add("GET", "/health", self.health)
        router.add("GET", "/metrics", self.metrics)
        return router

    async def status(self, _request: Request, _body: Any) -> Any:
        """The store, networks, policies, how many rooms."""
        store = await self._store()
        return {
            "state": store["state"],
            "store": store,
            "networks": [
                {"id": r.id, "state": r.state, "text": r.text, "restarts": r.restarts}
                for r in self._app.runners.values()
            ],
            "policies": [{"name": p.name, "shadow": p.shadow} for p in self._app.decisions.policies],
            "rooms": sum(1 for _ in self._app.rooms),
        }

    async def _store(self) -> dict[str, Any]:
        found = await self._app.store.check()
        if found is None:
            return {"state": "up"}
        return {"state": "degraded", "kind": found.kind.value, "since": found.since, "text": found.text}

    async def health(self, _request: Request) -> Response:
        """Whether the store works and every network is up; 503 while the store does not work."""
        states = {r.id: r.state for r in self._app.runners.values()}
        store = await self._store()
        up = store["state"] == "up"
        body = {
            "ok": up and all(state == "up" for state in states.values()),
            "state": store["state"],
            "store": store.get("kind", "up"),
            "networks": states,
        }
        return Response(status=200 if up else 503, body=orjson.dumps(body))

    async def metrics(self, _request: Request) -> Response:
        """Prometheus text."""
        from hansa.metrics import exposition  # noqa: PLC0415  # prometheus-client only where it is asked for

        await self._app.store.check()
        return Response(body=exposition(self._app), content_type="text/plain")

    async def plugins(self, _request: Request, _body: Any) -> Any:
        """Installed and enabled plugins."""
        enabled: dict[str, list[str]] = {}
        for setup in self._app.setup.networks:
            enabled.setdefault(setup.module.__name__, []).append(f"networks.{setup.id}")
        for policy in self._app.setup.policies:
            enabled.setdefault(policy.module.__name__, []).append(f"policies.{policy.name}")
        return [
            {
                "name": name,
                "module": entries[0].value,
                "distributions": sorted({e.dist.name for e in entries if e.dist}),
                "enabled": enabled.get(entries[0].value, []),
            }
            for name, entries in sorted(plugins.installed().items())
        ]

    def _link(self, link: Link) -> dict[str, Any]:
        consumer = self._app.consumers.get(link.id)
        found: dict[str, Any] = {
            "link": link.id,
            "direction": link.direction.value,
            "hosted": link.hosted,
            "authority": link.authority,
        }
        if consumer is not None:
            found |= {"delivered": consumer.position, "reason": consumer.reason}
        return found

    def _summary(self, room: Room) -> dict[str, Any]:
        joined = sum(room.view.joined_servers.values())
        return {
            "room": room.id,
            "name": room.view.facts.name,
            "events": room.head,
            "joined": joined,
            "links": [self._link(link) for link in room.links.values()],
        }

    async def rooms(self, _request: Request, _body: Any) -> Any:
        """Every room."""
        return [self._summary(room) for room in self._app.rooms]

    def _find(self, name: str) -> Room:
        room = self._app.rooms.get(name)
        if room is None:
            network, _, native = name.partition(":")
            link = self._app.rooms.link(Ref(network, native))
            room = self._app.rooms.get(link.room) if link else None
        if room is None:
            raise _missing(f"there is no room {name}: `hansa rooms ls` shows them")
        return room

    async def room(self, request: Request, _body: Any) -> Any:
        """One room with its people."""
        room = self._find(request.path["room"])
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
            **self._summary(room),
            "topic": facts.topic,
            "join_rule": facts.join_rule,
            "version": facts.version,
            "people": people,
            "denied": await self._denied(room),
        }

    async def _denied(self, room: Room) -> list[dict[str, str]]:
        """The servers in a room that policies deny; nothing more is said to them, and so into the room."""
        found: list[dict[str, str]] = []
        if not self._app.decisions.policies:
            return found
        for network, server in sorted(room.view.joined_servers)[:_SERVERS]:
            crossing = PeerConnect(network=network, server=server, outbound=True)
            verdict = await self._app.decisions.weigh(crossing)
            if not verdict.allowed:
                why = ", ".join(f"{r.policy}: {r.rule}" for r in verdict.reasons)
                found.append({"network": network, "server": server, "because": why})
        return found

    async def create(self, _request: Request, body: Any) -> Any:
        """Make or open native rooms and tie them together."""
        return {"room": await self._linked(body["links"], None, create=True)}

    async def link(self, _request: Request, body: Any) -> Any:
        """Tie further native rooms to a room."""
        room = self._find(body["room"])
        return {"room": await self._linked(body["links"], room.id, create=True)}

    async def _linked(self, links: list[str], room: str | None, *, create: bool) -> str:
        try:
            return await self._app.link_room(links, room, create=create)
        except RoomRefused as error:
            raise RemoteProtocolError(error.refusal.text, hint=409, code=error.refusal.code.value) from error

    async def unlink(self, _request: Request, body: Any) -> Any:
        """Untie a native room; what it holds stays."""
        network, _, native = str(body["link"]).partition(":")
        ref = Ref(network, native)
        if self._app.rooms.link(ref) is None:
            raise _missing(f"there is no link {body['link']}")
        await self._app.stop_consuming(ref)
        await self._app.rooms.close_link(ref)
        return {"unlinked": str(ref)}

    async def deliveries(self, _request: Request, _body: Any) -> Any:
        """What waits and what died, per link, and what waits per server of a network that sends by itself."""
        found: list[dict[str, Any]] = []
        for link_id, consumer in self._app.consumers.items():
            dead = await self._app.core.scan("dead", equal=(link_id,), limit=_PAGE)
            found.append(
                {
                    "destination": link_id,
                    "waiting": consumer.room.head - consumer.position,
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
                    for d in await network.destinations()
                ]
        return found

    async def retry(self, _request: Request, body: Any) -> Any:
        """Send dead letters of a link again, now; those that fail stay dead."""
        return await self._app.retry_dead(str(body["link"]), body.get("seq"))

    async def drop(self, _request: Request, body: Any) -> Any:
        """Forget dead letters of a link."""
        return {"dropped": await self._app.drop_dead(str(body["link"]), body.get("seq"))}

    async def _event(self, name: str) -> Event:
        rows = await self._app.core.scan("event", index=("id",), equal=(name,), limit=1)
        if rows:
            return event_of(rows[0])
        for network in self._app.runners:
            event = await self._app.event_by(Ref(network, name))
            if event is not None:
                return event
        raise _missing(f"there is no event {name}: give its id here or on one of the networks")

    async def where(self, request: Request, _body: Any) -> Any:
        """Which destinations have an event, which wait and why."""
        event = await self._event(request.path["event"])
        room = self._app.rooms.get(event.room)
        found: list[dict[str, Any]] = []
        for link in room.links.values() if room else ():
            consumer = self._app.consumers.get(link.id)
            held = dict(event.withheld_from).get(link.id)
            dead = await self._app.core.get("dead", (link.id, event.seq))
            if held:
                found.append({"destination": link.id, "state": "withheld", "reason": held})
            elif dead is not None:
                reason = orjson.loads(dead.body)["reason"]
                found.append({"destination": link.id, "state": "dead", "reason": reason})
            elif consumer is not None:
                done = consumer.position >= event.seq
                state = {"state": "delivered"} if done else {"state": "waiting", "reason": consumer.reason}
                since = {} if done else {"since": consumer.waiting_since}
                found.append({"destination": link.id, **state, **since})
            found += await self._tracked(link, event)
        return {
            "event": event.id,
            "room": event.room,
            "seq": event.seq,
            "sender": str(event.sender),
            "content": content_to_json(event.content)["kind"],
            "destinations": found,
        }

    async def _tracked(self, link: Link, event: Event) -> list[dict[str, Any]]:
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
            for d in await network.where(native)
        ]

    async def policy_test(self, _request: Request, body: Any) -> Any:
        """What each policy would say of a message, without anything happening."""
        room = self._find(str(body["room"]))
        network, _, user = str(body["sender"]).partition(":")
        link = next((one for one in room.links.values() if one.native.network == network), None)
        if link is None:
            raise _missing(f"room {room.id} has no link of network {network!r}")
        sender, text = Ref(network, user), str(body.get("text", ""))
        server = self._app.pipeline.server_of(network, user)
        facts = NativeFacts(sender_server=server, room_servers=room.view.servers(), texts=(text,))
        crossing = EventIn(link=link, sender=sender, content=Message(text=text), view=room.view, facts=facts)
        answers = [await ask(installed, crossing) for installed in self._app.decisions.policies]
        merged = strictest(a.verdict for a in answers if not a.shadow)
        return {
            "action": merged.action.name.lower(),
            "facts": facts_of(crossing),
            "policies": [
                {
                    "policy": a.name,
                    "shadow": a.shadow,
                    "action": a.verdict.action.name.lower(),
                    "reasons": [f"{r.code} {r.rule} {r.admin_text}".strip() for r in a.verdict.reasons],
                    "failed": a.failed,
                }
                for a in answers
            ],
        }

    async def policy_explain(self, request: Request, _body: Any) -> Any:
        """Rule, facts and verdict of a decision."""
        try:
            return await self._app.decisions.explain(request.path["decision"])
        except LocalProtocolError as error:
            raise _missing(str(error)) from error

    async def policy_log(self, _request: Request, _body: Any) -> Any:
        """The newest decisions that were not a plain allow, oldest first."""
        return await self._app.decisions.log(_PAGE)

    async def operate(self, request: Request, body: Any) -> Any:
        """A command of a plugin, done by its network."""
        plugin, wanted = request.path["plugin"], str(body.get("network") or "")
        module = self._module(plugin)
        known = [setup.id for setup in self._app.setup.networks if setup.module is module]
        ids = [network for network in known if wanted in {"", network}]
        if len(ids) != 1:
            raise _missing(
                f"name one of plugin {plugin!r} with --network: {', '.join(known) or 'there is none'}"
            )
        network = self._app.network(ids[0])
        operation = network.operations().get(str(body["words"])) if isinstance(network, Operated) else None
        if operation is None:
            raise _missing(f"network {ids[0]} has no {body['words']!r}")
        return await operation(body["arguments"])

    def _module(self, plugin: str) -> ModuleType:
        """Looked for once: every look reads the metadata of all that is installed."""
        if plugin not in self._modules:
            self._modules[plugin] = plugins.find(plugin)
        return self._modules[plugin]

    async def progress(self, _request: Request, _body: Any) -> Any:
        """Long work under way."""
        return [
            {"network": network, "work": work, "done": done, "total": total}
            for (network, work), (done, total) in self._app.work.items()
        ]

    async def reload(self, _request: Request, _body: Any) -> Any:
        """Read policies and certificates again."""
        return {"reloaded": await self._reload()}


def _json(work: Callable[[Request, Any], Awaitable[Any]]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            body = orjson.loads(request.body) if request.body else {}
            return Response(body=orjson.dumps(await work(request, body)))
        except RemoteProtocolError:
            raise
        except StoreFault as fault:  # an operator may know what the database says
            raise RemoteProtocolError(str(fault), hint=503, code="store-degraded") from fault
        except KeyError as error:
            raise RemoteProtocolError(f"the request lacks {error}", code="bad-request") from error
        except (HansaError, orjson.JSONDecodeError) as error:
            raise RemoteProtocolError(str(error), code="refused") from error

    return endpoint
