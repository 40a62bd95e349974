"""Names of rooms. SPEC: client-server API, "Room aliases"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import Conflict, DirectoryPublish, NativeId, NetworkContext, Request

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import ClientHttp, Handler, PublicHandler, RateLimited, get_string
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.client_api.rooms.room_entry import RoomEntry
from hansa_matrix.crossings import is_allowed, require_allowed
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.rooms.directory.aliases import alias_of, aliases_of, insert_alias_write, remove_alias_writes
from hansa_matrix.rooms.local_server import LocalServer

#: Names that one room may be given here.
MAX_ALIASES_OF_ROOM = 100


class AliasEndpoints:
    """Looked up anywhere, given and taken here."""

    def __init__(self, own: LocalServer, http: ClientHttp, sender: LocalSender, entry: RoomEntry) -> None:
        self._ctx: NetworkContext = own.ctx
        self._http = http
        self._server = own.server
        self._voice = sender
        self._entry = entry

    def public_routes(self) -> Mapping[tuple[str, str], PublicHandler]:
        """Returns the endpoints that need no token."""
        return {("GET", "/v3/directory/room/{alias}"): self.look_up}

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("PUT", "/v3/directory/room/{alias}"): self.create_alias,
            ("DELETE", "/v3/directory/room/{alias}"): self.delete_alias,
            ("GET", "/v3/rooms/{room}/aliases"): self.get_aliases,
        }

    async def look_up(self, request: Request, _body: Any) -> Any:
        """``GET /directory/room/{alias}``, without a token if no policy could refuse the caller's server;
        aliases of other servers need an account.
        """
        alias = request.path["alias"]
        await self._http.require_token_for_remote(request, ids.domain_of(alias) or alias)
        room_id, servers = await self._entry.find_room(alias, [])
        if ids.domain_of(alias) == self._server:
            view = self._ctx.get_view(room_id)
            servers = sorted(s for n, s in view.joined_servers if n == self._ctx.id) if view else []
        return {"room_id": room_id, "servers": servers or [self._server]}

    async def create_alias(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /directory/room/{alias}``."""
        alias, room_id = request.path["alias"], get_string(body, "room_id")
        if not ids.is_valid_alias(alias) or ids.domain_of(alias) != self._server:
            raise matrix_error(400, "M_INVALID_PARAM", f"an alias here is #name:{self._server}")
        self._voice.require_joined(caller.user, room_id)
        await require_allowed(self._ctx, self._publish_crossing(alias, room_id, caller.user))
        if await self._ctx.store.count("room_alias", equal={"room_id": room_id}) >= MAX_ALIASES_OF_ROOM:
            raise matrix_error(403, "M_FORBIDDEN", f"the room has {MAX_ALIASES_OF_ROOM} names already")
        try:
            await self._ctx.store.commit([insert_alias_write(alias, room_id, caller.user)])
        except Conflict as conflict:
            raise matrix_error(409, "M_UNKNOWN", f"{alias} names a room already") from conflict
        return {}

    async def delete_alias(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``DELETE /directory/room/{alias}``: by who gave the name, or may say which is the room's own."""
        name = request.path["alias"]
        alias = await alias_of(self._ctx.store, name)
        if alias is None:
            raise matrix_error(404, "M_NOT_FOUND", f"no room is called {name[:255]}")
        if alias.by != caller.user and not caller.admin:
            room = self._voice.require_joined(caller.user, alias.room_id)
            if not await self._voice.can_send_state(caller.user, room, "m.room.canonical_alias"):
                raise matrix_error(403, "M_FORBIDDEN", "another user has given the room that alias")
        try:
            await self._ctx.store.commit(remove_alias_writes(alias))
        except Conflict as conflict:
            raise matrix_error(409, "M_UNKNOWN", f"{name} was given to another room just now") from conflict
        return {}

    async def get_aliases(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /rooms/{roomId}/aliases``: those that the policies of now let a room have."""
        room = self._voice.require_joined(caller.user, request.path["room"])
        found = await aliases_of(self._ctx.store, room.room_id)
        if self._ctx.has_policies:
            asked = [
                (one, self._publish_crossing(one.name, room.room_id, one.by, again=True)) for one in found
            ]
            found = [one for one, crossing in asked if await is_allowed(self._ctx, crossing)]
        return {"aliases": [alias.name for alias in found]}

    def _publish_crossing(
        self, alias: str, room_id: str, by: str, *, again: bool = False
    ) -> DirectoryPublish:
        """Returns the question about a room's alias: it is added ``by`` a user (None: by an operator), or
        (``again``) about to be shown.
        """
        return DirectoryPublish(
            network=self._ctx.id,
            user=NativeId(self._ctx.id, by or f"@{self._ctx.config.bridge_user}:{self._server}"),
            user_server=self._server,
            room=room_id,
            address=alias,
            again=again,
        )
