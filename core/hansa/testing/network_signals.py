"""Tests of ``NetworkSuite`` about signals, which are never stored and may come at any time."""

from __future__ import annotations

import asyncio

from hansa.api.contracts import CarriesPresence
from hansa.model.content import Message
from hansa.model.ephemeral import MAX_PRESENCE_TEXT, PersonPresence, PresenceState
from hansa.model.ref import NativeId
from hansa.testing.network_bench import NetworkBench

_PEOPLE = ("zoe@elsewhere", "stranger@elsewhere")
_TEXTS = ("", "at lunch", "x" * MAX_PRESENCE_TEXT, "é" * MAX_PRESENCE_TEXT, "</show>&'\"<b>", ": /quit")


class SignalChecks(NetworkBench):
    """The tests of signals."""

    async def test_any_presence_is_taken(self) -> None:
        """A network that carries presence takes every state and text, of people in the room and of others,
        and the next message is shown.
        """
        async with self.stage() as stage:
            await self._says(stage, Message(text="before"))
            link = stage.app.rooms.link(NativeId("tested", stage.room))
            assert link is not None
            for person in _PEOPLE if isinstance(stage.net, CarriesPresence) else ():
                for state in PresenceState:
                    for text in _TEXTS:
                        user = NativeId("other", person)
                        presence = PersonPresence(user=user, state=state, text=text, since=1)
                        try:
                            async with asyncio.timeout(stage.within):
                                await stage.net.show_presence(link, presence)
                        except Exception as error:  # whatever it is, it is the finding
                            msg = (
                                f"show_presence failed for {presence}: {error!r}. Take every state, any text "
                                "and unknown people; what cannot be shown is left out"
                            )
                            raise AssertionError(msg) from error
            await self._says(stage, Message(text="after"))
