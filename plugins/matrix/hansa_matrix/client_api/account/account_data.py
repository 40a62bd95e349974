"""Account data: settings that clients store for their users. SPEC: client-server API, "Client Config", "Room
Tagging", "Filtering", "Ignoring Users".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson
from hansa import (
    CompareAndSwap,
    NetworkContext,
    Request,
    again_on_conflict,
    scan_all,
)

from hansa_matrix.bounds.key_locks import KeyLocks
from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import Handler, RateLimited, require_own_user
from hansa_matrix.client_api.sync.filters import SyncFilter, parse_in_body
from hansa_matrix.client_api.sync.stored_filters import StoredFilters
from hansa_matrix.errors import matrix_error
from hansa_matrix.local.client_stream import ClientStream, stream_write
from hansa_matrix.proto import ids
from hansa_matrix.proto.devices import fits_object

FULLY_READ, PUSH_RULES, IGNORED = "m.fully_read", "m.push_rules", "m.ignored_user_list"
_TAGS = "m.tag"
#: Types that only this server writes.
_SERVER_TYPES = frozenset({FULLY_READ, PUSH_RULES})
_MAX_VALUE_BYTES = 64 * 1024
_MAX_TAGS = 100
_MAX_TYPES = 10_000
#: Bytes of all account data of one person.
MAX_BYTES_OF_USER = 32 * 1024 * 1024


class AccountData:
    """Account data, of a person as a whole (room ``""``) or in a room."""

    def __init__(self, ctx: NetworkContext, news: ClientStream) -> None:
        self._ctx = ctx
        self._news = news
        self._locks = KeyLocks()
        self._listeners: tuple[Callable[[str, str], None], ...] = ()

    def on_changed(self, listener: Callable[[str, str], None]) -> None:
        """Call ``listener`` with the user and the type of account data that has changed. Listeners are added
        while the server is built.
        """
        self._listeners += (listener,)

    async def get(self, user: str, room_id: str, type_: str) -> Any:
        """One value; None if there is none."""
        row = await self._ctx.store.get("account_data", (user, room_id, type_))
        return orjson.loads(row.body) if row is not None else None

    async def for_room(self, user: str, room_id: str) -> dict[str, Any]:
        """All of a person, or of one in a room, by type."""
        rows = scan_all(self._ctx.store, "account_data", equal=(user, room_id))
        return {str(row.key[2]): orjson.loads(row.body) async for row in rows}

    async def get_all(self, user: str) -> dict[str, dict[str, Any]]:
        """Everything of a person, by room (empty: of none) and type."""
        found: dict[str, dict[str, Any]] = {}
        async for row in scan_all(self._ctx.store, "account_data", equal=(user,)):
            found.setdefault(str(row.key[1]), {})[str(row.key[2])] = orjson.loads(row.body)
        return found

    async def put(self, user: str, room_id: str, type_: str, content: Mapping[str, Any]) -> None:
        """Keep a value, and tell all devices of it. Raises the error answer of one that is too large."""
        await self.change_value(user, room_id, type_, lambda _: content)

    async def change_value(
        self, user: str, room_id: str, type_: str, change: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        """Keep what becomes of a value, whatever else changes it at the same time, and tell all devices of
        it. ``change_value`` gets the value, None if there is none; it may be asked again. Raises the error
        answer of a value that is too large, and what ``change_value`` raises.
        """
        async with self._locks.hold_key(user):
            await again_on_conflict(partial(self._store_change, (user, room_id, type_), change))
        for listener in self._listeners:
            listener(user, type_)
        self._news.notify_topic(user)

    async def _store_change(
        self, key: tuple[str, str, str], change: Callable[[Any], Mapping[str, Any]]
    ) -> None:
        """Keep a value as it becomes, and count its bytes."""
        user, room_id, type_ = key
        store = self._ctx.store
        known = await store.get("account_data", key)
        content = change(orjson.loads(known.body) if known is not None else None)
        if not fits_object(content, _MAX_VALUE_BYTES):
            raise matrix_error(413, "M_TOO_LARGE", f"account data must have at most {_MAX_VALUE_BYTES} bytes")
        if known is None and await store.count("account_data", equal={"user_id": user}) >= _MAX_TYPES:
            raise matrix_error(400, "M_TOO_LARGE", "the limit of account data is reached")
        body, before = orjson.dumps(content), known.body if known is not None else None
        expected, used = await self._bytes_of_user(user)
        size = max(0, used + len(body) - len(before or b""))
        if size > MAX_BYTES_OF_USER and len(body) > len(before or b""):
            raise matrix_error(
                413, "M_TOO_LARGE", f"account data must have at most {MAX_BYTES_OF_USER} bytes in all"
            )
        counted = CompareAndSwap("account_data_usage", (user,), expected, str(size).encode())
        await store.commit(
            [
                CompareAndSwap("account_data", key, before, body),
                counted,
                stream_write(user, f"data {room_id} {type_}"),
            ]
        )

    async def _bytes_of_user(self, user: str) -> tuple[bytes | None, int]:
        """Returns the row with the size of a user's data, and that size in bytes; the data are counted if
        there is no such row yet.
        """
        usage = await self._ctx.store.get("account_data_usage", (user,))
        if usage is not None:
            return usage.body, int(usage.body)
        size = 0
        async for row in scan_all(self._ctx.store, "account_data", equal=(user,)):
            size += len(row.body)
        return None, size

    async def ignored_users(self, user: str) -> frozenset[str]:
        """Returns the users that a user ignores."""
        content = await self.get(user, "", IGNORED)
        users = content.get("ignored_users") if isinstance(content, dict) else None
        return frozenset(users) if isinstance(users, dict) else frozenset()


class AccountDataEndpoints:
    """The endpoints."""

    def __init__(self, ctx: NetworkContext, data: AccountData) -> None:
        self._ctx = ctx
        self._data = data
        self._filters = StoredFilters(ctx)

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        user, in_room = "/v3/user/{user}", "/v3/user/{user}/rooms/{room}"
        return {
            ("GET", f"{user}/account_data/{{type}}"): self.get_value,
            ("PUT", f"{user}/account_data/{{type}}"): self.put_value,
            ("GET", f"{in_room}/account_data/{{type}}"): self.get_value,
            ("PUT", f"{in_room}/account_data/{{type}}"): self.put_value,
            ("GET", f"{in_room}/tags"): self.get_tags,
            ("PUT", f"{in_room}/tags/{{tag}}"): self.put_tag,
            ("DELETE", f"{in_room}/tags/{{tag}}"): self.delete_tag,
            ("POST", f"{user}/filter"): self.create_filter,
            ("GET", f"{user}/filter/{{filter}}"): self.get_filter,
        }

    @staticmethod
    def _path_owner(caller: Requester, request: Request) -> tuple[str, str]:
        """``(user, room)`` of a path."""
        user, room_id = require_own_user(caller, request), request.path.get("room", "")
        if room_id and not ids.is_valid_room_id(room_id):
            raise matrix_error(400, "M_INVALID_PARAM", "this is not a room ID")
        return user, room_id

    async def get_value(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /account_data/{type}``."""
        found = await self._data.get(*self._path_owner(caller, request), request.path["type"])
        if found is None:
            raise matrix_error(404, "M_NOT_FOUND", "there is no such account data")
        return found

    async def put_value(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /account_data/{type}``."""
        type_ = request.path["type"]
        if type_ in _SERVER_TYPES:
            raise matrix_error(405, "M_BAD_JSON", f"{type_} has an endpoint of its own")
        if not ids.fits_255_bytes(type_):
            raise matrix_error(400, "M_INVALID_PARAM", "the type is too long")
        await self._data.put(*self._path_owner(caller, request), type_, body)
        return {}

    async def get_tags(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /tags``."""
        return {"tags": _tags_of(await self._data.get(*self._path_owner(caller, request), _TAGS))}

    async def put_tag(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /tags/{tag}``."""
        user, room_id = self._path_owner(caller, request)
        order = body.get("order")
        if order is not None and (isinstance(order, bool) or not isinstance(order, int | float)):
            raise matrix_error(400, "M_BAD_JSON", "order must be a number")
        name = request.path["tag"]

        def add_tag(kept: Any) -> dict[str, Any]:
            tags = _tags_of(kept) | {name: body}
            if len(tags) > _MAX_TAGS or not ids.fits_255_bytes(name):
                raise matrix_error(
                    400, "M_INVALID_PARAM", f"a room can have at most {_MAX_TAGS} tags of 255 bytes"
                )
            return {"tags": tags}

        await self._data.change_value(user, room_id, _TAGS, add_tag)
        return {}

    async def delete_tag(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``DELETE /tags/{tag}``."""
        user, room_id = self._path_owner(caller, request)
        name = request.path["tag"]

        def remove_tag(kept: Any) -> dict[str, Any]:
            return {"tags": {tag: of for tag, of in _tags_of(kept).items() if tag != name}}

        await self._data.change_value(user, room_id, _TAGS, remove_tag)
        return {}

    async def create_filter(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /filter``: the same filter has the same id. An invalid one is not stored."""
        user, _ = self._path_owner(caller, request)
        parse_in_body(SyncFilter.from_json, body)
        return {"filter_id": await self._filters.add_filter(user, body)}

    async def get_filter(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /filter/{filterId}``."""
        user, _ = self._path_owner(caller, request)
        found = await self._filters.get(user, request.path["filter"])
        if found is None:
            raise matrix_error(404, "M_NOT_FOUND", "there is no such filter")
        return orjson.loads(found)


def _tags_of(kept: Any) -> dict[str, Any]:
    """The tags in the account data that holds them."""
    tags = kept.get("tags") if isinstance(kept, dict) else None
    return tags if isinstance(tags, dict) else {}
