"""Commands that a plugin brings: declared by its module, answered by its network, watched while they last."""

from __future__ import annotations

import argparse
import asyncio

import pytest
from hansa import Argument, Command
from hansa.cli.main import _OWN, _make_parser, commands_of, main, plugin_parser
from hansa.model.commands import Commands
from peers.ca import PrivateCA
from peers.hansa import CommandFailed, Hansa


def test_every_command_of_the_core_is_known_as_its_own():
    action = next(a for a in _make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert set(action.choices) == _OWN


def test_arguments_reach_the_network_by_their_names():
    command = Command(
        words="rooms page",
        help="page",
        arguments=(
            Argument(name="room", help="which"),
            Argument(name="until", help="optional", optional=True),
            Argument(name="--most", help="number", number=True),
            Argument(name="--all-of-it", help="switch", switch=True),
        ),
    )
    args = plugin_parser("x", [command]).parse_args(["rooms", "page", "!a", "--most", "3", "--all-of-it"])
    assert (args.room, args.until, args.most, args.all_of_it, args._command) == ("!a", None, 3, True, command)


def test_the_last_command_of_a_name_counts():
    commands = Commands()
    commands.add(Command(words="a", help="1"))
    commands.add(Command(words="a", help="2"))
    assert [c.help for c in commands.found.values()] == ["2"]
    assert {c.words for c in commands_of("matrix")} >= {"rooms ls"}
    assert commands_of("governance") == []


def test_a_word_that_is_no_plugin_is_wrong_use(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["telex", "send"])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "invalid choice: 'telex'" in said
    assert "matrix" in said and "user" in said  # what plugins add can be meant too


@pytest.mark.parametrize("words", [["--help"], ["-h"], []])
def test_the_help_lists_the_commands_that_plugins_add(words, capsys):
    try:
        code = main(words)
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().out
    assert code == (0 if words else 2)
    for command in commands_of("matrix"):
        line = f"  {command.words}" if command.short else f"  matrix {command.words}"
        assert any(one.startswith(line) and command.help in one for one in said.splitlines()), line
    assert "check a configuration and list every mistake" in said


def test_a_plugin_that_cannot_be_loaded_does_not_keep_the_help_away(monkeypatch, capsys):
    from hansa.cli import main as cli
    from hansa.host import loader
    from hansa.model.errors import PluginError

    def found(name: str):
        if name == "matrix":
            raise PluginError("it needs \x1b[31mhansa[matrix]")
        return []

    monkeypatch.setattr(cli, "commands_of", found)
    assert "matrix" in loader.installed_plugins()
    assert main([]) == 2
    said = capsys.readouterr().out
    assert "(cannot be loaded: it needs " in said and "\x1b[31m" not in said


def test_a_plugin_without_commands_says_so(capsys):
    assert main(["xmpp"]) == 1
    assert capsys.readouterr().err == "hansa: plugin xmpp adds no commands\n"


async def test_a_running_network_answers_its_plugins_command(tmp_path):
    hansa = await Hansa(tmp_path / "hansa", PrivateCA(tmp_path / "ca"), version="11").start()
    try:
        made = await hansa.run("rooms", "create", "matrix:#lobby")
        (room,) = await hansa.run("matrix", "rooms", "ls")
        assert (room["version"], room["resident"], room["extremities"], room["waiting"]) == ("11", True, 1, 0)
        assert made["room"]
        with pytest.raises(CommandFailed, match="with --network: matrix"):
            await hansa.run("matrix", "rooms", "ls", "--network", "elsewhere")
        text = await asyncio.to_thread(main, ["matrix", "rooms", "ls", "-c", str(hansa.config)])
        assert text == 0
    finally:
        await hansa.stop()
