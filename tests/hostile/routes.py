"""The routes that Hansa has, as its router lists them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hansa.http.router import Router
from hansa.testing import registered_routes
from hostile.scene import Scene, part
from matrix.server_with_peer import OURS, server_with_peer


@dataclass(frozen=True, order=True)
class Known:
    """A route; wild segments of ``path`` are ``{name}``. ``max_body`` in bytes."""

    path: str
    method: str
    max_body: int

    @property
    def by_servers(self) -> bool:
        """True if servers sign requests for the route."""
        return self.path.startswith("/_matrix/federation")

    def target(self, scene: Scene) -> str:
        """A path whose wild segments name what there is."""
        named = {
            "{room}": scene.den.room_id,
            "{user}": scene.romeo.id if not self.by_servers else scene.den.user,
            "{event}": next(iter(scene.den.tips)),
            "{server}": scene.name,
            "{alias}": f"#den:{scene.name}",
        }
        parts = (part(named.get(one, "x")) if one.startswith("{") else one for one in self.path.split("/"))
        return "/".join(parts)


def listed(router: Router) -> list[Known]:
    """All of a router's."""
    found = registered_routes(router)
    return sorted(Known("/" + "/".join(parts), method, route.max_body) for method, parts, route in found)


async def of_matrix(folder: Path) -> list[Known]:
    """All of a Matrix network's."""
    async with server_with_peer(folder) as house:
        return listed(house.app.routers[OURS])


async def asks(scene: Scene, route: Known, body: bytes) -> int:
    """The status of a request of who may make it."""
    target = route.target(scene)
    if route.by_servers:
        return await scene.signed(route.method, target, body)
    if "/logout" in route.path:  # it costs a token
        return await scene.raw(route.method, target, body, {"Authorization": "Bearer nobody"})
    return await scene.as_romeo(route.method, target, body)
