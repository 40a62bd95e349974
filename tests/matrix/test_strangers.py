"""Requests without proof cost next to nothing: no body is read, few questions are asked, nothing is
stored.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hansa import Action, Failure, HttpError, HttpResponse, Put, Request, Verdict
from hansa.testing import registered_routes, until
from hansa_matrix.crypto import SigningKey
from hansa_matrix.federation.key_store import MAX_DOCUMENT, MAX_KEYS
from hansa_matrix.proto.servers.key_document import DAY, key_document
from hansa_matrix.proto.servers.xmatrix import format_header, signing_bytes
from hansa_matrix.proto.signing import signable_bytes, with_signature
from hansa_matrix.server_api.auth import FederationAuth
from hansa_matrix.server_api.unproven_work import MAX_EACH, MAX_IN_ALL
from matrix.server_with_peer import OURS, THEIRS, V1, ServerWithPeer, server_with_peer
from memory import peak_memory
from peers.event_forge import now

MIB = 1024 * 1024
KEY = "/_matrix/key/v2"


def document(server: str, key: SigningKey, **more: Any) -> dict[str, Any]:
    doc = {**key_document(server, {key.key_id: key.public}, now() + DAY), **more}
    return with_signature(doc, server, key.key_id, key.sign(signable_bytes(doc)))


def made(name: str) -> SigningKey:
    return SigningKey.from_seed(f"ed25519:{name}", secrets.token_bytes(32))


async def claim(
    house: ServerWithPeer, origin: str, body: bytes = b"{}", *, remote: str = "192.0.2.1", **more: Any
) -> tuple[int, dict[str, Any], int]:
    """Sends a transaction in a server's name; returns the status, the answer, and how often its body was
    read.
    """
    read = 0
    sig = more.pop("sig", "A" * 86)
    destination, key = more.pop("destination", OURS), more.pop("key", "ed25519:a")

    async def reading(_limit: int) -> bytes:
        nonlocal read
        read += 1
        return body

    request = Request(
        method="PUT",
        target=f"{V1}/send/{secrets.token_hex(4)}",
        host=OURS,
        authorizations=[format_header(origin, destination, key, sig)],
        remote=remote,
    )
    answer = await house.dispatcher.answer(request, reading)
    return answer.status, orjson.loads(answer.body), read


@pytest.mark.parametrize("more", [{"destination": "other.example"}, {"key": "nokey"}, {"sig": ""}])
async def test_a_head_that_cannot_be_right_costs_no_key_and_no_body(tmp_path, more):
    async with server_with_peer(tmp_path) as house:
        house.peer.asked.clear()
        status, answer, read = await claim(house, "evil.example", **more)
        assert (status, answer["errcode"], read) == (401, "M_UNAUTHORIZED", 0)
        assert house.peer.asked == []


async def test_no_body_is_read_of_who_has_no_key(tmp_path):
    """64 MiB of bodies under silent origins were parsed and held while keys were awaited: 2 GiB."""
    async with server_with_peer(tmp_path) as house:
        house.peer.keys = lambda _: None
        status, answer, read = await claim(house, "evil.example:1", b"[" + b'{"":0},' * 100_000 + b"0]")
        assert (status, answer["errcode"], read) == (401, "M_UNAUTHORIZED", 0)


async def test_a_body_is_parsed_once_its_signature_holds(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        parsed = []
        monkeypatch.setattr(
            "hansa_matrix.server_api.auth.loads_json", lambda body, limits, **_: parsed.append(body) or {}
        )
        status, _ = await house.ask("PUT", f"{V1}/send/x", b'{"pdus":[],"edus":[]}')
        assert (status, parsed) == (200, [])


async def test_what_is_not_signed_as_it_stands_is_parsed_within_bounds(tmp_path):
    """Under a key id that everybody knows: the canonical form is not made of what takes much memory."""
    async with server_with_peer(tmp_path) as house:
        body = b'{"a":[' + b'{"":0},' * 500_000 + b"0]}"
        with peak_memory() as peak:
            status, _, read = await claim(house, THEIRS, body, key=house.forger.key.key_id)
        assert (status, read) == (413, 1)
        assert peak.bytes < 16 * MIB


async def test_a_body_that_is_not_canonical_counts_as_what_it_says(tmp_path):
    async with server_with_peer(tmp_path) as house:
        target, body = f"{V1}/send/x", b'{ "pdus": [], "edus": [] }'
        said = house.forger.signed("PUT", OURS, target, b'{"edus":[],"pdus":[]}')

        async def read(_limit: int) -> bytes:
            return body

        request = Request(method="PUT", target=target, host=OURS, authorizations=[said])
        assert (await house.dispatcher.answer(request, read)).status == 200


class Silent:
    """Every server whose keys are asked for, and which does not answer."""

    def __init__(self, house: ServerWithPeer) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Event()
        house.peer.request = self.request

    async def request(self, request: Any) -> HttpResponse:
        self.asked.append(request.host)
        assert request.stranger and request.share
        await self.go.wait()
        return HttpResponse(status=404)


async def test_unknown_origins_share_one_small_pool(tmp_path):
    async with server_with_peer(tmp_path) as house:
        silent = Silent(house)
        tasks = [
            asyncio.ensure_future(claim(house, f"s{n}.example:1", remote=f"192.0.{n % 40}.{n}"))
            for n in range(250)
        ]
        await until(lambda: _done(tasks) == len(tasks) - MAX_IN_ALL and len(silent.asked) == MAX_IN_ALL)
        assert len(silent.asked) == MAX_IN_ALL
        assert {t.result()[0] for t in tasks if t.done()} == {429}
        assert all(t.result()[2] == 0 for t in tasks if t.done())
        silent.go.set()
        assert {(await t)[0] for t in tasks} == {401, 429}


def _done(tasks: list[Any]) -> int:
    return sum(task.done() for task in tasks)


async def test_one_neighbourhood_has_a_share_of_it_and_leaves_the_rest_to_others(tmp_path):
    async with server_with_peer(tmp_path) as house:
        silent = Silent(house)
        greedy = [
            asyncio.ensure_future(claim(house, f"g{n}.example:1", remote=f"192.0.2.{n}")) for n in range(50)
        ]
        await until(lambda: _done(greedy) == 50 - MAX_EACH)
        other = asyncio.ensure_future(claim(house, "other.example:1", remote="198.51.100.7"))
        await until(lambda: "other.example" in silent.asked)
        silent.go.set()
        assert (await other)[0] == 401
        await asyncio.gather(*greedy)


async def test_invented_origins_cost_neither_look_ups_nor_decisions(tmp_path):
    """8,000 unsigned requests were 8,000 look-ups and 8,000 stored decisions."""
    async with server_with_peer(tmp_path) as house:
        house.peer.keys = lambda _: None
        house.peer.asked.clear()
        checks = []
        matrix = house.matrix

        class Watched:
            """The context, with its checks counted."""

            def __getattr__(self, name: str) -> Any:
                return getattr(matrix.ctx, name)

            async def check(self, crossing: Any) -> Verdict:
                checks.append(crossing)
                return Verdict(Action.ALLOW)

        gate = next(one.__self__ for one in admits(house) if isinstance(one.__self__, FederationAuth))
        gate._ctx = Watched()
        for n in range(2000):
            status, _, read = await claim(house, f"s{n}.example:1")
            assert status in {401, 429} and read == 0
        assert len(house.peer.asked) < 130
        assert len(checks) < 130


def admits(house: ServerWithPeer) -> Iterator[Any]:
    """Yields the checks of the heads of requests, of every route."""
    for router in house.app.routers.values():
        yield from (route.admit for _, _, route in registered_routes(router) if route.admit is not None)


async def test_an_origin_without_keys_is_not_asked_for_them_with_every_request(tmp_path):
    async with server_with_peer(tmp_path) as house:
        house.peer.keys = lambda _: None
        house.peer.asked.clear()
        for _ in range(50):
            assert (await claim(house, "evil.example:1"))[0] == 401
        assert len(house.peer.asked) == 1


# What strangers make us store.


async def stored(house: ServerWithPeer, server: str) -> tuple[int, bool]:
    """How many keys, and whether a document."""
    store = house.matrix.store
    keys = await store.scan("key", equal=(server,))
    return len(keys), await store.get("key_document", (server,)) is not None


async def test_a_question_about_a_server_stores_nothing(tmp_path):
    async with server_with_peer(tmp_path) as house:
        key = made("x")
        house.peer.keys = lambda _: (200, document("some.example:1", key))
        status, got = await house.ask("GET", f"{KEY}/query/some.example:1")
        assert status == 200 and got["server_keys"][0]["server_name"] == "some.example:1"
        assert await stored(house, "some.example:1") == (0, False)
        asked = len(house.peer.asked)
        assert (await house.ask("GET", f"{KEY}/query/some.example:1"))[1]["server_keys"]
        assert len(house.peer.asked) == asked
        # Once an event needs them, they are stored.
        await house.matrix.keyring.ensure_keys([("some.example:1", "ed25519:x")], 5)
        assert await stored(house, "some.example:1") == (1, True)


async def test_who_signs_a_request_is_kept(tmp_path):
    async with server_with_peer(tmp_path) as house:
        key = made("x")
        house.peer.keys = lambda _: (200, document("some.example:1", key))
        target = f"{V1}/query/profile?user_id=%40nobody:{OURS}"
        sig = key.sign(signing_bytes("GET", target, "some.example:1", OURS))
        request = Request(
            method="GET",
            target=target,
            host=OURS,
            query=[("user_id", f"@nobody:{OURS}")],
            authorizations=[format_header("some.example:1", OURS, key.key_id, sig)],
        )

        async def read(_limit: int) -> bytes:
            return b""

        assert (await house.dispatcher.answer(request, read)).status == 404

        async with asyncio.timeout(5):
            while await stored(house, "some.example:1") != (1, True):
                await asyncio.sleep(0)


async def test_one_server_has_so_many_keys_and_a_small_document(tmp_path):
    """It may name fifty keys now and fifty old ones, and others the next day."""
    async with server_with_peer(tmp_path) as house:
        keyring = house.matrix.keyring
        key = made("x")
        for day in range(4):
            old = {
                f"ed25519:o{day}_{n}": {"key": made("o").public, "expired_ts": 1000 + n} for n in range(49)
            }
            house.peer.keys = lambda _, old=old: (
                200,
                document("some.example:1", key, old_verify_keys=old, more="x" * MAX_DOCUMENT),
            )
            await keyring.ask_again(["some.example:1"])
        assert await stored(house, "some.example:1") == (MAX_KEYS, True)
        assert await keyring.document_of("some.example:1", 0) is None
        assert keyring.get("some.example:1", "ed25519:x").public == key.public


async def test_the_servers_fetched_longest_ago_go_when_there_are_too_many(tmp_path, monkeypatch):
    async with server_with_peer(tmp_path) as house:
        keyring = house.matrix.keyring
        at = now()
        key = made("x")
        for n in range(8):
            house.peer.keys = lambda _, n=n: (200, document(f"s{n}.example:1", key))
            await keyring.ensure_keys([(f"s{n}.example:1", "ed25519:x")], 5)
            await _later(house, f"s{n}.example:1", at - (8 - n) * 1000)
        monkeypatch.setattr("hansa_matrix.federation.key_store.MAX_SERVERS", 5)
        await keyring.sweep()
        left = [n for n in range(8) if await stored(house, f"s{n}.example:1") == (1, True)]
        assert left == [4, 5, 6, 7] and await stored(house, THEIRS) != (0, False)
        monkeypatch.setattr("hansa_matrix.federation.key_store.MAX_BYTES", 1000)
        await keyring.sweep()
        assert await stored(house, "s4.example:1") == (0, False)


async def _later(house: ServerWithPeer, server: str, at: int) -> None:
    store = house.matrix.store
    row = await store.get("key_document", (server,))
    await store.commit([Put("key_document", row.key, row.body, {**row.fields, "fetched": at})])


# Key documents.


@pytest.mark.parametrize("junk", [b'{"":0},', b"[],", b"0,"])
async def test_a_key_document_is_small(tmp_path, junk):
    """One of 16 MiB took 668 MiB, six of these stopped everybody for 12.5 s."""
    async with server_with_peer(tmp_path) as house:
        limits = []

        async def request(request: Any) -> HttpResponse:
            limits.append(request.max_body)
            return HttpResponse(status=200, body=body)

        body = b"[" + junk * (16 * MIB // len(junk)) + b"0]"
        house.peer.request = request
        with peak_memory() as peak:
            got = await asyncio.gather(*(house.ask("GET", f"{KEY}/query/s{n}.example:1") for n in range(6)))
        assert got == [(200, {"server_keys": []})] * 6
        assert limits and set(limits) == {64 * 1024}
        assert peak.bytes < 8 * MIB


@pytest.mark.parametrize(("size", "answered"), [(7000, (0, 0)), (1900, (10, 20))])
async def test_a_key_document_within_its_size_takes_little_memory(tmp_path, size, answered):
    """A hundred of them in one answer: their bytes are bounded together."""
    async with server_with_peer(tmp_path) as house:
        keys = {f"s{n}.example:1": made("x") for n in range(100)}
        junk = [{"": 0}] * size

        def answer(request: Any) -> Any:
            return 200, document(request.host_header, keys[request.host_header], junk=junk)

        house.peer.keys = answer
        with peak_memory() as peak:
            status, got = await house.ask("POST", f"{KEY}/query", {"server_keys": {key: {} for key in keys}})
        assert status == 200 and answered[0] <= len(got["server_keys"]) <= answered[1]
        assert peak.bytes < 32 * MIB


async def test_a_server_that_was_not_asked_for_want_of_room_is_not_taken_for_gone(tmp_path):
    async with server_with_peer(tmp_path) as house:
        key = made("x")
        busy = [True]

        def keys(_: Any) -> Any:
            if busy[0]:
                raise HttpError("too many requests wait", Failure.BUSY)
            return 200, document("some.example:1", key)

        house.peer.keys = keys
        keyring = house.matrix.keyring
        wanted = [("some.example:1", "ed25519:x")]
        await keyring.ensure_keys(wanted, 5, stranger="192.0.2.0/24")
        assert keyring.pending_servers(wanted) == ["some.example:1"]  # what it has signed is not given up
        busy[0] = False
        await keyring.ensure_keys(wanted, 5)
        assert keyring.get(*wanted[0]).public == key.public


class Crowded:
    """No place comes free for strangers; others are answered."""

    def __init__(self, house: ServerWithPeer, doc: dict[str, Any]) -> None:
        self.shares: list[tuple[bool, str]] = []
        self.go = asyncio.Event()
        self._doc = doc
        house.peer.request = self.request

    async def request(self, request: Any) -> HttpResponse:
        if not request.target.startswith("/_matrix/key/v2/server"):
            return HttpResponse(status=404)
        self.shares.append((request.stranger, request.share))
        if request.stranger:
            await self.go.wait()
            raise HttpError("too many requests wait", Failure.BUSY)
        return HttpResponse(status=200, body=orjson.dumps(self._doc))


@pytest.mark.parametrize("gives_up", [False, True])
async def test_who_has_proven_itself_does_not_depend_on_a_question_of_a_stranger(tmp_path, gives_up):
    """It waited for a stranger's question, which was never put, and took the keys for absent."""
    async with server_with_peer(tmp_path) as house:
        key = made("x")
        crowded = Crowded(house, document("some.example:1", key))
        keyring = house.matrix.keyring
        wanted = [("some.example:1", "ed25519:x")]
        loop = asyncio.get_running_loop()
        stranger = loop.create_task(keyring.ensure_keys(wanted, 5, stranger="192.0.2.0/24"))
        async with asyncio.timeout(5):
            await until(lambda: crowded.shares)
            proven = loop.create_task(keyring.ensure_keys(wanted, 5, share="peer.example:1"))
            await asyncio.sleep(0)
            if gives_up:
                stranger.cancel()
            crowded.go.set()
            await asyncio.gather(stranger, proven, return_exceptions=True)
        assert crowded.shares == [(True, "192.0.2.0/24"), (False, "peer.example:1")]
        assert keyring.get(*wanted[0]).public == key.public
