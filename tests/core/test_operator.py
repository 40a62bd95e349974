"""The work of an operator: init, check, run, ask, reload, stop. A real process, driven by the command
line.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import stat
import sys
import time
from pathlib import Path

import aiohttp
import pytest
from hansa import __version__
from hansa.cli.init import render_config
from hansa.cli.main import main
from peers.hansa import CommandFailed
from peers.process import free_port
from peers.waiting import until

ROOT = Path(__file__).parents[2]


async def command(*arguments: str, cwd: Path | None = None) -> tuple[int, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hansa",
        *arguments,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await child.communicate()
    return child.returncode or 0, out.decode()


@pytest.mark.timeout(60)
async def test_init_makes_what_check_finds_good_and_run_runs(tmp_path):
    port = free_port()
    code, said = await command("init", "house", "--name", f"localhost:{port}", cwd=tmp_path)
    assert code == 0, said
    folder = tmp_path / "house"
    for secret in (folder / "matrix.key", folder / "tls" / "key.pem"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600, secret
    assert f"localhost:{port} at port {port}" in said
    code, said = await command("check", "-c", "house/hansa.toml", cwd=tmp_path)
    assert (code, said.strip()) == (0, "house/hansa.toml is good: 1 network, 0 policies, 0 rooms")
    code, said = await command("init", "house", cwd=tmp_path)
    assert code == 1 and "exists already: nothing was written" in said

    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hansa", "run", cwd=folder, stdout=asyncio.subprocess.PIPE
    )
    lines = []
    while not lines or lines[-1] != "network matrix: up":
        lines.append((await child.stdout.readline()).decode().strip())
        assert lines[-1], lines
    assert lines[:2] == [f"listening on https://localhost:{port}".replace("localhost", "127.0.0.1"), "ready"]
    tls = ssl.create_default_context(cafile=str(folder / "tls" / "fullchain.pem"))
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"https://localhost:{port}/_matrix/federation/v1/version", ssl=tls) as answer,
    ):
        assert (await answer.json())["server"]["name"] == "Hansa"
    child.send_signal(signal.SIGTERM)
    rest = (await child.stdout.read()).decode()
    assert await child.wait() == 0 and rest.split() == ["stopping", "stopped"]


def test_a_name_without_a_port_gets_the_lines_that_a_domain_needs(tmp_path):
    from hansa.cli.init import init

    said = init(tmp_path / "a", "example.org")
    for line in ("_matrix-fed._tcp.example.org.  IN SRV", "/.well-known/matrix/server", "fullchain.pem"):
        assert line in said
    assert 'server_name = "example.org"' in (tmp_path / "a" / "hansa.toml").read_text()


@pytest.mark.parametrize("name", ["", "two words", "x/y", "a:b:c", "x:port"])
def test_what_is_no_server_name_is_refused(tmp_path, name):
    from hansa.cli.init import init
    from hansa.model.errors import ConfigError

    with pytest.raises(ConfigError, match="not a server name"):
        init(tmp_path / "a", name)
    assert not (tmp_path / "a").exists()


async def test_the_example_is_what_init_writes_and_all_its_settings_exist(tmp_path):
    text = (ROOT / "hansa.example.toml").read_text()
    assert text == render_config("example.org")
    await command("init", "x", "--name", "example.org", cwd=tmp_path)
    everything = re.sub(r"^# (?=[\w\[])(?=.*[=\]])", "", text, flags=re.MULTILINE)
    everything = everything.replace('ca_file = "tls/ca.pem"', "")
    assert everything.count("\n#") < text.count("\n#")
    (tmp_path / "x" / "hansa.toml").write_text(everything)
    (tmp_path / "x" / "component.secret").write_text("s")
    (tmp_path / "x" / "component.secret").chmod(0o600)
    code, said = await command("check", "-c", "x/hansa.toml", cwd=tmp_path)
    assert code == 0, said
    assert "2 networks, 1 policy, 1 room" in said


MISTAKES = """
[server]
listen = ["ftp://x", "https://0.0.0.0:8448"]
tls = { certificate = "nowhere.pem", key = "nowhere.key" }
colour = "blue"
[store]
url = "postgres:x"
[networks.matrix]
plugin = "matrix"
server_name = "not a name"
signing_key = "absent.key"
[networks.office]
plugin = "xmpp"
component = "a b"
secret = { env = "HANSA_TEST_NOT_SET" }
port = 0
[networks.Bad]
plugin = "telex"
[policies.lists]
plugin = "governance"
mode = "maybe"
word = ["x"]
[[rooms]]
links = ["nowhere:#x"]
[extra]
"""


@pytest.mark.parametrize(("url", "extra"), [("postgres://h/d", "postgres"), ("mongodb://h/d", "mongo")])
def test_check_names_the_extra_that_a_store_lacks(tmp_path, monkeypatch, capsys, url, extra):
    from hansa.cli.main import main

    assert main(["init", str(tmp_path / "x")]) == 0
    config = tmp_path / "x" / "hansa.toml"
    config.write_text(config.read_text().replace("sqlite:hansa.db", url))
    assert main(["check", "-c", str(config)]) == 0
    monkeypatch.setattr("hansa.store.find_spec", lambda _: None)
    capsys.readouterr()
    assert main(["check", "-c", str(config)]) == 2
    assert f"install hansa[{extra}]" in capsys.readouterr().out


def test_status_says_what_there_is_none_of():
    from hansa.cli.show import status

    said = status({"networks": [], "policies": [], "rooms": 0, "store": {"state": "up"}})
    assert said == "store: up\n\nnetworks: none\n\npolicies: none\n\nrooms: 0"


NO_SOCKET = """import os, sys
sys.addaudithook(lambda event, _: event == "socket.__new__" and os._exit(9))
"""


async def test_check_names_every_mistake_with_its_path_and_opens_no_socket(tmp_path):
    (tmp_path / "hansa.toml").write_text(MISTAKES)
    code, said = await command("check", "--json", "-c", str(tmp_path / "hansa.toml"))
    assert code == 2
    paths = {mistake["path"] for mistake in json.loads(said)["mistakes"]}
    expected = {
        "server.listen",
        "server.tls",
        "server.colour",
        "store.url",
        "networks.matrix.server_name",
        "networks.matrix.signing_key",
        "networks.office.component",
        "networks.office.secret",
        "networks.office.port",
        "networks.Bad",
        "networks.Bad.plugin",
        "policies.lists.mode",
        "policies.lists.word",
        "rooms.0.links",
        "extra",
    }
    assert expected - paths == set()
    code, said = await command("run", "-c", str(tmp_path / "hansa.toml"))
    assert code == 2 and "networks.office.port" in said
    for more, expected in (("", 2), ("import socket; socket.socket()", 9)):
        watched = tmp_path / "watched.py"
        watched.write_text(f"{NO_SOCKET}{more}\nfrom hansa.cli.main import main\nsys.exit(main())\n")
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            str(watched),
            "check",
            "-c",
            str(tmp_path / "hansa.toml"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await child.wait() == expected


async def test_the_running_server_answers_over_its_socket_alone(hansa):
    server = await hansa('\n[policies.words]\nplugin = "governance"\nwords = ["secret"]\n')
    created = await server.run("rooms", "create", "matrix:#here")
    (listed,) = await server.run("rooms", "ls")
    assert listed["room"] == created["room"] and listed["links"][0]["authority"]
    shown = await server.run("rooms", "show", listed["room"])
    assert [p["user"] for p in shown["people"]] == [f"matrix:@hansa:{server.name}"]
    assert {p["name"]: p["enabled"] for p in await server.run("plugins")} == {
        "matrix": ["networks.matrix"],
        "xmpp": [],
        "governance": ["policies.words"],
    }
    said = {"bad": "a secret", "good": "nothing"}
    for kind, text in said.items():
        asked = ("--room", listed["room"], "--sender", "matrix:@a:b", "--text", text)
        tested = await server.run("policy", "test", *asked)
        assert tested["action"] == {"bad": "deny", "good": "allow"}[kind]
        link = listed["links"][0]["link"]
        assert tested["out"] == {link: "allow"}, "what leaves was judged by its words where it came in"
        assert [one["way"] for one in tested["policies"]] == ["in", f"out to {link}"]
    assert await server.run("media", "revoke-links") == {"revoked": True}
    assert stat.S_IMODE((server.folder / "hansa.sock").stat().st_mode) == 0o600
    with pytest.raises(CommandFailed, match="rooms ls"):
        await server.run("rooms", "show", "nowhere")
    with pytest.raises(CommandFailed, match="no decision"):
        await server.run("policy", "explain", "d-none")
    with pytest.raises(CommandFailed, match="no event"):
        await server.run("where", "$none")
    await server.run("rooms", "unlink", listed["links"][0]["link"])
    assert (await server.run("rooms", "ls"))[0]["links"] == []
    for listing in (("status",), ("plugins",), ("rooms", "ls"), ("deliveries", "ls"), ("policy", "log")):
        code, text = await command(*listing, "-c", str(server.config))
        assert code == 0 and text.strip(), listing
    await server.stop()
    with pytest.raises(CommandFailed, match="no Hansa is running"):
        await server.run("status")


async def test_a_policy_is_tried_on_the_way_out_too(hansa):
    """A denied server in the room hears nothing: `policy test` says what a person who speaks is told."""
    lists = '\n[policies.lists]\nplugin = "governance"\ndeny_servers = ["127.0.0.1"]\n'
    server = await hansa()
    created = await server.run("rooms", "create", "matrix:#here")
    server.config.write_text(server.base + lists)
    await server.run("reload")
    asked = ("--room", created["room"], "--sender", "matrix:@a:b.example", "--text", "x")
    tested = await server.run("policy", "test", *asked)
    assert tested["action"] == "allow" and set(tested["out"].values()) == {"deny"}
    _, text = await command("policy", "test", *asked, "-c", str(server.config))
    assert f"out to {next(iter(tested['out']))}: deny" in text and "deny_servers: 127.0.0.1" in text


async def test_health_and_metrics(hansa):
    port = free_port()
    server = await hansa(lambda made: made.tables_before(f'metrics = "127.0.0.1:{port}"'))
    await server.run("rooms", "create", "matrix:#here")
    async with aiohttp.ClientSession() as http:

        async def healthy():
            async with http.get(f"http://127.0.0.1:{port}/health") as answer:
                return (await answer.json())["ok"]

        await until("every network is up", healthy)
        async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
            text = await answer.text()
        assert re.search(r"^hansa_\w+", text, re.MULTILINE)
        async with http.get(f"http://127.0.0.1:{port}/rooms") as answer:
            assert answer.status == 404
    local = aiohttp.UnixConnector(str(server.folder / "hansa.sock"))
    async with (
        aiohttp.ClientSession(connector=local) as http,
        http.get("http://localhost/metrics") as answer,
    ):
        assert answer.status == 200
    seed = (server.folder / "matrix.key").read_text().split()[2]
    assert seed not in text and "ed25519" not in text


async def test_policies_and_certificates_are_read_again(hansa, ca):
    words = '\n[policies.words]\nplugin = "governance"\nwords = ["{word}"]\n'
    server = await hansa(words.format(word="alpha"))
    created = await server.run("rooms", "create", "matrix:#here")
    asked = ("--room", created["room"], "--sender", "matrix:@a:b", "--text")

    async def denied(text: str) -> bool:
        return (await server.run("policy", "test", *asked, text))["action"] == "deny"

    assert await denied("alpha") and not await denied("beta")
    first = await _serial(server, ca)
    ca.issue(f"hansa-{server.port}", "127.0.0.1", "localhost")
    server.config.write_text(server.base + words.format(word="beta"))
    reloaded = await server.run("reload")
    assert reloaded == {"reloaded": ["policy words", "certificates"], "needs_restart": []}
    assert await denied("beta") and not await denied("alpha")
    assert await _serial(server, ca) != first

    server.config.write_text(server.base + words.format(word="gamma"))
    server.hang_up()
    await until("SIGHUP is heard", lambda: denied("gamma"))
    more = server.base.replace('plugin = "matrix"', 'plugin = "matrix"\npresence_enabled = true')
    server.config.write_text(more + words.format(word="gamma"))
    found = await server.run("reload")
    assert found == {
        "reloaded": ["policy words", "certificates", "network matrix"],
        "needs_restart": [],
    }
    more = server.base.replace("[server]", "[server]\nconnections = 2000", 1)
    server.config.write_text(more + words.format(word="gamma"))
    assert (await server.run("reload"))["needs_restart"] == ["server.connections"]
    server.hang_up()
    await until("what waits for a restart is told", lambda: _waits(server))
    asked_by_name = ("policy", "test", "--room", "matrix:#here", *asked[2:])
    assert (await server.run(*asked_by_name, "gamma"))["action"] == "deny"

    server.config.write_text(server.base + words.format(word="delta") + "\n[nonsense]\n")
    with pytest.raises(CommandFailed, match="nonsense"):
        await server.run("reload")
    server.hang_up()
    await until("the mistake is told", lambda: _told(server))
    assert await denied("gamma")


async def _waits(server) -> bool:
    return "changes with a restart: server.connections" in server.log()


async def _told(server) -> bool:
    return "not reloaded, nothing has changed" in server.log()


async def _serial(server, ca) -> int:
    from cryptography import x509

    tls = ssl.create_default_context(cafile=str(ca.certificate))
    _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls)
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(raw).serial_number


async def test_a_network_that_waits_is_named_with_what_to_do(hansa):
    port = free_port()
    table = f'\n[networks.office]\nplugin = "xmpp"\ncomponent = "gw.x"\nport = {port}\nsecret = "hush"\n'
    server = await hansa(table)

    async def down():
        found = {n["id"]: n for n in (await server.run("status"))["networks"]}
        return found["office"] if found["office"]["state"] == "down" else None

    office = await until("the component fails", down)
    assert f"cannot connect to 127.0.0.1:{port}" in office["text"]
    began = time.monotonic()
    assert await server.stop() == 0
    assert time.monotonic() - began < 10
    assert "hush" not in server.log()
    assert f"network office: down - cannot connect to 127.0.0.1:{port}" in server.log()


def test_a_port_that_is_taken_and_a_folder_in_use_are_named(tmp_path):
    import socket
    import subprocess

    from hansa.cli.init import init

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        init(tmp_path / "x", f"localhost:{port}")
        ran = subprocess.run(
            [sys.executable, "-m", "hansa", "run"],
            cwd=tmp_path / "x",
            capture_output=True,
            text=True,
            env={**os.environ},
            timeout=30,
        )
    assert ran.returncode == 1
    assert "cannot start:" in ran.stdout and str(port) in ran.stdout and "Errno" not in ran.stdout


def test_the_command_says_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == f"hansa {__version__}"
