"""Every endpoint of clients, with its answer to users who have no access: a row for each."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from clients.test_strangers import SECRET, filled
from hansa.http.router import Router
from hansa.testing import registered_routes

#: The columns of ``ROWS``. ``out``: with the token of a device that is logged out. ``stranger``: never in the
#: room, and not whose object it is. ``left``: out of the room before it was said. ``ignoring``: in the room, and
#: ignores who said it.
COLUMNS = ("nobody", "out", "stranger", "left", "ignoring")

#: Bodies that are good, so that an answer is about who asks.
BODIES: dict[str, Any] = {
    "PUT v3/directory/room/{alias}": {"room_id": "{room}"},
    "POST v3/user/{user}/filter": {},
    "PUT v3/profile/{user}/{field}": {"displayname": "eve"},
    "PUT v3/presence/{user}/status": {"presence": "online"},
    "PUT v3/rooms/{room}/typing/{user}": {"typing": True},
    "PUT v3/directory/list/room/{room}": {"visibility": "public"},
    "POST v3/rooms/{room}/upgrade": {"new_version": "12"},
    "POST v3/rooms/{room}/ban": {"user_id": "{owner}"},
    "POST v3/rooms/{room}/kick": {"user_id": "{owner}"},
    "POST v3/rooms/{room}/unban": {"user_id": "{owner}"},
    "POST v3/rooms/{room}/invite": {"user_id": "{owner}"},
    "PUT v3/sendToDevice/{type}/{txn}": {"messages": {}},
    "POST v3/keys/query": {"device_keys": {}},
    "POST v3/keys/claim": {"one_time_keys": {}},
    "POST v3/user_directory/search": {"search_term": "zzz"},
    "PUT v3/devices/{device}": {"display_name": "mine"},
    "POST v3/delete_devices": {"devices": ["{device}"]},
    "POST v3/account/password": {"new_password": "mine"},
}
#: What changes who asks: asked last.
ENDS = ("leave", "forget", "join", "knock", "logout", "all", "deactivate", "m.ignored_user_list")

#: Statuses in the order of ``COLUMNS``.
ROWS: dict[str, str] = {
    "DELETE v3/devices/{device}": "401 401 401 401 401",
    "DELETE v3/directory/room/{alias}": "401 401 404 404 200",
    "DELETE v3/profile/{user}/{field}": "401 401 403 403 403",
    "DELETE v3/pushrules/global/{kind}/{rule}": "401 401 404 404 404",
    "DELETE v3/user/{user}/rooms/{room}/tags/{tag}": "401 401 403 403 403",
    "GET .well-known/matrix/client": "404 404 404 404 404",
    "GET .well-known/matrix/server": "404 404 404 404 404",
    "GET _matrix/media/r0/config": "401 401 200 200 200",
    "GET _matrix/media/r0/download/{server}/{media}": "401 401 200 200 200",
    "GET _matrix/media/r0/download/{server}/{media}/{name}": "401 401 200 200 200",
    "GET _matrix/media/r0/thumbnail/{server}/{media}": "401 401 400 400 400",
    "GET _matrix/media/v1/config": "401 401 200 200 200",
    "GET _matrix/media/v1/download/{server}/{media}": "401 401 200 200 200",
    "GET _matrix/media/v1/download/{server}/{media}/{name}": "401 401 200 200 200",
    "GET _matrix/media/v1/thumbnail/{server}/{media}": "401 401 400 400 400",
    "GET _matrix/media/v3/config": "401 401 200 200 200",
    "GET _matrix/media/v3/download/{server}/{media}": "401 401 200 200 200",
    "GET _matrix/media/v3/download/{server}/{media}/{name}": "401 401 200 200 200",
    "GET _matrix/media/v3/thumbnail/{server}/{media}": "401 401 400 400 400",
    "GET _synapse/admin/v1/register": "404 404 404 404 404",
    "GET v1/media/config": "401 401 200 200 200",
    "GET v1/media/download/{server}/{media}": "401 401 200 200 200",
    "GET v1/media/download/{server}/{media}/{name}": "401 401 200 200 200",
    "GET v1/media/thumbnail/{server}/{media}": "401 401 400 400 400",
    "GET v1/register/m.login.registration_token/validity": "200 200 200 200 200",
    "GET v1/room_summary/{room}": "401 401 404 404 200",
    "GET v1/rooms/{room}/hierarchy": "401 401 403 403 200",
    "GET v1/rooms/{room}/relations/{event}": "401 401 404 404 200",
    "GET v1/rooms/{room}/relations/{event}/{kind}": "401 401 404 404 200",
    "GET v1/rooms/{room}/relations/{event}/{kind}/{type}": "401 401 404 404 200",
    "GET v1/rooms/{room}/threads": "401 401 403 200 200",
    "GET v1/rooms/{room}/timestamp_to_event": "401 401 403 400 400",
    "GET v3/account/3pid": "401 401 200 200 200",
    "GET v3/account/whoami": "401 401 200 200 200",
    "GET v3/admin/whois/{user}": "401 401 403 403 403",
    "GET v3/capabilities": "401 401 200 200 200",
    "GET v3/devices": "401 401 200 200 200",
    "GET v3/devices/{device}": "401 401 404 404 404",
    "GET v3/directory/list/room/{room}": "404 404 404 404 200",
    "GET v3/directory/room/{alias}": "404 404 404 404 404",
    "GET v3/joined_rooms": "401 401 200 200 200",
    "GET v3/keys/changes": "401 401 400 400 400",
    "GET v3/login": "200 200 200 200 200",
    "GET v1/mutual_rooms": "401 401 400 400 400",  # without the owner: see test_looking
    "GET v3/events": "401 401 400 400 400",  # of which room is not said: see test_looking
    "GET v3/notifications": "401 401 200 200 200",
    "GET v3/presence/{user}/status": "401 401 403 403 200",
    "GET v3/profile/{user}": "200 200 200 200 200",
    "GET v3/profile/{user}/{field}": "200 200 200 200 200",
    "GET v3/publicRooms": "401 401 200 200 200",
    "GET v3/pushers": "401 401 200 200 200",
    "GET v3/pushrules": "401 401 200 200 200",
    "GET v3/pushrules/global": "401 401 200 200 200",
    "GET v3/pushrules/global/{kind}/{rule}": "401 401 404 404 404",
    "GET v3/pushrules/global/{kind}/{rule}/actions": "401 401 404 404 404",
    "GET v3/pushrules/global/{kind}/{rule}/enabled": "401 401 404 404 404",
    "GET v3/register/available": "400 400 400 400 400",
    # Of which backup is not said, or there is none: see test_key_backup for those of others.
    "DELETE v3/room_keys/keys": "401 401 400 400 400",
    "DELETE v3/room_keys/keys/{room}": "401 401 400 400 400",
    "DELETE v3/room_keys/keys/{room}/{session}": "401 401 400 400 400",
    "DELETE v3/room_keys/version/{version}": "401 401 404 404 404",
    "GET v3/room_keys/keys": "401 401 400 400 400",
    "GET v3/room_keys/keys/{room}": "401 401 400 400 400",
    "GET v3/room_keys/keys/{room}/{session}": "401 401 400 400 400",
    "GET v3/room_keys/version/{version}": "401 401 404 404 404",
    "POST v3/room_keys/version": "401 401 400 400 400",
    "PUT v3/room_keys/keys": "401 401 400 400 400",
    "PUT v3/room_keys/keys/{room}": "401 401 400 400 400",
    "PUT v3/room_keys/keys/{room}/{session}": "401 401 400 400 400",
    "PUT v3/room_keys/version/{version}": "401 401 400 400 400",
    "GET v3/room_keys/version": "401 401 404 404 404",
    "GET v3/rooms/{room}/aliases": "401 401 403 403 200",
    "GET v3/rooms/{room}/context/{event}": "401 401 404 404 404",
    "GET v3/rooms/{room}/event/{event}": "401 401 404 404 404",
    "GET v3/rooms/{room}/initialSync": "401 401 403 200 200",
    "GET v3/rooms/{room}/joined_members": "401 401 403 403 200",
    "GET v3/rooms/{room}/members": "401 401 403 200 200",
    "GET v3/rooms/{room}/messages": "401 401 403 200 200",
    "GET v3/rooms/{room}/state": "401 401 403 200 200",
    "GET v3/rooms/{room}/state/{type}": "401 401 403 404 404",
    "GET v3/rooms/{room}/state/{type}/{key}": "401 401 403 404 404",
    "GET v3/sync": "401 401 200 200 200",
    "GET v3/thirdparty/protocols": "401 401 200 200 200",
    "GET v3/user/{user}/account_data/{type}": "401 401 403 403 403",
    "GET v3/user/{user}/filter/{filter}": "401 401 403 403 403",
    "GET v3/user/{user}/rooms/{room}/account_data/{type}": "401 401 403 403 403",
    "GET v3/user/{user}/rooms/{room}/tags": "401 401 403 403 403",
    "GET v3/voip/turnServer": "401 401 200 200 200",
    "GET versions": "200 200 200 200 200",
    "POST _matrix/media/r0/upload": "401 401 200 200 200",
    "POST _matrix/media/v1/create": "401 401 200 200 200",
    "POST _matrix/media/v1/upload": "401 401 200 200 200",
    "POST _matrix/media/v3/upload": "401 401 200 200 200",
    "POST _synapse/admin/v1/register": "404 404 404 404 404",
    "POST v3/account/deactivate": "401 401 401 401 401",
    "POST v3/account/password": "401 401 401 401 401",
    "POST v3/createRoom": "401 401 200 200 200",
    "POST v3/delete_devices": "401 401 401 401 401",
    "POST v3/join/{room}": "401 401 403 403 200",
    "POST v3/keys/claim": "401 401 200 200 200",
    "POST v3/keys/device_signing/upload": "401 401 200 200 200",
    "POST v3/keys/query": "401 401 200 200 200",
    "POST v3/keys/signatures/upload": "401 401 200 200 200",
    "POST v3/keys/upload": "401 401 200 200 200",
    "POST v3/keys/upload/{device}": "401 401 200 200 200",
    "POST v3/knock/{room}": "401 401 403 403 403",
    "POST v3/login": "400 400 400 400 400",
    "POST v3/logout": "401 401 200 200 200",
    "POST v3/logout/all": "401 401 200 200 200",
    "POST v3/publicRooms": "401 401 200 200 200",
    "POST v3/register": "401 401 401 401 401",
    "POST v3/rooms/{room}/ban": "401 401 403 403 403",
    "POST v3/rooms/{room}/forget": "401 401 200 200 200",
    "POST v3/rooms/{room}/invite": "401 401 403 403 403",
    "POST v3/rooms/{room}/join": "401 401 403 403 200",
    "POST v3/rooms/{room}/kick": "401 401 403 403 403",
    "POST v3/rooms/{room}/leave": "401 401 404 200 200",
    "POST v3/rooms/{room}/read_markers": "401 401 403 403 200",
    "POST v3/rooms/{room}/receipt/{kind}/{event}": "401 401 403 403 200",
    "POST v3/rooms/{room}/report": "401 401 404 200 200",
    "POST v3/rooms/{room}/report/{event}": "401 401 404 200 200",
    "POST v3/rooms/{room}/unban": "401 401 403 403 403",
    "POST v3/rooms/{room}/upgrade": "401 401 403 403 403",
    "POST v3/user/{user}/filter": "401 401 403 403 403",
    "POST v3/user/{user}/openid/request_token": "401 401 403 403 403",
    "POST v3/user_directory/search": "401 401 200 200 200",
    "POST v3/users/{user}/report": "401 401 200 200 200",
    "PUT _matrix/media/v1/upload/{server}/{media}": "401 401 403 403 403",
    "PUT _matrix/media/v3/upload/{server}/{media}": "401 401 403 403 403",
    "PUT v3/devices/{device}": "401 401 404 404 404",
    "PUT v3/directory/list/room/{room}": "401 401 403 403 403",
    "PUT v3/directory/room/{alias}": "401 401 403 403 200",
    "PUT v3/presence/{user}/status": "401 401 403 403 403",
    "PUT v3/profile/{user}/{field}": "401 401 403 403 403",
    "PUT v3/pushrules/global/{kind}/{rule}": "401 401 400 400 400",
    "PUT v3/pushrules/global/{kind}/{rule}/actions": "401 401 404 404 404",
    "PUT v3/pushrules/global/{kind}/{rule}/enabled": "401 401 404 404 404",
    "PUT v3/rooms/{room}/redact/{event}/{txn}": "401 401 403 403 403",
    "PUT v3/rooms/{room}/send/{type}/{txn}": "401 401 403 403 200",
    "PUT v3/rooms/{room}/state/{type}": "401 401 403 403 403",
    "PUT v3/rooms/{room}/state/{type}/{key}": "401 401 403 403 403",
    "PUT v3/rooms/{room}/typing/{user}": "401 401 403 403 403",
    "PUT v3/sendToDevice/{type}/{txn}": "401 401 200 200 200",
    "PUT v3/user/{user}/account_data/{type}": "401 401 403 403 403",
    "PUT v3/user/{user}/rooms/{room}/account_data/{type}": "401 401 403 403 403",
    "PUT v3/user/{user}/rooms/{room}/tags/{tag}": "401 401 403 403 403",
}


def routes(router: Router) -> list[tuple[str, list[str]]]:
    """All but those of federation, and but for the older names of the same."""
    found = [(method, parts) for method, parts, _ in registered_routes(router)]
    outer = {"federation", "key"}
    return [
        (m, p)
        for m, p in found
        if not (p[0] == "_matrix" and (p[1] in outer or (p[1] == "client" and p[2] == "r0")))
    ]


def name(method: str, parts: list[str]) -> str:
    path = "/".join(parts)
    return f"{method} {path.removeprefix('_matrix/client/')}"


def put_in(value: Any, given: dict[str, str]) -> Any:
    text = orjson.dumps(value).decode()
    for key, one in given.items():
        text = text.replace("{" + key + "}", one)
    return orjson.loads(text)


async def scene(home: MatrixServer, column: str) -> tuple[LocalUser, LocalUser, dict[str, str]]:
    owner, asks = await home.person("alice"), await home.person("bob")
    history = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    room = await owner.create(initial_state=[history])
    if column in {"left", "ignoring"}:
        await owner.room(room, "invite", {"user_id": asks.user})
        await asks.join(room)
    if column == "left":
        await asks.room(room, "leave")
    if column == "ignoring":
        path = f"/user/{part(asks.user)}/account_data/m.ignored_user_list"
        await asks.call("PUT", path, {"ignored_users": {owner.user: {}}})
    event = await owner.say(room, SECRET)
    mxc = orjson.loads((await owner.whole("POST", "/_matrix/media/v3/upload", data=b"a picture")).body)[
        "content_uri"
    ]
    note = {"text": SECRET}
    await owner.call("PUT", f"/user/{part(owner.user)}/rooms/{part(room)}/account_data/test.note", note)
    await owner.call("PUT", f"/user/{part(owner.user)}/account_data/test.note", note)
    await owner.call("PUT", f"/devices/{owner.device}", {"display_name": SECRET})
    mine = await owner.call("POST", f"/user/{part(owner.user)}/filter", {"room": {"rooms": [room]}})
    if column == "nobody":
        asks.token = ""
    elif column == "out":
        await asks.call("POST", "/logout")
    server, media = mxc.removeprefix("mxc://").split("/")
    given = {
        "room": room, "event": event, "user": owner.user, "type": "test.note", "key": "", "device": owner.device,
        "kind": "m.read", "txn": "1", "alias": "#none:127.0.0.1:1", "field": "displayname", "filter": mine["filter_id"],
        "tag": "t", "rule": "r", "owner": owner.user, "server": server, "media": media,
    }  # fmt: skip
    return owner, asks, given


async def answers(home: MatrixServer, column: str) -> tuple[dict[str, int], dict[str, bytes]]:
    _, asks, given = await scene(home, column)
    table = routes(next(iter(home.app.routers.values())))
    table.sort(key=lambda one: one[1][-1] in ENDS)
    statuses, bodies = {}, {}
    for method, parts in table:
        row = name(method, parts)
        body = put_in(BODIES.get(row, {}), given) if method != "GET" else None
        async with asyncio.timeout(20):
            answer = await asks.whole(method, filled(parts, given), body)
        statuses[row], bodies[row] = answer.status, answer.body
        if "logout" in parts and column not in {"nobody", "out"}:
            asks.token = (await home.person("bob", asks.device)).token
    return statuses, bodies


@pytest.mark.parametrize("column", COLUMNS)
async def test_every_endpoint_answers_strangers_as_its_row_says(tmp_path, column):
    async with matrix_server(tmp_path) as home:
        statuses, bodies = await answers(home, column)
        missing = statuses.keys() - ROWS.keys()
        assert not missing, f"give each a row, and see that its answers are right: {sorted(missing)}"
        assert ROWS.keys() == statuses.keys()
        at = COLUMNS.index(column)
        expected = {row: int(cells.split()[at]) for row, cells in ROWS.items()}
        wrong = {row: (statuses[row], expected[row]) for row in ROWS if statuses[row] != expected[row]}
        assert wrong == {}
        told = [row for row, body in bodies.items() if SECRET.encode() in body]
        assert told == []
