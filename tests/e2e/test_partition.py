"""E8 with real peers: both sides go on while they cannot reach each other, and agree afterwards."""

from __future__ import annotations

import pytest
from e2e.three_servers import MUC, wait_linked, wait_matrix_member, xmpp_config
from peers.synapse import Synapse
from peers.tcp_cutter import TcpCutter
from peers.waiting import until

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_power_and_membership_change_on_both_sides_of_a_partition(
    version, ca, tmp_path, hansa, prosody, xmpp_user, local_user
):
    to_synapse, to_hansa = TcpCutter(), TcpCutter()
    synapse = Synapse(tmp_path / "synapse", ca, seen_at=to_synapse.port)
    try:
        await synapse.start()
        await to_synapse.lay(synapse.fed_port)
        server = await hansa(xmpp_config(prosody), seen_at=to_hansa.port)
        await to_hansa.lay(server.port)
        await wait_linked(server, rooms=0)
        alice = await local_user(synapse, "alice")
        room = await alice.create_room(version, room_alias_name="verona")
        await server.run("rooms", "create", f"matrix:#verona:{synapse.name}", "xmpp:lobby")
        people, ghosts = {}, {}
        for nick in ("Juliet", "Romeo", "Tybalt"):
            people[nick] = await xmpp_user(nick.lower())
            await people[nick].join(MUC, nick)
            ghosts[nick] = await wait_matrix_member(alice, room, nick)
        levels = (await alice.state(room))["m.room.power_levels", ""]["content"]
        await alice.set_state(
            room, "m.room.power_levels", {**levels, "users": {**levels["users"], ghosts["Juliet"]: 50}}
        )
        await alice.say(room, "you may")
        await people["Juliet"].until("it", lambda: "you may" in people["Juliet"].bodies(MUC))

        for cable in (to_synapse, to_hansa):
            await cable.cut()
        await alice.set_state(room, "m.room.power_levels", levels)
        await alice.set_state(room, "m.room.topic", {"topic": "by Alice"})
        await alice.ban(room, ghosts["Romeo"])
        await alice.kick(room, ghosts["Tybalt"])
        juliet, romeo, tybalt = people.values()
        juliet.set_subject(MUC, "by Juliet")
        romeo.raw(f"<presence to='{MUC}/Montague'/>")
        assert await romeo.verdict(romeo.say(MUC, "banned where I cannot hear it"), MUC) is None
        tybalt.leave(MUC, "Tybalt")
        await juliet.until("Tybalt gone", lambda: "Tybalt" not in juliet.occupants(MUC))
        await tybalt.join(MUC, "Prince")
        mercutio = await xmpp_user("mercutio")
        await mercutio.join(MUC, "Mercutio")

        for cable in (to_synapse, to_hansa):
            await cable.mend()
        assert await juliet.verdict(juliet.say(MUC, "is it over?"), MUC) is None
        await until("Alice hears", lambda: _says(alice, room, "is it over?"), 90)
        ours, theirs = synapse.signer(), server.signer()

        async def agreed():
            last = await alice.say(room, "it is over")
            await juliet.until("the end", lambda: "it is over" in juliet.bodies(MUC), 60)
            mine = await ours.state_ids(server.name, room, last)
            return mine == await theirs.state_ids(synapse.name, room, last)

        await until("both have one state", agreed, 60)
        state = await alice.state(room)
        assert state["m.room.power_levels", ""]["content"]["users"].get(ghosts["Juliet"], 0) == 0
        assert state["m.room.member", ghosts["Romeo"]]["content"]["membership"] == "ban"
        shown = await server.run("rooms", "show", f"matrix:{room}")
        assert shown["topic"] == state["m.room.topic", ""]["content"]["topic"]
        listed = {p["user"]: p["membership"] for p in shown["people"]}
        for (kind, user), event in state.items():
            if kind == "m.room.member" and user == alice.id:
                assert listed[f"matrix:{user}"] == event["content"]["membership"]
        for nick, ghost in ghosts.items():
            assert (
                listed[f"xmpp:{people[nick].bare}"] == state["m.room.member", ghost]["content"]["membership"]
            )
    finally:
        synapse.stop()
        for cable in (to_synapse, to_hansa):
            await cable.cut()


async def _says(user, room, text):
    return text in await user.bodies(room)
