"""A room that Matrix has and the core does not, as where the database went away between the two commits."""

from __future__ import annotations

from urllib.parse import quote

from hansa.testing import until
from matrix.server_with_peer import THEIRS, V1, server_with_peer


async def test_what_others_ask_and_send_meanwhile_is_answered_later_and_the_room_is_linked(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("hansa_matrix.rooms.membership.room_linker._LOOKS", 1)
    async with server_with_peer(tmp_path) as house:
        context, room_id = house.app.contexts["matrix"], house.room.room_id
        await context.close_link(room_id)
        at = quote(room_id, safe="")
        joining = f"{V1}/make_join/{at}/{quote(f'@new:{THEIRS}', safe='')}?ver=12"
        assert (await house.ask("GET", joining))[1]["errcode"] == "M_LIMIT_EXCEEDED"
        status, answer = await house.send(house.forger.message(house.room, "one"))
        assert (status, answer["errcode"]) == (429, "M_LIMIT_EXCEEDED")
        await until(lambda: context.get_link(room_id) is not None)
        assert (await house.ask("GET", joining))[0] == 200
        assert await house.fate(house.forger.message(house.room, "two")) == "accepted"
