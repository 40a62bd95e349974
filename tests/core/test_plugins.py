"""Finding and opening plugins: distributions in a folder, each with its metadata as an installer leaves it."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from hansa import ConfigError, NativeId, NetworkStatus, PluginError, Router, hookimpl
from hansa.cli.main import main
from hansa.config.reader import ConfigErrors, parse
from hansa.config.settings import NetworkTable, PolicyTable
from hansa.host import loader
from hansa.setup import PolicySetup
from hansa.store.base import Collection, Put, Schema, StoreError
from hansa.testing import Actor, run_hansa
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.actor import module
from pydantic import BaseModel, ConfigDict

SOUND = """
from hansa import hookimpl
from pydantic import BaseModel, ConfigDict, Field

api = 1

class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    size: int = Field(default=1, ge=1)

class Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    word: str = ""
    inner: Inner = Inner()

class Network:
    async def start(self): ...
    async def stop(self): ...
    async def send(self, delivery): return ""

@hookimpl
def open_network(ctx):
    return Network()
"""


class Shelf:
    """A folder on the path that distributions are put into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, distribution, *entries, source=SOUND, requires=(), module=None):
        """One distribution, whose entry points all name its one module; the module's name."""
        name = module or distribution.replace("-", "_")
        (self.folder / f"{name}.py").write_text(source)
        info = self.folder / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        lines = ["Metadata-Version: 2.1", f"Name: {distribution}", "Version: 1.0"]
        (info / "METADATA").write_text("\n".join(lines + [f"Requires-Dist: {r}" for r in requires]) + "\n")
        points = "\n".join(f"{entry} = {name}" for entry in entries)
        (info / "entry_points.txt").write_text(f"[hansa.plugins]\n{points}\n")
        importlib.invalidate_caches()
        return name


@pytest.fixture
def shelf(tmp_path, monkeypatch) -> Iterator[Shelf]:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield Shelf(folder)
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", "") or "").parent == folder:
            del sys.modules[name]


def mistakes(data) -> dict[str, str]:
    with pytest.raises(ConfigErrors) as caught:
        parse(data, Path("/nowhere"), loader.load_plugin)
    return {error.path: error.reason for error in caught.value.errors}


HTTP = {"listen": ["http://127.0.0.1:8008"]}


def test_installed_is_not_enabled(shelf):
    quiet = shelf.put("acme-quiet", "quiet", source="raise RuntimeError('nobody asked for me')")
    loud = shelf.put("acme-loud", "loud")
    assert {"quiet", "loud", "matrix", "xmpp", "governance"} <= set(loader.installed_plugins())
    parse({"server": HTTP, "networks": {"one": {"plugin": "loud"}}}, shelf.folder, loader.load_plugin)
    assert loud in sys.modules and quiet not in sys.modules


def test_what_is_not_installed_is_named_with_what_is(shelf):
    shelf.put("acme-loud", "loud")
    found = mistakes({"server": HTTP, "networks": {"one": {"plugin": "lod"}}})
    assert list(found) == ["networks.one.plugin"]
    assert "no plugin named 'lod'" in found["networks.one.plugin"] and "loud" in found["networks.one.plugin"]


def test_two_distributions_with_one_name_are_refused_and_both_named(shelf):
    shelf.put("acme-loud", "loud")
    shelf.put("other-loud", "loud")
    with pytest.raises(ConfigError) as caught:
        loader.load_plugin("loud")
    assert "acme-loud (acme_loud)" in str(caught.value) and "other-loud (other_loud)" in str(caught.value)
    assert "acme_loud" not in sys.modules


def test_the_same_distribution_seen_twice_is_no_quarrel(shelf, tmp_path, monkeypatch):
    shelf.put("acme-loud", "loud")
    again = tmp_path / "again"
    again.mkdir()
    monkeypatch.syspath_prepend(again)
    Shelf(again).put("acme-loud", "loud")
    assert loader.load_plugin("loud").__name__ == "acme_loud"
    del sys.modules["acme_loud"]


