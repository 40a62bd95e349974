"""Each check of LateAuthoritySuite is failed by a network that is broken in just this way, and by it alone."""

from __future__ import annotations

import asyncio

import pytest
from hansa import DeliveryRejected, Message, NativeId, OpenedRoom, RetryLater
from hansa.testing import LateAuthoritySuite

from .checks import failing, names
from .wire import Wire, WireStage, module_of


class Late(Wire):
    """Its peer reflects what it is told, unless the room is moderated."""

    decides = True

    async def open_room(self, address, *, create):
        del create
        return OpenedRoom(native=NativeId(self.ctx.id, address), authority=self.decides)

    async def propose(self, delivery):
        if not self.peer.listening:
            raise RetryLater("the peer is away")
        if getattr(self.peer, "moderated", False):
            raise DeliveryRejected("the room is moderated")
        return await self.send(delivery)


class Follower(Late):
    """Opens its rooms as any network does."""

    decides = False


class Echoing(Late):
    """Submits the echo of a reflection as an event of its own."""

    async def propose(self, delivery):
        native = await super().propose(delivery)
        if isinstance(delivery.content, Message) and delivery.content.text == "proposed 3":
            await self.submit(delivery.link.native.id, "ann", delivery.content, "echo")
        return native


class Hopeful(Late):
    """Returns before the room has answered."""

    async def propose(self, delivery):
        if getattr(self.peer, "moderated", False):
            return f"hopefully-{delivery.key}"
        return await super().propose(delivery)


class Offended(Late):
    """Takes a refusal for a lost connection."""

    async def propose(self, delivery):
        try:
            return await super().propose(delivery)
        except DeliveryRejected as error:
            raise TimeoutError from error


class Stammering(Late):
    """Shows a repeated draft again."""

    async def send(self, delivery):
        if delivery.key in self.sent:
            self.tell(delivery.link.native.id, delivery.content)
        return await super().send(delivery)


class Dreaming(Late):
    """Returns for what it keeps for later, and does not notice that its peer is away."""

    async def stay_connected(self):
        await asyncio.Event().wait()

    async def propose(self, delivery):
        if not self.peer.listening:
            return f"later-{delivery.key}"
        return await super().propose(delivery)


def suite_of(network):
    class Suite(WireStage, LateAuthoritySuite):
        plugin = module_of(network)

        async def make_refuse(self, net, room):
            self.peer.moderated = True

    return Suite


class TestASoundLateAuthority(suite_of(Late)):
    pass


BROKEN = {
    Echoing: {"test_what_is_reflected_is_said_once_and_in_order"},
    Hopeful: {"test_what_is_refused_is_not_said"},
    Offended: {"test_what_is_refused_is_not_said"},
    Stammering: {"test_the_same_key_is_proposed_once"},
    Dreaming: {"test_without_a_peer_nothing_is_said"},
}


@pytest.mark.parametrize("network", BROKEN, ids=lambda network: network.__name__)
async def test_a_broken_late_authority_fails_exactly_its_check(network):
    assert await failing(suite_of(network)) == BROKEN[network]


async def test_a_network_that_only_follows_fails():
    assert "test_its_rooms_decide" in await failing(suite_of(Follower))


def test_every_check_has_a_network_that_fails_it():
    assert {*set().union(*BROKEN.values()), "test_its_rooms_decide"} == set(names(LateAuthoritySuite))
