"""The scene that the scenarios share: a Hansa between a Synapse and a Prosody."""

from __future__ import annotations

from peers.hansa import Hansa
from peers.prosody import GATEWAY, Prosody
from peers.synapse import MatrixUser
from peers.waiting import until

MUC = f"lobby@{GATEWAY}"
LOBBY = '\n[[rooms]]\nlinks = ["matrix:#lobby", "xmpp:lobby"]\n'


def xmpp_config(prosody: Prosody, name: str = "xmpp", gateway: str = GATEWAY) -> str:
    """The table of a component."""
    return f"""
[networks.{name}]
plugin = "xmpp"
component = "{gateway}"
port = {prosody.component_port}
secret = "{prosody.secret}"
"""


async def wait_linked(hansa: Hansa, rooms: int = 1) -> None:
    """Every network is up and the configured rooms are linked."""

    async def ready() -> bool:
        status = await hansa.run("status")
        linked = [r for r in await hansa.run("rooms", "ls") if len(r["links"]) > 1]
        return all(n["state"] == "up" for n in status["networks"]) and len(linked) >= rooms

    await until("Hansa's networks are up and its rooms linked", ready)


async def wait_matrix_member(user: MatrixUser, room: str, name: str) -> str:
    """Waits until a user of that display name is joined; returns their user id."""

    async def there() -> str:
        return next((u for u, n in (await user.members(room)).items() if n == name), "")

    return await until(f"{name} in {room}", there)


async def wait_matrix_messages(
    user: MatrixUser, room: str, sender: str, texts: list[str], seconds: float = 60.0
) -> None:
    """Wait until ``sender`` has said exactly these, each once and in this order."""
    got: list[str] = []

    async def all_there() -> bool:
        nonlocal got
        got = await user.bodies(room, sender)
        return len(got) >= len(texts)

    await until(f"{len(texts)} messages by {sender}", all_there, seconds)
    assert got == texts