@pytest.mark.parametrize(
    ("hook", "line", "wanted"),
    [
        ("async def open_network(ctx):\n    ...", 4, "must be def"),
        ("def event_committed(event):\n    ...", 4, "must be async def"),
        ("async def open_nerwork(ctx):\n    ...", 4, "unknown hook 'open_nerwork'"),
    ],
)
def test_a_hook_of_the_wrong_colour_or_name_is_refused_with_file_and_line(shelf, hook, line, wanted):
    source = f"from hansa import hookimpl\nfrom acme_good import *\n\n@hookimpl\n{hook}\n"
    shelf.put("acme-good", "good")
    name = shelf.put("acme-bad", "bad", source=source)
    with pytest.raises(PluginError) as caught:
        loader.load_plugin("bad")
    assert wanted in str(caught.value)
    assert f"{shelf.folder / name}.py:{line}" in str(caught.value)


def test_a_method_of_what_is_opened_is_held_to_the_same(shelf):
    class Wrong:
        @hookimpl
        def check(self, crossing):
            return None

    manager = loader.new_manager()
    with pytest.raises(PluginError, match=rf"'check' must be async def \({__file__}:\d+\)"):
        loader.register(manager, Wrong(), "wrong")
    assert not manager.has_plugin("wrong")


def test_an_argument_that_the_hook_lacks_is_refused_and_nothing_stays_registered():
    class Wrong:
        @hookimpl
        async def event_committed(self, event, mood):
            return None

    manager = loader.new_manager()
    with pytest.raises(PluginError, match="mood"):
        loader.register(manager, Wrong(), "wrong")
    assert not manager.has_plugin("wrong")


def test_a_name_that_is_taken_is_refused_and_its_owner_stays():
    class Watches:
        @hookimpl
        async def event_committed(self, event):
            return None

    manager, first = loader.new_manager(), Watches()
    loader.register(manager, first, "one")
    with pytest.raises(PluginError, match="'one'"):
        loader.register(manager, Watches(), "one")
    assert manager.get_plugin("one") is first
    assert [name for name, _ in loader.hook_implementations(manager, "event_committed")] == ["one"]


@pytest.mark.parametrize("api", ["0", "2", "'1'", "None", "True", "1.0"])
def test_another_api_number_is_refused(shelf, api):
    shelf.put("acme-old", "old", source=SOUND.replace("api = 1", f"api = {api}"))
    with pytest.raises(PluginError, match=r"plugin 'old' is written for api .*; this Hansa speaks \[1\]"):
        loader.load_plugin("old")


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        ("class Config(BaseModel)", "class Settings(BaseModel)", "has no Config model"),
        (
            'Config(BaseModel):\n    model_config = ConfigDict(extra="forbid", frozen=True)',
            "Config(BaseModel):",
            "forbid",
        ),
    ],
)
def test_a_config_that_is_none_or_takes_anything_is_refused(shelf, was, becomes, says):
    assert was in SOUND
    shelf.put("acme-lax", "lax", source=SOUND.replace(was, becomes))
    with pytest.raises(PluginError, match=says):
        loader.load_plugin("lax")


def test_a_missing_extra_says_what_to_install(shelf):
    requires = [
        'pydantic; extra == "irc"',
        'no-such-ircclient>=3 ; extra == "irc"',
        'no-such-other; extra == "other"',
        "no-such-needed",
    ]
    name = shelf.put("acme-chat", "irc", requires=requires)
    found = mistakes({"server": HTTP, "networks": {"one": {"plugin": "irc"}}})
    text = "plugin 'irc' needs no-such-ircclient: install acme-chat[irc]"
    assert found == {"networks.one.plugin": text}
    assert name not in sys.modules


@pytest.mark.parametrize(("plugin", "gone"), [("xmpp", "slixmpp"), ("matrix", "pynacl")])
def test_the_extras_of_hansa_itself_are_named_so(plugin, gone, monkeypatch):
    present = loader._is_installed
    monkeypatch.setattr(loader, "_is_installed", lambda name: name != gone and present(name))
    with pytest.raises(ConfigError, match=rf"needs {gone}: install hansa\[{plugin}\]"):
        loader.load_plugin(plugin)


