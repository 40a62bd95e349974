"""A database that fails: XMPP is told to come back, without a word of the database."""

from __future__ import annotations

from typing import Any

from hansa.store.faults import FaultKind, StoreFault
from xmpp.house import house
from xmpp.stanzas import ROOM

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
    async with house() as h:
        await h.enter(MERCUTIO, "Mercutio")
        app = h.app
        assert app is not None
        whole, app.store._store = app.store._store, Broken(app.store._store)
        said = f"<message type='groupchat' from='{MERCUTIO}' to='{ROOM}' id='m1'><body>hark</body></message>"
        h.link.receive(said)
        await h.link.until(lambda: h.link.sent[-1].get("type") == "error")
        error = h.link.sent[-1].find("{*}error")
        assert error is not None
        assert error.get("type") == "wait"
        assert error.find(f"{STANZAS}resource-constraint") is not None
        assert not any(WORDS in text for one in h.link.sent for text in one.itertext())
        app.store._store = whole
        h.link.receive(said.replace("m1", "m2"))
        await h.link.until(lambda: h.link.sent[-1].get("type") == "groupchat")
        assert app.store.health.degraded is None
