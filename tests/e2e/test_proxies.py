"""The configurations of proxies that docs/clients.md gives, as they stand there but for names, ports and files."""

from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path

import aiohttp
import pytest
from peers.hansa import Hansa
from peers.process import Process, free_port
from peers.require import absent
from peers.synapse import MatrixUser
from peers.waiting import until

pytestmark = pytest.mark.e2e
DOCS = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)[1]


def nginx(folder: Path, chain: Path, key: Path, inner: int, ports: tuple[int, int]) -> list[str]:
    server = block("nginx").replace("127.0.0.1:8008", f"127.0.0.1:{inner}")
    server = server.replace("/etc/ssl/example.org.pem", str(chain)).replace(
        "/etc/ssl/example.org.key", str(key)
    )
    server = server.replace("listen 443", f"listen 127.0.0.1:{ports[0]}").replace(
        "listen 8448", f"listen 127.0.0.1:{ports[1]}"
    )
    temporary = "".join(
        f"{name}_temp_path {folder / name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"daemon off;\nuser root;\nerror_log stderr;\npid {folder / 'pid'};\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}{server}\n}}\n"
    (folder / "nginx.conf").write_text(whole)
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]


def caddy(folder: Path, chain: Path, key: Path, inner: int, ports: tuple[int, int]) -> list[str]:
    site = block("caddy").replace("127.0.0.1:8008", f"127.0.0.1:{inner}")
    site = site.replace("/etc/ssl/example.org.pem", str(chain)).replace("/etc/ssl/example.org.key", str(key))
    site = site.replace("example.org, example.org:8448", f"127.0.0.1:{ports[0]}, 127.0.0.1:{ports[1]}")
    (folder / "Caddyfile").write_text(f"{{\n  admin off\n  auto_https disable_redirects\n}}\n{site}")
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.mark.parametrize("proxy", [nginx, caddy])
async def test_clients_and_servers_come_through(proxy, ca, tmp_path, matrix_user):
    command = proxy.__name__
    if not any((Path(p) / command).exists() for p in ("/usr/sbin", "/usr/bin", "/usr/local/bin")):
        absent(command, "run scripts/bootstrap-peers browser")
    clients, servers, inner = free_port(), free_port(), free_port()
    server = Hansa(
        tmp_path / "hansa", ca, f"public_base_url = 'https://127.0.0.1:{clients}'\n", seen_at=servers
    )
    text = server.config.read_text()
    listen = f'listen = ["https://127.0.0.1:{server.port}"]'
    plain = f'listen = ["http://127.0.0.1:{inner}"]\ntrusted_proxies = ["127.0.0.1/32"]'
    assert listen in text
    server.config.write_text(re.sub(r"\ntls = .*", "", text.replace(listen, plain)))
    folder = tmp_path / "proxy"
    folder.mkdir()
    chain, key = ca.issue(f"proxy-{clients}", "127.0.0.1")
    process = None
    try:
        await server.start()
        process = Process(proxy(folder, chain, key, inner, (clients, servers)), folder)
        context = ssl.create_default_context(cafile=str(ca.certificate))
        url = f"https://127.0.0.1:{clients}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:

            async def up() -> bool:
                assert process is not None and process.running, process.tail()
                try:
                    async with http.get(f"{url}/.well-known/matrix/client") as answer:
                        return answer.status == 200 and (await answer.json())["m.homeserver"] == {
                            "base_url": url
                        }
                except aiohttp.ClientError:
                    return False

            await until(f"{command} answers", up)
            user = await server.account("romeo")
            who = {"type": "m.id.user", "user": user}
            login = {"type": "m.login.password", "identifier": who, "password": "pw"}
            async with http.post(f"{url}/_matrix/client/v3/login", json=login) as answer:
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
                token = (await answer.json())["access_token"]
        romeo, alice = MatrixUser(url, user, token, ca.certificate), await matrix_user("alice")
        room = await romeo.create_room(preset="public_chat", room_alias_name="a b/c")
        assert await alice.join(f"#a b/c:{server.name}") == room  # a path that must not be decoded on the way
        await alice.say(room, "through the wall")

        async def heard() -> bool:
            return "through the wall" in await romeo.bodies(room)

        await until("Alice is heard", heard)
        since = (await romeo.sync())["next_batch"]
        waiting = asyncio.ensure_future(romeo.call("GET", f"/sync?timeout=30000&since={since}"))
        await alice.say(room, "and again")
        assert room in (await waiting)["rooms"]["join"]
        mxc = await romeo.upload(b"x" * 3_000_000, "application/octet-stream", "big")
        assert len((await alice.download(mxc))[1]) == 3_000_000
        await romeo.close()
    finally:
        if process is not None:
            process.stop()
        await server.stop()