def test_an_import_that_fails_says_what_is_missing(shelf):
    shelf.put("acme-chat", "irc", source="import no_such_module\n" + SOUND)
    with pytest.raises(ConfigError, match=r"'irc' needs no_such_module, .*reinstall acme-chat"):
        loader.load_plugin("irc")


async def test_an_import_that_fails_while_opening_says_what_is_missing(shelf):
    lazy = SOUND.replace("    return Network()", "    import no_such_module\n    return Network()")
    shelf.put("acme-chat", "irc", source=lazy)
    plugin = loader.load_plugin("irc")
    with pytest.raises(PluginError, match="acme_chat needs no_such_module"):
        async with run_hansa({"one": (plugin, plugin.Config())}):
            pass


def test_unknown_keys_are_named_by_their_toml_path(shelf):
    shelf.put("acme-loud", "loud")
    found = mistakes(
        {
            "server": {**HTTP, "lisen": []},
            "storage": {},
            "networks": {"one": {"plugin": "loud", "wrod": "", "inner": {"sise": 1, "size": 0}}},
            "policies": {"p": {"plugin": "governance", "mod": "shadow", "rate": {"events": 1, "per": 2}}},
            "rooms": [{"link": ["one:a"]}],
        }
    )
    unknown = "there is no such setting"
    assert found == {
        "storage": "there is no such table",
        "server.lisen": unknown,
        "networks.one.wrod": unknown,
        "networks.one.inner.sise": unknown,
        "networks.one.inner.size": "must be 1 or more",
        "policies.p.mod": unknown,
        "policies.p.rate.per": unknown,
        "policies.p.rate.seconds": "must be given",
        "rooms.0.link": unknown,
        "rooms.0.links": "must be given",
    }


