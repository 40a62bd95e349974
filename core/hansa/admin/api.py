"""The admin API of a running Hansa: JSON over its local socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import orjson

from hansa.admin.deliveries import DeliveryCommands
from hansa.admin.media_links import MediaLinkCommands
from hansa.admin.policies import PolicyCommands
from hansa.admin.policy_gate import AdminGate, Work
from hansa.admin.rooms import RoomCommands
from hansa.admin.searches import SearchCommands
from hansa.api.contracts import HasAdminCommands
from hansa.app import App
from hansa.environment import Request, Response
from hansa.host import loader
from hansa.host.room_names import RoomNames, missing
from hansa.http.router import Endpoint, Router
from hansa.model.errors import HansaError, RemoteProtocolError
from hansa.standby import Standby
from hansa.store.faults import StoreFault

_BODY = 1024 * 1024
#: The work of a process that waits for the database of another.
_STANDBY = frozenset({"/status", "/progress", "/reload", "/drain", "/promote"})
#: Reads the configuration again: what was taken up, and which settings wait for a restart.
Reload = Callable[[], Awaitable[tuple[list[str], list[str]]]]


class AdminApi:
    """The endpoints. ``reload`` comes from the reader of the configuration; ``end`` stops the process;
    ``standby`` is None where no other process can have the database.
    """

    def __init__(
        self, app: App, reload: Reload, end: Callable[[], None], standby: Standby | None = None
    ) -> None:
        self._app = app
        self._reload = reload
        self._end = end
        self._standby = standby
        self._modules: dict[str, ModuleType] = {}
        self._gate = AdminGate(app.decisions, self._plugin_module)

    def _active_standby(self) -> Standby | None:
        """Not None while this process waits for the database of another."""
        return self._standby if self._standby is not None and self._standby.active else None

    def routes(self) -> Router:
        """The admin socket's router."""
        router, names = Router(), RoomNames(self._app)
        rooms, deliveries = RoomCommands(self._app, names), DeliveryCommands(self._app, names)
        policies = PolicyCommands(self._app, names)
        for method, pattern, work in (
            ("GET", "/status", self.status),
            ("GET", "/rooms", rooms.rooms),
            ("GET", "/rooms/{room}", rooms.room),
            ("POST", "/rooms/create", rooms.create),
            ("POST", "/rooms/link", rooms.link),
            ("POST", "/rooms/unlink", rooms.unlink),
            ("GET", "/deliveries", deliveries.deliveries),
            ("POST", "/deliveries/retry", deliveries.retry),
            ("POST", "/deliveries/drop", deliveries.drop),
            ("GET", "/where/{event}", deliveries.where),
            ("POST", "/policy/test", policies.test),
            ("GET", "/policy/explain/{decision}", policies.explain),
            ("GET", "/policy/log", policies.log),
            ("GET", "/search/{kind}/{text}", SearchCommands(self._app).search),
            ("POST", "/media/revoke-links", MediaLinkCommands(self._app).revoke_links),
            ("POST", "/reload", self.reload),
            ("POST", "/drain", self.drain),
            ("POST", "/promote", self.promote),
            ("POST", "/operate/{plugin}", self.operate),
            ("GET", "/progress", self.progress),
        ):
            router.add(
                method,
                pattern,
                _json_endpoint(self._when_active(pattern, self._gate.behind(method, pattern, work))),
                max_body=_BODY,
            )
        return self._add_health_routes(router)

    def _when_active(self, pattern: str, work: Work) -> Work:
        """The same work, refused while this process is a standby, but for what a standby does."""
        if pattern in _STANDBY:
            return work

        async def asked(request: Request, body: Any) -> Any:
            if (standby := self._active_standby()) is not None:
                raise standby.refuse()
            return await work(request, body)

        return asked

    def watched(self) -> Router:
        """The router of the metrics address: health and counters, nothing else."""
        return self._add_health_routes(Router())

    def _add_health_routes(self, router: Router) -> Router:
        router.add("GET", "/health", self.health)
        router.add("GET", "/metrics", self.metrics)
        return router

    async def status(self, _request: Request, _body: Any) -> Any:
        """The store, networks, policies, how many rooms."""
        if (standby := self._active_standby()) is not None:
            return standby.status()
        store = await self._store_status()
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

    async def _store_status(self) -> dict[str, Any]:
        found = await self._app.store.check()
        if found is None:
            slow = self._app.store.health.slow_since
            return {"state": "up", "slow_since": slow} if slow else {"state": "up"}
        return {"state": "degraded", "kind": found.kind.value, "since": found.since, "text": found.text}

    async def health(self, _request: Request) -> Response:
        """Reports whether the store works and every network is up. The status is 503 while the store does not
        work, or while another process has it. A slow store works: the status is 200, and ``store`` says that
        it is slow.
        """
        if self._active_standby() is not None:
            waits = {"ok": False, "state": "standby", "store": "standby", "networks": {}}
            return Response(status=503, body=orjson.dumps(waits))
        states = {r.id: r.state for r in self._app.runners.values()}
        store = await self._store_status()
        up = store["state"] == "up"
        body = {
            "ok": up and all(state == "up" for state in states.values()),
            "state": store["state"],
            "store": store.get("kind", "slow" if store.get("slow_since") else "up"),
            "networks": states,
        }
        return Response(status=200 if up else 503, body=orjson.dumps(body))

    async def metrics(self, _request: Request) -> Response:
        """Prometheus text."""
        from hansa.admin.metrics import exposition  # noqa: PLC0415  # prometheus-client only where it is asked for

        if self._active_standby() is None:
            await self._app.store.check()
        return Response(body=exposition(self._app), content_type="text/plain")

    async def operate(self, request: Request, body: Any) -> Any:
        """A command of a plugin, done by its network."""
        plugin, wanted = request.path["plugin"], str(body.get("network") or "")
        module = self._plugin_module(plugin)
        known = [setup.id for setup in self._app.setup.networks if setup.module is module]
        ids = [network for network in known if wanted in {"", network}]
        if len(ids) != 1:
            raise missing(
                f"name one of plugin {plugin!r} with --network: {', '.join(known)}"
                if known
                else f"no network of this configuration uses plugin {plugin!r}"
            )
        network = self._app.network(ids[0])
        operation = (
            network.admin_commands().get(str(body["words"]))
            if isinstance(network, HasAdminCommands)
            else None
        )
        if operation is None:
            raise missing(f"network {ids[0]} has no {body['words']!r}")
        return await operation(body["arguments"])

    def _plugin_module(self, plugin: str) -> ModuleType:
        """Looked for once: every look reads the metadata of all that is installed."""
        if plugin not in self._modules:
            self._modules[plugin] = loader.load_plugin(plugin)
        return self._modules[plugin]

    async def progress(self, _request: Request, _body: Any) -> Any:
        """Long work under way."""
        return [
            {"network": network, "work": work, "done": done, "total": total}
            for (network, work), (done, total) in self._app.work.items()
        ]

    async def reload(self, _request: Request, _body: Any) -> Any:
        """Read policies and certificates again."""
        taken, waiting = await self._reload()
        return {"reloaded": taken, "needs_restart": waiting}

    async def drain(self, _request: Request, _body: Any) -> Any:
        """Stop as a signal does: the database is let go of, and a standby has it at once."""
        self._end()
        return {"draining": True}

    async def promote(self, _request: Request, _body: Any) -> Any:
        """Take the database over from the process that has it."""
        standby = self._active_standby()
        if standby is None:
            raise RemoteProtocolError(
                "this process is not a standby: it has the database already", hint=409, code="refused"
            )
        return await standby.promote()


def _json_endpoint(work: Callable[[Request, Any], Awaitable[Any]]) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            body = orjson.loads(request.body) if request.body else {}
            if not isinstance(body, dict):
                raise RemoteProtocolError("the request must be an object", code="bad-request")
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
