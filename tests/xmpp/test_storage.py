"""A database that fails: XMPP is told to come back, without a word of the database."""

from __future__ import annotations

from typing import Any

from hansa.store.faults import FaultKind, StoreFault
from peers.waiting import until
from xmpp.stanzas import ROOM
from xmpp.xmpp_server import xmpp_server

WORDS = "SQL logic of /var/lib/hansa.db"
MERCUTIO = "mercutio@verona.example/m"
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"


class Broken:
    """A store that writes nothing."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def commit(self, *_args: Any, **_options: Any) -> list[int]:
        raise StoreFault(FaultKind.FULL, WORDS)


async def test_a_message_that_cannot_be_kept_is_to_be_sent_again() -> None:
    async with xmpp_server() as h:
        await h.enter(MERCUTIO, "Mercutio")
        app = h.app
        assert app is not None
        whole, app.store.inner = app.store.inner, Broken(app.store.inner)
        said = f"<message type='groupchat' from='{MERCUTIO}' to='{ROOM}' id='m1'><body>hark</body></message>"
        h.link.receive(said)
        await h.link.until(lambda: h.link.sent[-1].get("type") == "error")
        error = h.link.sent[-1].find("{*}error")
        assert error is not None
        assert error.get("type") == "wait"
        assert error.find(f"{STANZAS}resource-constraint") is not None
        assert not any(WORDS in text for one in h.link.sent for text in one.itertext())
        app.store.inner = whole
        h.link.receive(said.replace("m1", "m2"))
        await h.link.until(lambda: h.link.sent[-1].get("type") == "groupchat")
        assert app.store.health.degraded is None


class BrokenOccupants(Broken):
    """A store that keeps everything but who is in a room over XMPP."""

    async def commit(self, scope: str, writes: Any, **options: Any) -> list[int]:
        if any(write.collection.rpartition("/")[2] == "occupant" for write in writes):
            raise StoreFault(FaultKind.FULL, WORDS)
        found: list[int] = await self._inner.commit(scope, writes, **options)
        return found


async def test_who_cannot_be_kept_as_an_occupant_is_to_come_again_and_is_nowhere() -> None:
    async with xmpp_server() as h:
        app = h.app
        assert app is not None
        whole, app.store.inner = app.store.inner, BrokenOccupants(app.store.inner)
        h.link.receive(
            f"<presence from='{MERCUTIO}' to='{ROOM}/Mercutio'><x xmlns='http://jabber.org/protocol/muc'/></presence>"
        )
        await h.link.until(lambda: bool(h.link.sent) and h.link.sent[-1].get("type") == "error")
        error = h.link.sent[-1].find("{*}error")
        assert error is not None
        assert error.get("type") == "wait"
        view = h.ctx.get_view(ROOM)
        assert view is not None

        async def gone() -> bool:
            return not [person for person in view.joined() if person.user.id.startswith("mercutio")]

        await until("they are out of the room again", gone)
        app.store.inner = whole
        assert app.runners["xmpp"].restarts == 0
        await h.enter(MERCUTIO, "Mercutio")


async def test_who_leaves_while_nothing_can_be_kept_is_gone_once_it_can(monkeypatch: Any) -> None:
    monkeypatch.setattr("hansa_xmpp.stanza_handler._LEAVE_AGAIN", 0.01)
    async with xmpp_server() as h:
        await h.enter(MERCUTIO, "Mercutio")
        app = h.app
        assert app is not None
        whole, app.store.inner = app.store.inner, Broken(app.store.inner)
        before = sum(app.store.health.faults.values())
        h.link.receive(f"<presence type='unavailable' from='{MERCUTIO}' to='{ROOM}/Mercutio'/>")

        async def tried() -> bool:
            return sum(app.store.health.faults.values()) > before + 3

        await until("it is tried more than once", tried)
        app.store.inner = whole
        view = h.ctx.get_view(ROOM)
        assert view is not None

        async def gone() -> bool:
            return not [person for person in view.joined() if person.user.id.startswith("mercutio")]

        await until("they are gone", gone)
        assert app.runners["xmpp"].restarts == 0