def test_check_prints_each_mistake_with_its_path(shelf, tmp_path, capsys):
    shelf.put("acme-loud", "loud")
    file = tmp_path / "hansa.toml"
    head = '[server]\nlisten = ["http://127.0.0.1:1"]\n[networks.one]\nplugin = "loud"\n'
    file.write_text(head + "wrod = 1\n")
    assert main(["check", "-c", str(file)]) == 2
    assert f"{file}: networks.one.wrod: there is no such setting" in capsys.readouterr().out
    assert main(["check", "--json", "-c", str(file)]) == 2
    said = json.loads(capsys.readouterr().out)
    assert said["mistakes"] == [{"path": "networks.one.wrod", "reason": "there is no such setting"}]
    file.write_text(head)
    assert main(["check", "-c", str(file)]) == 0


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("connections", 0, "must be 64 or more"),
        ("connections", "many", "must be a whole number"),
        ("connections_per_address", -1, "must be 8 or more"),
        ("connections_per_subnet", 1.5, "must be a whole number"),
        ("body_memory", 10**9, "must be 65536 or less"),
        ("body_memory", True, "must be a number, not true"),
        ("connections_per_address", 5000, "must be 4096 or less, as connections is 4096"),
        ("connections_per_subnet", 100_000, "must be 4096 or less, as connections is 4096"),
        ("decisions_days", [], "must be a whole number"),
        ("decisions_rows", 5, "must be 1000 or more"),
        ("decisions_of_strangers", 5, "must be 10 or more"),
        ("private_networks", "10.0.0.0/8", "must be a list"),
        ("metrics", "9100", "'9100' is not like 127.0.0.1:9100"),
    ],
)
def test_a_value_that_is_not_taken_is_explained_in_words(key, value, said):
    assert mistakes({"server": {**HTTP, key: value}}) == {f"server.{key}": said}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("admin_contact", "admin@example.org", "'admin@example.org' is not like mailto:admin@example.org"),
        ("revoked_keys", ["x"], "must be an ed25519 public key: 32 bytes in base64"),
        ("gap_patience", float("inf"), "must be 86400.0 or less"),
        ("max_staged_pdus", 10, "must be 50 or more"),
        ("media_quota_per_user", "5GiB", "must be a whole number"),
        ("media_reserve", -1, "must be 0 or more"),
        ("media_quota_remote", True, "must be a number, not true"),
        ("gap_patience", False, "must be a number, not false"),
        ("presence_enabled", 1, "must be true or false, not 1"),
        ("operator", "alice", "'alice' is not like @name:example.org"),
        ("naming_level", 101, "must be 100 or less"),
        ("public_reading", "perhaps", "must be true or false"),
    ],
)
def test_what_the_matrix_plugin_does_not_take_is_explained_in_words(key, value, said):
    found = mistakes({"server": HTTP, "networks": {"matrix": {"plugin": "matrix", key: value}}})
    assert [text for path, text in found.items() if path.startswith(f"networks.matrix.{key}")] == [said]


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ("max_staged_pdus_per_room", "max_staged_pdus"),
        ("max_upload_size", "media_quota_per_user"),
        ("media_quota_per_server", "media_quota_remote"),
    ],
)
def test_a_part_is_not_larger_than_its_whole(tmp_path, part, whole):
    key = tmp_path / "matrix.key"
    key.touch(0o600)
    key.write_text("ed25519 a_1 " + "A" * 43)
    table = {"plugin": "matrix", "server_name": "x.example", "signing_key": str(key), part: 500, whole: 400}
    said = f"{part} is more than {whole}, of which it is a part"
    assert mistakes({"server": HTTP, "networks": {"matrix": table}}) == {"networks.matrix": said}
    good = {"server": HTTP, "networks": {"matrix": {**table, whole: 500}}}
    assert getattr(parse(good, tmp_path, loader.load_plugin).networks[0].options, whole) == 500


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("deny_servers", "https://evil.example", "'https://evil.example' is not the name of a server: say evil.example"),
        ("allow_servers", "https://*.good.example:8448/x", "'https://*.good.example:8448/x' is not the name of a server: say *.good.example"),
        ("deny_servers", "@mallory:evil.example", "'@mallory:evil.example' is not the name of a server"),
        ("deny_servers", "10.0.0.0/8", "'10.0.0.0/8' is not the name of a server"),
        ("deny_servers", "a b", "'a b' is not the name of a server"),
        ("deny_users", "mallory", "'mallory' is not the id of a person: say @name:server for Matrix, name@server for XMPP"),
        ("allow_users", "https://x/@a:b", "'https://x/@a:b' is not the id of a person: say @name:server for Matrix, name@server for XMPP"),
    ],
)  # fmt: skip
def test_a_name_that_could_never_match_is_a_mistake(key, value, said):
    table = {"plugin": "governance", key: [value]}
    assert mistakes({"server": HTTP, "policies": {"p": table}}) == {f"policies.p.{key}.0": said}


def test_names_and_globs_of_every_kind_are_taken():
    servers = [
        "*",
        "*.evil.example",
        "evil.example:8448",
        "[::1]",
        "2001:db8::*",
        "192.0.2.?",
        "bücher.example",
    ]
    users = ["@mallory:*", "*@evil.example", "*", "@a b:x".replace(" ", "_"), "@*:evil.example"]
    table = {"plugin": "governance", "deny_servers": servers, "deny_users": users}
    parse({"server": HTTP, "policies": {"p": table}}, Path.cwd(), loader.load_plugin)


async def test_a_module_without_the_opener_is_refused(shelf):
    shelf.put("acme-loud", "loud")
    plugin = loader.load_plugin("loud")
    setup = PolicySetup(name="p", module=plugin, options=plugin.Config())
    with pytest.raises(PluginError, match="acme_loud does not implement open_policy"):
        async with run_hansa({}, policies=[setup]):
            pass


class NoConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Watching:
    """A policy that keeps what it sees, and lets everything pass."""

    def __init__(self, ctx):
        self.ctx = ctx
        self.seen = []
        self.failed = []
        self.more = asyncio.Event()
        ctx.declare(
            Schema(owner="watching", version=1, collections=(Collection(name="seen", key={"n": int}),))
        )
        self.task = ctx.spawn(self.forever(), "forever")

    async def forever(self):
        await asyncio.Event().wait()

    async def until(self, there):
        async with asyncio.timeout(5):
            while not there():
                self.more.clear()
                await self.more.wait()

    @hookimpl
    async def check(self, crossing):
        return None

    @hookimpl
    async def event_committed(self, event):
        self.seen.append(event.content.text)
        self.more.set()

    @hookimpl
    async def delivery_failed(self, delivery, error):
        self.failed.append((delivery.content.text, error))
        self.more.set()


