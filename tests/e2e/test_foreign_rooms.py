"""A room of Prosody's own MUC service, linked to a room on a real Synapse."""

from __future__ import annotations

import pytest
from e2e.three_servers import wait_linked, wait_matrix_member, wait_matrix_messages, xmpp_config
from peers.prosody import MUC_SERVICE

pytestmark = pytest.mark.e2e
ROOM = f"garden@{MUC_SERVICE}"
LINKS = f'\n[[rooms]]\nlinks = ["matrix:#garden", "xmpp:{ROOM}"]\n'


async def test_people_talk_through_a_room_elsewhere(prosody, hansa, matrix_user, xmpp_user):
    juliet = await xmpp_user("juliet")
    await juliet.join(ROOM, "Juliet")
    server = await hansa(xmpp_config(prosody) + LINKS)
    await wait_linked(server)
    alice = await matrix_user("alice")
    room = await alice.join(f"#garden:{server.name}")
    ghost = await wait_matrix_member(alice, room, "Juliet")
    await alice.say(room, "hello from Matrix")
    await juliet.until("the message", lambda: "hello from Matrix" in juliet.bodies(ROOM))
    (said,) = [e for e in juliet.messages(ROOM) if "hello" in (e.findtext("{*}body") or "")]
    assert said.get("from") != f"{ROOM}/hansa"
    juliet.say(ROOM, "hello from XMPP")
    await wait_matrix_messages(alice, room, ghost, ["hello from XMPP"])
    assert juliet.bodies(ROOM) == ["hello from Matrix", "hello from XMPP"]
