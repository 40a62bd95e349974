"""The account of the bridge at real services: SASL PLAIN by InspIRCd and Atheme."""

from __future__ import annotations

import asyncio

import pytest
from peers.irc_services import IrcServices
from peers.waiting import until

pytestmark = pytest.mark.e2e
TABLE = """
[networks.irc]
plugin = "irc"
host = "127.0.0.1"
port = {port}
transport = "tcp"
sasl_account = "bridge"
sasl_password = "{password}"
"""


async def state(server) -> tuple[str, str]:
    networks = (await server.run("status"))["networks"]
    (irc,) = [one for one in networks if one["id"] == "irc"]
    return irc["state"], irc.get("text", "")


async def test_the_bridge_logs_in_with_its_account_and_with_no_other_password(installed_irc, hansa, tmp_path):
    irc = await IrcServices(tmp_path / "services").start()
    try:
        async with asyncio.timeout(60):
            await irc.register("bridge", "open-sesame")
        good = await hansa(TABLE.format(port=irc.port, password="open-sesame"))

        async def is_up():
            return (await state(good))[0] == "up"

        await until("the bridge is logged in", is_up)
        bad = await hansa(TABLE.format(port=irc.port, password="open-barley"))

        async def is_refused():
            name, text = await state(bad)
            return name == "connecting" and "SASL" in text

        await until("the wrong password is refused", is_refused)
    finally:
        await irc.stop()