def watching(made):
    def open_policy(ctx):
        made[ctx.id] = Watching(ctx)
        return made[ctx.id]

    plugin = types.ModuleType("watching")
    plugin.api, plugin.Config, plugin.open_policy = 1, NoConfig, hookimpl(open_policy)
    return plugin


async def test_policies_observe_keep_rows_of_their_own_and_end_when_they_are_replaced():
    actors: dict[str, Actor] = {}
    made: dict[str, Watching] = {}
    plugin, policy = module(actors), watching(made)
    networks = {name: (plugin, ActorConfig()) for name in ("left", "right")}

    def setup(name):
        return PolicySetup(name=name, module=policy, options=NoConfig())

    async with run_hansa(networks, rooms=[("left:a", "right:b")], policies=[setup("left")]) as app:
        first = made["left"]
        await actors["left"].say("a", "ann@x", "one")
        await first.until(lambda: first.seen == ["one"])
        await first.ctx.store.commit([Put("seen", (1,), b"mine")])
        assert (await first.ctx.store.get("seen", (1,))).body == b"mine"
        with pytest.raises(StoreError, match="not declared"):
            await app.contexts["left"].store.get("seen", (1,))

        await app.reload_policies([setup("left"), setup("second")])
        assert first.task.cancelled()
        assert not made["left"].task.done() and made["left"] is not first
        assert (await made["left"].ctx.store.get("seen", (1,))).body == b"mine"
        assert await made["second"].ctx.store.get("seen", (1,)) is None
        await actors["left"].say("a", "ann@x", "two")
        await made["second"].until(lambda: made["second"].seen == ["two"])
        assert first.seen == ["one"]

        bad = types.ModuleType("bad")
        bad.open_policy = hookimpl(lambda ctx: object())
        with pytest.raises(PluginError, match="has no check"):
            await app.reload_policies([setup("third"), PolicySetup(name="bad", module=bad, options=None)])
        assert made["third"].task.cancelled()
        assert [p.name for p in app.decisions.policies] == ["left", "second"]
        assert not made["second"].task.done()


async def test_dead_letters_are_told_to_observers():
    from hansa import DeliveryRejected

    actors: dict[str, Actor] = {}
    made: dict[str, Watching] = {}
    plugin = module(actors)
    networks = {name: (plugin, ActorConfig()) for name in ("left", "right")}
    setups = [PolicySetup(name="watch", module=watching(made), options=NoConfig())]

    def refuse(delivery):
        raise DeliveryRejected("too bitter")

    async with run_hansa(networks, rooms=[("left:a", "right:b")], policies=setups):
        actors["right"].before_send = refuse
        await actors["left"].say("a", "ann@x", "poison")
        await made["watch"].until(lambda: made["watch"].failed == [("poison", "too bitter")])


async def test_two_networks_cannot_answer_for_one_name():
    class Web:
        def __init__(self, ctx):
            self.ctx = ctx

        async def start(self): ...

        async def stop(self): ...

        async def send(self, delivery):
            return ""

        @hookimpl
        def register_routes(self, router: Router) -> None:
            router.add("GET", "/hello", lambda request: None)

    plugin = types.ModuleType("web")
    plugin.api, plugin.Config, plugin.open_network = 1, NoConfig, hookimpl(lambda ctx: Web(ctx))
    with pytest.raises(ConfigError, match=r"networks.two: networks.one answers requests for .* already"):
        async with run_hansa({"one": (plugin, NoConfig()), "two": (plugin, NoConfig())}):
            pass
    async with run_hansa({"one": (plugin, NoConfig())}) as app:
        assert list(app.routers) == [""]
        assert app.rooms.link(NativeId("one", "x")) is None


