"""E10: two organizations' Matrix networks in one process, which meet only as strangers would."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
from e2e.three_servers import LOBBY, MUC, wait_linked, wait_matrix_member, xmpp_config
from peers.hansa import Hansa
from peers.prosody import Prosody
from peers.signed import Signer
from peers.waiting import until

pytestmark = pytest.mark.e2e

EAST, WEST = "gw.x.example", "west.x.example"
PLAZA = f"plaza@{WEST}"


@pytest.fixture
async def prosody(ca, tmp_path) -> AsyncIterator[Prosody]:
    server = await Prosody(tmp_path / "prosody", ca, EAST, WEST).start()
    yield server
    await server.stop()


def western(server: Hansa) -> str:
    """The second organization: its own name, key and certificate."""
    server.write_key("west.key")
    chain, key = server.ca.issue(f"west-{server.port}", "localhost")
    return f"""
[networks.west]
plugin = "matrix"
server_name = "localhost:{server.port}"
signing_key = "west.key"
tls = {{ certificate = "{chain}", key = "{key}" }}
"""


async def test_two_organizations_in_one_process(ca, hansa, prosody, synapse, matrix_user, xmpp_user):
    tables = xmpp_config(prosody) + xmpp_config(prosody, "xmpp_west", WEST)
    secret = '\n[[rooms]]\nlinks = ["matrix:#secret", "xmpp:secret"]\n'
    server = await hansa(lambda made: western(made) + tables + LOBBY + secret)
    await wait_linked(server, rooms=2)
    west = f"localhost:{server.port}"
    await server.run("rooms", "create", f"west:#lobby:{server.name}", "xmpp_west:plaza")

    juliet, romeo = await xmpp_user("juliet"), await xmpp_user("romeo")
    alice = await matrix_user("alice")
    room = await alice.join(f"#lobby:{server.name}")
    await juliet.join(MUC, "Juliet")
    await romeo.join(PLAZA, "Romeo")
    assert (await wait_matrix_member(alice, room, "Juliet")).endswith(f":{server.name}")
    assert (await wait_matrix_member(alice, room, "Romeo")).endswith(f":{west}")

    juliet.say(MUC, "from the east")
    await romeo.until("Juliet", lambda: "from the east" in romeo.bodies(PLAZA))
    romeo.say(PLAZA, "from the west")
    await juliet.until("Romeo", lambda: "from the west" in juliet.bodies(MUC))
    await alice.say(room, "from Synapse")
    for user, muc in ((juliet, MUC), (romeo, PLAZA)):
        await user.until("Alice", lambda user=user, muc=muc: "from Synapse" in user.bodies(muc))
        assert user.bodies(muc) == ["from the east", "from the west", "from Synapse"]
    await until("Alice reads both", lambda: _count(alice, room, 3))

    # The core rooms are two, of one Matrix network each, and the west knows nothing of the other room.
    linked = [{x["link"].partition(":")[0] for x in r["links"]} for r in await server.run("rooms", "ls")]
    assert sorted(map(sorted, linked)) == [["matrix", "xmpp"], ["matrix", "xmpp"], ["west", "xmpp_west"]]
    hidden = next(
        x["link"].partition(":")[2]
        for r in await server.run("rooms", "ls")
        for x in r["links"]
        if x["link"].startswith("matrix:") and not x["link"].endswith(room)
    )
    asker = synapse.signer()
    for name, status in ((server.name, 403), (west, 404)):
        code, _ = await asker.request("GET", name, f"/_matrix/federation/v1/state/{hidden}?event_id=$x")
        assert code == status, name
    alias = f"/_matrix/federation/v1/query/directory?room_alias=%23secret%3A127.0.0.1%3A{server.port}"
    assert [(await asker.request("GET", name, alias))[0] for name in (server.name, west)] == [200, 404]

    # What is signed for one is not for the other, nor is one's key the other's.
    western_signer = Signer(west, server.folder / "matrix.key", ca.certificate)
    code, answer = await western_signer.request("GET", server.name, "/_matrix/federation/v1/version2")
    assert code == 404, answer
    code, answer = await western_signer.request("GET", server.name, alias)
    assert (code, answer["errcode"]) == (401, "M_UNAUTHORIZED")
    keys = {name: await _keys(ca, name) for name in (server.name, west)}
    assert {k["server_name"] for k in keys.values()} == {server.name, west}
    assert keys[server.name]["verify_keys"] != keys[west]["verify_keys"]
    assert await _certified(ca, "localhost", server.port) == {"localhost"}
    assert await _certified(ca, "127.0.0.1", server.port) == {"127.0.0.1", "localhost"}


async def _count(user, room, count):
    return len(await user.bodies(room)) == count


async def _keys(ca, name):
    tls = ssl.create_default_context(cafile=str(ca.certificate))
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"https://{name}/_matrix/key/v2/server", ssl=tls) as answer,
    ):
        return await answer.json()


async def _certified(ca, host, port):
    """The names in the certificate that is shown to who asks for ``host``."""
    tls = ssl.create_default_context(cafile=str(ca.certificate))
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=host)
    names = {name for _, name in writer.get_extra_info("peercert")["subjectAltName"]}
    writer.close()
    return names
