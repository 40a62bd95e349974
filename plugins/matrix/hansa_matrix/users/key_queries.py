"""Keys of any user's devices: from this server, from stored lists of others, or from their servers.

SPEC: client-server API, ``/keys/query`` and ``/keys/claim``; server-server API, "End-to-End Encryption". A
server that does not answer is one entry of ``failures``, and not an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from hansa import NetworkContext, RemoteProtocolError

from hansa_matrix.crossings import Crossings, failure_entry
from hansa_matrix.federation.client import REQUEST_FAILURES, FederationClient, build_path
from hansa_matrix.proto import ids
from hansa_matrix.proto.devices import (
    PUBLIC_USAGES,
    UserDevices,
    is_valid_device_id,
    parse_cross_signing_key,
    parse_device_keys,
    parse_one_time_key,
)
from hansa_matrix.users.devices import Devices
from hansa_matrix.users.key_texts import KeyTexts
from hansa_matrix.users.remote_devices import RemoteDeviceLists

#: Seconds for one server, and servers that are asked at a time.
QUERY_TIMEOUT_S, _MAX_PARALLEL = 10.0, 50

_Keys = dict[str, dict[str, Any]]


class KeyQueries:
    """Query and claim."""

    def __init__(
        self, ctx: NetworkContext, client: FederationClient, devices: Devices, remote: RemoteDeviceLists
    ) -> None:
        self._ctx = ctx
        self._client = client
        self._company = devices.company
        self._devices = devices
        self._remote = remote
        self._crossings = Crossings(ctx)
        self._texts = KeyTexts(ctx)

    async def query_local(self, wanted: Mapping[str, Sequence[str]], *, outside: bool = False) -> _Keys:
        """``device_keys``, ``master_keys`` and ``self_signing_keys`` of people here, by user; of each
        the devices named, or all. ``outside``: as another server is told.
        """
        found: _Keys = {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}}
        ours = [u for u in wanted if ids.is_valid_user_id(u) and ids.domain_of(u) == self._company.server]
        known = await self._devices.users_with_keys(ours)
        for user, device_ids in wanted.items():
            if user not in known or not await self._company.is_local_user(user):
                continue
            of = await (self._devices.get_public(user) if outside else self._devices.get_all(user))
            if of.stream_id or of.cross_signing:
                _add_keys(found, of, device_ids)
        return found

    async def claim_local(self, wanted: Mapping[str, Mapping[str, str]]) -> _Keys:
        """One key each of devices here."""
        local = {user: devices for user, devices in wanted.items() if await self._company.is_local_user(user)}
        found = await self._devices.claim_keys(local)
        if self._ctx.has_policies:
            await self._texts.filter_claimed(found)
        return found

    async def query_keys(
        self, wanted: Mapping[str, Sequence[str]], *, within: float = QUERY_TIMEOUT_S, reader: str = ""
    ) -> _Keys:
        """As ``query_local`` for users of any server, with ``failures`` by server, and the parts that only
        the ``reader`` may know about their own keys and about users they vouch for.
        """
        found = await self.query_local(wanted)
        asked: dict[str, dict[str, list[str]]] = {}
        denied = await self._denied_servers(wanted)
        for user, device_ids in wanted.items():
            if not ids.is_valid_user_id(user) or ids.domain_of(user) == self._company.server:
                continue
            if ids.domain_of(user) in denied:
                continue
            kept = await self._remote.get_current(user)
            if kept is not None:
                _add_keys(found, kept, device_ids)
            else:
                asked.setdefault(ids.domain_of(user), {})[user] = list(device_ids)

        async def query_server(server: str) -> None:
            body = {"device_keys": asked[server]}
            answer = await self._ask_server(server, "query", body, within)
            for user in asked[server]:
                _merge_answer(found, answer, user)
                self._remote.schedule_fetch(user)

        found["failures"] = await self._ask_each(asked, query_server) | denied
        if self._ctx.has_policies:
            await self._texts.filter_query(found)
        if reader:
            await self._add_private_keys(found, reader, wanted)
        return found

    async def _denied_servers(self, users: Iterable[str]) -> dict[str, Any]:
        """The servers of some people whose keys policies let nobody have, with what ``failures`` says."""
        if not self._ctx.has_policies:
            return {}
        of: dict[str, list[str]] = {}
        for user in users:
            if ids.is_valid_user_id(user) and ids.domain_of(user) != self._company.server:
                of.setdefault(ids.domain_of(user), []).append(user)
        found: dict[str, Any] = {}
        for server, named in of.items():
            verdict = await self._ctx.check(self._crossings.keys_query(server, named, outbound=True))
            if not verdict.allowed:
                found[server] = failure_entry(verdict)
        return found

    async def _add_private_keys(self, found: _Keys, reader: str, wanted: Mapping[str, Sequence[str]]) -> None:
        found["user_signing_keys"] = {}
        if reader in wanted:
            own = (await self._devices.get_all(reader)).cross_signing.get("user_signing")
            found["user_signing_keys"] = {reader: own} if own is not None else {}
        for user, key in found["master_keys"].items():
            for name in key["keys"] if user != reader else ():
                more = await self._devices.user_signatures(reader, user, name.removeprefix("ed25519:"))
                if more:
                    signatures = key.get("signatures", {})
                    mine = {**signatures.get(reader, {}), **more}
                    found["master_keys"][user] = {**key, "signatures": {**signatures, reader: mine}}

    async def claim_keys(
        self, wanted: Mapping[str, Mapping[str, str]], *, within: float = QUERY_TIMEOUT_S
    ) -> _Keys:
        """``one_time_keys`` by user and device, and ``failures`` by server."""
        asked: dict[str, dict[str, Mapping[str, str]]] = {}
        denied = await self._denied_servers(wanted)
        for user, devices in wanted.items():
            if ids.is_valid_user_id(user) and ids.domain_of(user) not in {self._company.server, *denied}:
                asked.setdefault(ids.domain_of(user), {})[user] = devices
        found = await self.claim_local(wanted)

        async def claim_from_server(server: str) -> None:
            answer = await self._ask_server(server, "claim", {"one_time_keys": asked[server]}, within)
            given = answer.get("one_time_keys")
            for user, devices in asked[server].items():
                of_user = given.get(user) if isinstance(given, dict) else None
                for device_id, algorithm in devices.items():
                    keys = of_user.get(device_id) if isinstance(of_user, dict) else None
                    if isinstance(keys, dict) and len(keys) == 1:
                        ((key_id, key),) = keys.items()
                        if parse_one_time_key(key_id, key) == algorithm:
                            found.setdefault(user, {})[device_id] = {key_id: key}

        failures = await self._ask_each(asked, claim_from_server) | denied
        if self._ctx.has_policies:
            await self._texts.filter_claimed(found)
        return {"one_time_keys": found, "failures": failures}

    async def _ask_server(
        self, server: str, what: str, body: Mapping[str, Any], within: float
    ) -> dict[str, Any]:
        target = build_path("_matrix", "federation", "v1", "user", "keys", what)
        answer = await self._client.request("POST", server, target, body, seconds=within)
        if not isinstance(answer, dict):
            raise RemoteProtocolError("the answer must be an object")
        return answer

    async def _ask_each(
        self, servers: Mapping[str, Any], ask: Callable[[str], Awaitable[None]]
    ) -> dict[str, Any]:
        """Ask servers side by side; what those say that failed, by server."""
        failures: dict[str, Any] = {}
        slots = asyncio.Semaphore(_MAX_PARALLEL)

        async def ask_one_server(server: str) -> None:
            try:
                async with slots:
                    await ask(server)
            except REQUEST_FAILURES as error:
                self._ctx.count("matrix_keys_failed")
                self._ctx.log.info("keys of people of %s: %s", server, error)
                failures[server] = {"status": 503, "message": "the server did not answer as it has to"}

        async with asyncio.TaskGroup() as group:
            for server in servers:
                group.create_task(ask_one_server(server))
        return failures


def _add_keys(found: _Keys, of: UserDevices, device_ids: Sequence[str]) -> None:
    shown: dict[str, Any] = {}
    for device in of.devices.values():
        if device.keys is not None and (not device_ids or device.device_id in device_ids):
            unsigned = {"unsigned": {"device_display_name": device.name}} if device.name else {}
            shown[device.device_id] = {**device.keys, **unsigned}
    found["device_keys"][of.user] = shown
    for usage in PUBLIC_USAGES:
        if usage in of.cross_signing:
            found[f"{usage}_keys"][of.user] = of.cross_signing[usage]


def _merge_answer(found: _Keys, answer: Mapping[str, Any], user: str) -> None:
    """Takes the well-formed part of a server's answer about one of its users."""
    given = answer.get("device_keys")
    devices = given.get(user) if isinstance(given, dict) else None
    if isinstance(devices, dict):
        found["device_keys"][user] = {
            device_id: keys
            for device_id, keys in devices.items()
            if is_valid_device_id(device_id) and parse_device_keys(keys, user, device_id) is not None
        }
    for usage in PUBLIC_USAGES:
        keys = answer.get(f"{usage}_keys")
        key = keys.get(user) if isinstance(keys, dict) else None
        if parse_cross_signing_key(key, user, usage) is not None:
            found[f"{usage}_keys"][user] = key
