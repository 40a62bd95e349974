"""A long burst at an ngircd that punishes floods."""

from __future__ import annotations

import pytest
from peers.irc_bridge import bridge_table, reads, wait_linked
from peers.ngircd import Ngircd
from peers.require import require_ngircd

pytestmark = pytest.mark.e2e
CHANNEL = "#lobby"
BURST = 200


@pytest.mark.parametrize("puppets", [0, 1], ids=["bridge", "puppet"])
async def test_a_server_that_punishes_floods_takes_a_burst_of_200_lines(
    installed_irc, hansa, ca, tmp_path, local_user, puppets
):
    require_ngircd()
    irc = await Ngircd(tmp_path / "strict", ca, penalty=-1).start()
    try:
        romeo = await irc.user("Romeo")
        await romeo.join(CHANNEL)
        # Hansa's own limit is off: what the server holds back has to be enough.
        server = await hansa(lambda made: bridge_table(made, irc, puppets=puppets))
        await wait_linked(server)
        ann = await local_user(server, "ann")
        room = await ann.join(f"#lobby:{server.name}")
        for number in range(BURST):
            await ann.say(room, f"line {number}")
        before = "" if puppets else "<ann> "
        last = f"{before}line {BURST - 1}"
        await romeo.until("the last line", lambda: last in romeo.texts(CHANNEL), 400)
        lines = [text for text in romeo.texts(CHANNEL) if "line " in text]
        assert lines == [f"{before}line {number}" for number in range(BURST)]
        gone = [line for line in romeo.lines if " QUIT " in line]
        assert gone == []
        romeo.say(CHANNEL, "still here")
        await reads(ann, room, "still here")
        await romeo.close()
    finally:
        await irc.stop()