BROKEN = {
    "nothing that opens a network": (
        "@hookimpl\ndef open_network(ctx):",
        "def other(ctx):",
        "does not implement open_network",
        ":1)",
    ),
    "a hook without its mark": (
        "@hookimpl\ndef open_network",
        "def open_network",
        "open_network is not marked with @hookimpl",
        "def open_network",
    ),
    "a hook with other arguments": (
        "def open_network(ctx)",
        "def open_network(ctx, more)",
        "must take (ctx), not (ctx, more)",
        "@hookimpl",
    ),
    "a hook without arguments": (
        "def open_network(ctx)",
        "def open_network()",
        "must take (ctx), not ()",
        "@hookimpl",
    ),
    "a network that cannot send": (
        '    async def send(self, delivery): return ""\n\n@hookimpl\ndef open_network(ctx):',
        "\n@hookimpl\ndef open_network(ctx) -> Network:",
        "Network lacks send",
        "class Network",
    ),
    "a method without its mark": (
        "    async def stop(self): ...\n",
        "    async def stop(self): ...\n    async def event_committed(self, event): ...\n",
        "event_committed is not marked with @hookimpl",
        "    async def event_committed",
    ),
    "a key of the core's": (
        '    word: str = ""',
        '    word: str = ""\n    throttle: int = 1',
        "its Config has 'throttle'",
        "    throttle: int",
    ),
}


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.replace(" ", "-"))
def test_check_refuses_what_run_would_with_file_and_line_and_once(shelf, capsys, tmp_path, case):
    old, new, reason, line = BROKEN[case]
    source = SOUND.replace("def open_network(ctx):", "def open_network(ctx) -> Network:")
    source = source.replace(old.replace("(ctx):", "(ctx) -> Network:"), new, 1) if old in SOUND else source
    assert source != SOUND
    name = shelf.put("acme-bad", "bad", source=source)
    path = tmp_path / "hansa.toml"
    table = '[networks.{}]\nplugin = "bad"\n'
    path.write_text('[server]\nlisten = ["http://127.0.0.1:8008"]\n' + table.format("a") + table.format("b"))
    assert main(["check", "-c", str(path)]) == 2
    said = capsys.readouterr().out
    assert said.count("plugin 'bad'") == 1, said
    assert reason in said
    wanted = line if line.startswith(":") else f":{source[: source.index(line)].count(chr(10)) + 1})"
    assert f"{shelf.folder / name}.py{wanted}" in said


@pytest.mark.parametrize(
    ("hook", "key"),
    [("open_network", key) for key in NetworkTable.model_fields]
    + [("open_policy", key) for key in PolicyTable.model_fields],
)
def test_every_key_of_the_core_is_refused_in_a_config(shelf, hook, key):
    source = SOUND.replace("word: str", f"{key}: str").replace("open_network", hook)
    shelf.put("acme-bad", "bad", source=source)
    with pytest.raises(PluginError, match=f"its Config has '{key}'"):
        loader.load_plugin("bad")


def test_a_policy_is_no_network(shelf):
    source = SOUND.replace("async def send(self, delivery)", "async def check(self, crossing)")
    shelf.put("acme-judge", "judge", source=source.replace("open_network", "open_policy"))
    found = mistakes({"server": HTTP, "networks": {"one": {"plugin": "judge"}}})
    assert "does not implement open_network" in found["networks.one.plugin"]
    parse({"server": HTTP, "policies": {"one": {"plugin": "judge"}}}, shelf.folder, loader.load_plugin)


async def test_a_network_reports_one_of_three_states_and_no_other_word():
    made: dict[str, Actor] = {}
    async with run_hansa({"left": (module(made), ActorConfig())}) as app:
        for status in NetworkStatus:
            made["left"].ctx.report_status(status, "why")
            assert app.runners["left"].state == status.value
        with pytest.raises(ValueError, match="degraded"):
            made["left"].ctx.report_status("degraded")
        assert app.runners["left"].state == "down"


