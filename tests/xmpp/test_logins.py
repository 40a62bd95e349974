"""Which people of XMPP may log in elsewhere, and whether the chat with the component is private."""

from __future__ import annotations

import pytest
from hansa.store.memory import MemoryDisk
from xmpp.xmpp_server import GW, xmpp_server


@pytest.mark.parametrize(
    ("user", "proven"),
    [
        ("juliet@x.example", True),
        ("garden@muc.y.example/juliet", False),  # an occupant of a room elsewhere
        (f"lobby@{GW}", False),  # a room
    ],
)
async def test_a_person_is_proven_by_their_server_and_by_no_nick(user, proven):
    async with xmpp_server(MemoryDisk()) as home:
        assert home.xmpp.is_proven_person(user) is proven


@pytest.mark.parametrize(
    ("host", "private"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), ("xmpp.example", False)],
)
async def test_a_chat_is_private_where_the_xmpp_server_is_on_this_machine(host, private):
    async with xmpp_server(MemoryDisk(), host=host) as home:
        assert home.xmpp.has_private_chat("juliet@x.example") is private
