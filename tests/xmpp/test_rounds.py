"""A flood on the component's link takes its time of each round of the event loop and no more."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from hansa_xmpp import Config
from hansa_xmpp.component import _Stream
from xmpp.stanzas import GW, NS

_STANZA = b"<message from='a@x.example/b' to='lobby@gw.example'><body>x</body></message>"


class Round:
    """A loop whose clock moves when a stanza is handled, and whose callbacks run when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.soon: list[Any] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, act: Any, *given: Any) -> Any:
        self.soon.append(lambda: act(*given))
        return SimpleNamespace(cancel=lambda: None)

    def create_future(self) -> asyncio.Future[str]:
        return asyncio.get_running_loop().create_future()

    def run(self) -> None:
        due, self.soon = self.soon, []
        for act in due:
            act()


async def test_what_comes_many_times_in_one_round_has_one_share_of_it():
    loop, taken, reading = Round(), 0, True

    def on_stanza(_: object) -> None:
        nonlocal taken
        taken += 1
        loop.now += 0.001

    def read(on: bool) -> None:
        nonlocal reading
        reading = on

    listener: Any = SimpleNamespace(on_stanza=on_stanza, on_oversized=None, on_unknown=None)
    stream = _Stream(Config(component=GW, secret="s"), listener)
    stream.loop = loop  # type: ignore[assignment]
    stream.transport = SimpleNamespace(  # type: ignore[assignment]
        set_write_buffer_limits=lambda high: None,
        is_closing=lambda: False,
        write=lambda data: None,
        pause_reading=lambda: read(False),
        resume_reading=lambda: read(True),
    )
    stream.init_parser()
    stream.data_received(f"<s:stream xmlns='{NS}' xmlns:s='http://etherx.jabber.org/streams'>")
    sent = 0
    while reading and sent < 50:  # a loop reads again and again while there is something to read
        stream.data_received(_STANZA)
        sent += 1
    assert sent < 50
    while stream._unread or loop.soon:
        before = taken
        loop.run()
        assert taken - before <= 3
    assert taken == sent
    assert reading