def test_plugins_are_listed_without_a_server_or_a_configuration(shelf, capsys, tmp_path):
    shelf.put("acme-loud", "loud", source="raise RuntimeError('nobody asked for me')")
    path = tmp_path / "hansa.toml"
    assert main(["plugins", "--json", "-c", str(path)]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert found["loud"]["versions"] == ["1.0"] and found["loud"]["enabled"] == []
    assert {"matrix", "xmpp", "governance"} <= set(found)
    path.write_text('[networks.a]\nplugin = "loud"\n[observers.b]\nplugin = "loud"\n[policies]\nx = 1\n')
    assert main(["plugins", "-c", str(path)]) == 0
    line = next(one for one in capsys.readouterr().out.splitlines() if one.startswith("loud"))
    assert line.split() == ["loud", "acme-loud", "1.0", "networks.a,", "observers.b"]
    path.write_text("[[[")
    assert main(["plugins", "-c", str(path)]) == 1
    assert "is not TOML" in capsys.readouterr().err


def test_one_plugin_is_shown_with_what_it_is_and_takes(shelf, capsys, tmp_path):
    name = shelf.put("acme-loud", "loud", source=f'"""Says it loudly.\n\nAnd more."""\n{SOUND}')
    path = tmp_path / "hansa.toml"
    path.write_text('[networks.a]\nplugin = "loud"\n')
    assert main(["plugins", "show", "loud", "--json", "-c", str(path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["about"] == "Says it loudly." and found["enabled"] == ["networks.a"] and found["api"] == 1
    assert found["distributions"] == ["acme-loud"] and found["versions"] == ["1.0"]
    assert [hook["hook"] for hook in found["hooks"]] == ["open_network"]
    assert found["hooks"][0]["place"].startswith(f"{shelf.folder / name}.py:")
    assert [(one["setting"], one["default"]) for one in found["settings"]] == [
        ("word", ""),
        ("inner", None),
        ("inner.size", "1"),
    ]
    assert main(["plugins", "show", "loud", "-c", str(path)]) == 0
    assert "loud: Says it loudly." in capsys.readouterr().out
    assert main(["plugins", "show", "xmpp", "-c", str(path)]) == 0
    assert "(required)" in capsys.readouterr().out
    assert main(["plugins", "show", "matrix", "-c", str(path)]) == 0
    assert "hansa matrix rooms purge" in capsys.readouterr().out


def test_a_plugin_that_cannot_be_used_is_shown_with_why(shelf, capsys, tmp_path):
    shelf.put("acme-old", "old", source=SOUND.replace("api = 1", "api = 0"))
    assert main(["plugins", "show", "old", "-c", str(tmp_path / "none.toml")]) == 1
    assert "it cannot be used: plugin 'old' is written for api 0" in capsys.readouterr().out
    assert main(["plugins", "show", "nothing", "-c", str(tmp_path / "none.toml")]) == 1
    assert "no plugin named 'nothing' is installed" in capsys.readouterr().err


OBSERVER = SOUND.replace("open_network", "open_observer").replace(
    'async def send(self, delivery): return ""', "async def observe(self, observation): ..."
)


def test_check_holds_observers_to_their_contract(shelf, tmp_path, capsys):
    shelf.put("acme-ear", "ear", source=OBSERVER)
    shelf.put(
        "acme-deaf",
        "deaf",
        source=OBSERVER.replace("observe(", "look(").replace("(ctx):", "(ctx) -> Network:"),
    )
    shelf.put("acme-loud", "loud")
    good = {"server": HTTP, "observers": {"one": {"plugin": "ear", "word": "w"}}}
    path = tmp_path / "hansa.toml"
    path.write_text('[server]\nlisten = ["http://127.0.0.1:1"]\n[observers.one]\nplugin = "ear"\n')
    assert main(["check", "-c", str(path)]) == 0
    assert capsys.readouterr().out.endswith("is good: 0 networks, 0 policies, 0 rooms, 1 observer\n")
    (read,) = parse(good, shelf.folder, loader.load_plugin).observers
    assert (read.name, read.options.word) == ("one", "w")
    found = mistakes(
        {
            "server": HTTP,
            "observers": {
                "deaf": {"plugin": "deaf"},
                "net": {"plugin": "loud"},
                "odd": {"plugin": "ear", "mode": "x"},
            },
        }
    )
    assert "Network lacks observe" in found["observers.deaf.plugin"]
    assert "does not implement open_observer" in found["observers.net.plugin"]
    assert found["observers.odd.mode"] == "there is no such setting"
