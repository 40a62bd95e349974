"""A database that fails: everybody is told to come back, and nobody what the database says."""

from __future__ import annotations

import asyncio
import secrets

import orjson
import pytest
from clients.matrix_server import matrix_server, part
from clients.test_strangers import filled, routes
from hansa import Conflict
from hansa.store.faults import FaultKind, StoreFault
from hansa.testing import until
from hansa_matrix.proto.hashing import event_id

WORDS = "SQL logic of /var/lib/hansa.db"


class Broken:
    """A store of which some calls fail."""

    def __init__(self, inner, calls, fault=None):
        self._inner, self._calls = inner, calls
        self._fault = fault or (lambda: StoreFault(FaultKind.FULL, WORDS))

    def __getattr__(self, name):
        if name in self._calls:
            return self._fail
        return getattr(self._inner, name)

    async def _fail(self, *_args, **_options):
        raise self._fault()


def contention():
    return Conflict("x", ("y",))


READS = ("get", "get_many", "scan", "count")


@pytest.mark.parametrize(
    ("calls", "fault", "least"),
    [(("commit",), None, 10), ((*READS, "commit", "probe"), None, 25), (("commit",), contention, 5)],
)
async def test_no_answer_has_words_of_the_database(tmp_path, calls, fault, least):
    """Nor is it a bug of this server that the database fails, or that others write the same all the time."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        event = await alice.say(room, "hark")
        bodies = {
            "createRoom": {"name": "x"}, "send": {"msgtype": "m.text", "body": "y"},
            "displayname": {"displayname": "z"}, "topic": {"topic": "t"}, "state": {"topic": "t"},
            "account_data": {"a": 1}, "tags": {"order": 0.5}, "filter": {}, "sendToDevice": {"messages": {}},
        }  # fmt: skip
        given = {"room": room, "event": event, "user": alice.user, "type": "m.room.topic", "key": "", "txn": "1",
                 "device": alice.device, "kind": "m.read", "field": "displayname", "tag": "u.x", "rule": "r"}  # fmt: skip
        app = home.app
        whole, app.store.inner = app.store.inner, Broken(app.store.inner, calls, fault)
        away = 0
        for method, parts in routes(next(iter(app.routers.values()))):
            body = next((b for name, b in bodies.items() if name in parts), {})
            answer = await alice.whole(method, filled(parts, given), None if method == "GET" else body)
            assert WORDS.encode() not in answer.body, f"{method} {parts}"
            assert answer.status != 500, f"{method} {parts}"
            if answer.status == 503:
                assert orjson.loads(answer.body)["errcode"] == "M_UNKNOWN"
                assert answer.headers["Retry-After"]
                away += 1
        assert away > least
        said = f"/rooms/{part(room)}/send/m.room.message/77"
        answer = await alice.whole("PUT", said, {"msgtype": "m.text", "body": "y"})
        assert answer.status == (503 if fault is None else 429)  # its room may be less busy in a second
        degraded = app.store.health.degraded
        assert (degraded.kind if degraded is not None else None) is (
            FaultKind.FULL if fault is None else None
        )
        app.store.inner = whole
        await alice.say(room, "here again")
        assert await app.store.check() is None
        assert "here again" in await alice.texts(room)


async def test_a_transaction_of_another_server_is_not_acknowledged(tmp_path):
    async with matrix_server(tmp_path) as home:
        app = home.app
        whole, app.store.inner = app.store.inner, Broken(app.store.inner, ("commit",))
        said = home.wire.forger.message(home.wire.room, "hark")
        status, body = await home.wire.send(said)
        assert status == 503, body
        assert WORDS not in str(body)
        app.store.inner = whole
        assert await home.wire.fate(said) == "accepted"


class BrokenTurns(Broken):
    """Everything can be stored but what a room's turn makes of an event."""

    def __init__(self, inner):
        super().__init__(inner, ())
        self.refused = asyncio.Event()

    async def commit(self, scope, writes, **options):
        if any(write.collection.endswith("pdu") for write in writes):
            self.refused.set()
            await self._fail()
        return await self._inner.commit(scope, writes, **options)


async def test_what_was_acknowledged_before_the_database_failed_happens_once_it_works(tmp_path, monkeypatch):
    monkeypatch.setattr("hansa_matrix.rooms.inbound.pdu_staging._FAULT_WAIT", 0.01)
    async with matrix_server(tmp_path) as home:
        app, wire = home.app, home.wire
        whole = app.store.inner
        broken = app.store.inner = BrokenTurns(whole)
        lost = "$" + secrets.token_urlsafe(32)
        tips = dict(wire.room.tips)
        stuck = wire.forger.message(wire.room, "stuck", prev_events=[lost])
        wire.room.tips = tips
        assert (await wire.send(stuck))[0] == 200  # with it nothing is judged before it is answered
        said = wire.forger.message(wire.room, "hark")
        assert (await wire.send(said))[0] == 200
        await broken.refused.wait()
        broken.refused.clear()
        await broken.refused.wait()  # it is tried again and again
        app.store.inner = whole

        target = f"/_matrix/federation/v1/event/{part(event_id(said, wire.room.version))}"

        async def shown():
            return (await wire.ask("GET", target))[0] == 200

        await until(shown)
        assert app.store.health.degraded is None
        assert wire.counted("matrix_pdus").get("failed") is None
        assert app.runners["matrix"].restarts == 0


async def test_a_bug_under_what_somebody_says_is_not_told_to_them(tmp_path, monkeypatch):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()

        def broken(*_args, **_options):
            raise TypeError(WORDS)

        monkeypatch.setattr("hansa.bus.view_rules.ViewRulesTurn.__init__", broken)
        for method, target, body in (
            ("PUT", f"/rooms/{part(room)}/send/m.room.message/1", {"msgtype": "m.text", "body": "hark"}),
            ("PUT", f"/rooms/{part(room)}/state/m.room.topic/", {"topic": "hark"}),
            ("POST", f"/rooms/{part(room)}/leave", {}),
        ):
            answer = await alice.whole(method, target, body)
            assert answer.status == 500, target
            assert WORDS.encode() not in answer.body
