"""Backups of keys, as clients make, fill and read them.

SPEC: client-server API, "Server-side key backups".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson
from hansa import Request, Response

from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.http import Handler, RateLimited, get_string
from hansa_matrix.errors import json_response, matrix_error
from hansa_matrix.proto.devices import fits_object
from hansa_matrix.proto.key_backup import is_valid_key, is_valid_key_place
from hansa_matrix.users.key_backups import Backup, KeyBackups

#: Bytes of what says how a backup is encrypted, and of one key in it.
MAX_AUTH_DATA, MAX_KEY_BYTES = 64 * 1024, 16 * 1024
#: Bytes of keys from which an answer is written as it is read.
CHUNK_BYTES = 256 * 1024
#: Keys that are looked at in one turn of the loop.
KEYS_PER_STEP = 500


class KeyBackupEndpoints:
    """The endpoints."""

    def __init__(self, backups: KeyBackups) -> None:
        self._backups = backups

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        version, keys = "/v3/room_keys/version", "/v3/room_keys/keys"
        places = (keys, f"{keys}/{{room}}", f"{keys}/{{room}}/{{session}}")
        return {
            ("GET", version): self.get_latest_version,
            ("POST", version): RateLimited(self.create_version),
            ("GET", f"{version}/{{version}}"): self.get_version,
            ("PUT", f"{version}/{{version}}"): self.update_version,
            ("DELETE", f"{version}/{{version}}"): self.delete_version,
            **{("GET", place): self.get_keys for place in places},
            **{("PUT", place): self.put_keys for place in places},
            **{("DELETE", place): self.delete_keys for place in places},
        }

    async def get_latest_version(self, caller: Requester, _request: Request, _body: Any) -> Any:
        """``GET /room_keys/version``."""
        found = await self._backups.get_latest(caller.user)
        if found is None:
            raise matrix_error(404, "M_NOT_FOUND", "there is no backup of keys")
        return _backup_json(found)

    async def create_version(self, caller: Requester, _request: Request, body: Any) -> Any:
        """``POST /room_keys/version``."""
        algorithm = get_string(body, "algorithm")
        if not fits_object(algorithm, MAX_KEY_BYTES):
            raise matrix_error(400, "M_INVALID_PARAM", "algorithm must be a string")
        return {"version": str(await self._backups.create_version(caller.user, algorithm, _auth_data(body)))}

    async def get_version(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /room_keys/version/{version}``."""
        return _backup_json(await self._backups.get(caller.user, _parse_version(request.path["version"])))

    async def update_version(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /room_keys/version/{version}``: what says how it is encrypted, and nothing else."""
        version, algorithm, auth_data = (
            request.path["version"],
            get_string(body, "algorithm"),
            _auth_data(body),
        )
        if body.get("version", version) != version:
            raise matrix_error(400, "M_INVALID_PARAM", "version in the body must be that of the path")

        def set_auth_data(known: Backup) -> Backup:
            if known.algorithm != algorithm:
                raise matrix_error(400, "M_INVALID_PARAM", "the algorithm of a backup cannot be changed")
            return replace(known, auth_data=auth_data)

        await self._backups.update_version(caller.user, _parse_version(version), set_auth_data)
        return {}

    async def delete_version(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``DELETE /room_keys/version/{version}``."""
        await self._backups.delete_version(caller.user, _parse_version(request.path["version"]))
        return {}

    async def put_keys(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /room_keys/keys``, of all rooms, of one, or of one session in it."""
        version, place = _path_version(request), _key_place(request)
        given = body
        for name in place[::-1]:
            given = {name: given}
        if len(place) == 0:
            given = _require_object(body, "rooms")
        elif len(place) == 1:
            given = {place[0]: body}
        keys: dict[tuple[str, str], Mapping[str, Any]] = {}
        for room_id, of_room in given.items():
            if len(place) < 2:  # a room and a session
                if not isinstance(of_room, dict):
                    raise matrix_error(400, "M_BAD_JSON", "sessions must be an object")
                sessions = _require_object(of_room, "sessions")
            else:
                sessions = of_room
            for session_id, data in sessions.items():
                if (
                    not is_valid_key_place(room_id, session_id)
                    or not is_valid_key(data)
                    or not fits_object(data, MAX_KEY_BYTES)
                ):
                    raise matrix_error(400, "M_BAD_JSON", "the session key is not valid")
                keys[room_id, session_id] = data
                if len(keys) % KEYS_PER_STEP == 0:  # others have a turn of the loop
                    await asyncio.sleep(0)
        return _count_json(await self._backups.add_keys(caller.user, version, keys))

    async def get_keys(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``GET /room_keys/keys``, of all rooms, of one, or of one session in it."""
        version, place = _path_version(request), _key_place(request)
        await self._backups.get(caller.user, version)
        if len(place) == 2:
            async for _, _, data in self._backups.read_keys(caller.user, version, place):
                return orjson.Fragment(data)
            raise matrix_error(404, "M_NOT_FOUND", "there is no key of that session")
        chunks = self._key_chunks(caller.user, version, place)
        begun = await anext(chunks)
        if len(begun) < CHUNK_BYTES:
            return json_response(begun)
        return Response(chunks=_continue_stream(begun, chunks))

    async def _key_chunks(self, user: str, version: int, place: Sequence[str]) -> AsyncGenerator[bytes]:
        """The keys of all rooms, or of one, as JSON in chunks: a whole backup is never held."""
        pieces, size, room = [b'{"rooms":{' if not place else b'{"sessions":{'], 0, ""
        async with aclosing(self._backups.read_keys(user, version, place)) as keys:
            async for room_id, session_id, data in keys:
                separator = b"," if room else b""
                if not place and room_id != room:
                    pieces += [b"}}," if room else b"", orjson.dumps(room_id), b':{"sessions":{']
                    separator = b""
                room = room_id
                pieces += [separator, orjson.dumps(session_id), b":", data]
                size += len(session_id) + len(data)
                if size >= CHUNK_BYTES:
                    yield b"".join(pieces)
                    pieces, size = [], 0
        pieces.append(b"}}}}" if room and not place else b"}}")
        yield b"".join(pieces)

    async def delete_keys(self, caller: Requester, request: Request, _body: Any) -> Any:
        """``DELETE /room_keys/keys``, of all rooms, of one, or of one session in it."""
        version = _path_version(request)
        return _count_json(await self._backups.remove_keys(caller.user, version, _key_place(request)))


async def _continue_stream(begun: bytes, chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    async with aclosing(chunks):
        yield begun
        async for chunk in chunks:
            yield chunk


def _key_place(request: Request) -> tuple[str, ...]:
    """The room of a path, and the session in it."""
    return tuple(request.path[name] for name in ("room", "session") if name in request.path)


def _path_version(request: Request) -> int:
    given = request.first("version")
    if not given:
        raise matrix_error(400, "M_MISSING_PARAM", "version is missing")
    return _parse_version(given)


def _parse_version(given: str) -> int:
    """Returns the number of a backup. Raises the error answer for a number that cannot be one."""
    if not given.isascii() or not given.isdigit() or len(given) > 15:
        raise matrix_error(404, "M_NOT_FOUND", "there is no such backup")
    return int(given)


def _require_object(body: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    given = body.get(key)
    if not isinstance(given, dict):
        raise matrix_error(
            400, "M_BAD_JSON" if key in body else "M_MISSING_PARAM", f"{key} must be an object"
        )
    return given


def _auth_data(body: Mapping[str, Any]) -> Mapping[str, Any]:
    given = _require_object(body, "auth_data")
    if not fits_object(given, MAX_AUTH_DATA):
        raise matrix_error(413, "M_TOO_LARGE", f"auth_data must have at most {MAX_AUTH_DATA} bytes")
    return given


def _count_json(backup: Backup) -> dict[str, Any]:
    return {"count": backup.count, "etag": str(backup.etag)}


def _backup_json(backup: Backup) -> dict[str, Any]:
    return {
        "algorithm": backup.algorithm,
        "auth_data": backup.auth_data,
        "version": str(backup.version),
        **_count_json(backup),
    }
