"""A Hansa whose lobby is linked with a channel of the test's ngircd."""

from __future__ import annotations

from typing import Any

from peers.hansa import Hansa
from peers.ngircd import Ngircd
from peers.synapse import MatrixUser
from peers.waiting import until

_TABLE = """
[networks.irc]
plugin = "irc"
host = "127.0.0.1"
port = {port}
transport = "tls"
ca_file = "{ca}"
lines_per_second = {pace}
puppets = {puppets}
[[rooms]]
links = ["matrix:#lobby:{name}", "irc:#lobby"]
"""


def bridge_table(server: Hansa, irc: Ngircd, *, port: int = 0, puppets: int = 0, pace: float = 0) -> str:
    """The tables of the network and of the room, for the configuration of a Hansa."""
    return _TABLE.format(
        port=port or irc.tls_port, ca=server.ca.certificate, puppets=puppets, name=server.name, pace=pace
    )


async def wait_linked(server: Hansa) -> None:
    """Waits until the lobby has both links."""

    async def linked() -> bool:
        return any(len(room["links"]) == 2 for room in await server.run("rooms", "ls"))

    await until("the lobby is linked", linked)


async def reads(user: MatrixUser, room: str, body: str) -> dict[str, Any]:
    """Waits until a Matrix user reads a message, and returns its event."""

    async def found() -> list[dict[str, Any]]:
        return [e for e in await user.history(room) if e["content"].get("body") == body]

    return (await until(f"{body!r} is read", found))[0]
