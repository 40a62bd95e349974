"""The ``hansa`` command. Nothing heavy is imported before it is known what to do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

from hansa import __version__, terminal
from hansa.cli import new_plugin, store_parser
from hansa.model.errors import HansaError, LocalProtocolError
from hansa.model.printable import printable

if TYPE_CHECKING:
    from hansa.model.commands import Argument, Command


#: The commands that need no plugin; one of such a name could not be reached.
_OWN = frozenset(
    {
        "init",
        "run",
        "check",
        "status",
        "plugin",
        "plugins",
        "reload",
        "drain",
        "promote",
        "where",
        "rooms",
        "search",
        "deliveries",
        "media",
        "policy",
        "store",
    }
)


#: How an operator names a room, and a native room that is linked.
_ROOM = "its id, NETWORK:NATIVE-ID or NETWORK:ADDRESS, such as matrix:#lobby"
_LINK = "as `hansa rooms ls` shows it, or NETWORK:ADDRESS"


def _make_parser(epilog: str = "") -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "-c",
        "--config",
        type=Path,
        default=Path("hansa.toml"),
        help="the configuration (default: hansa.toml)",
    )
    listing = argparse.ArgumentParser(add_help=False, parents=[common])
    listing.add_argument("--json", action="store_true", help="print JSON")
    parser = argparse.ArgumentParser(
        "hansa",
        description="Matrix, XMPP and governance in one process.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"hansa {__version__}")
    top = parser.add_subparsers(dest="command", required=True)

    init = top.add_parser("init", help="create a folder with a configuration, keys and a test certificate")
    init.add_argument("folder", type=Path, help="folder; created if it does not exist")
    init.add_argument("--name", default="localhost:8448", help="the server name, such as example.org")
    run = top.add_parser("run", parents=[common], help="run until a signal")
    run.add_argument("-v", "--verbose", action="store_true", help="log what happens")
    top.add_parser("check", parents=[listing], help="check a configuration and list every mistake")
    top.add_parser("status", parents=[listing], help="show what is up and what is waiting")
    plugins = top.add_parser(
        "plugins", parents=[listing], help="list installed plugins, and where they are enabled"
    ).add_subparsers(dest="action", required=False)
    plugin = plugins.add_parser(
        "show", parents=[listing], help="show where a plugin is from, its hooks, settings and commands"
    )
    plugin.add_argument("name", help="its name, as `hansa plugins` shows it")
    top.add_parser("reload", parents=[listing], help="reload policies, certificates and networks")
    top.add_parser("drain", parents=[listing], help="stop, and leave the database to a standby")
    top.add_parser("promote", parents=[listing], help="make this standby take over the database")
    where = top.add_parser("where", parents=[listing], help="show which destinations have received an event")
    where.add_argument("event", help="its id, here or on one of the networks")

    rooms = top.add_parser("rooms", help="list and change rooms and their links").add_subparsers(
        dest="action", required=True
    )
    rooms.add_parser("ls", parents=[listing], help="all rooms")
    show = rooms.add_parser("show", parents=[listing], help="show one room and its members")
    show.add_argument("room", help=_ROOM)
    create = rooms.add_parser("create", parents=[listing], help="create or open rooms and link them")
    create.add_argument(
        "links", nargs="+", metavar="NETWORK:ADDRESS", help="such as matrix:#lobby or xmpp:lobby"
    )
    create.add_argument("--name", default="", help="name of a room that is created (default: its address)")
    create.add_argument("--published", action="store_true", help="list it in the public directory")
    link = rooms.add_parser("link", parents=[listing], help="link further native rooms to a room")
    link.add_argument("room", help=_ROOM)
    link.add_argument("links", nargs="+", metavar="NETWORK:ADDRESS", help="what to link to it")
    unlink = rooms.add_parser("unlink", parents=[listing], help="remove the link to a native room")
    unlink.add_argument("link", metavar="NETWORK:NATIVE-ID", help=_LINK)

    search = top.add_parser("search", parents=[listing], help="search for rooms or people of all networks")
    search.add_argument("kind", choices=["rooms", "people"], help="what to search for")
    search.add_argument(
        "words",
        nargs="+",
        help="a part of an address, name or topic; :SERVER at the end asks that Matrix server",
    )

    deliveries = top.add_parser("deliveries", help="list waiting deliveries and dead letters").add_subparsers(
        dest="action", required=True
    )
    deliveries.add_parser("ls", parents=[listing], help="list every link with deliveries")
    for name, text in (("retry", "deliver dead letters again"), ("drop", "forget dead letters")):
        one = deliveries.add_parser(name, parents=[listing], help=text)
        one.add_argument(
            "link", metavar="NETWORK:NATIVE-ID", help="as `hansa deliveries ls` shows it, or NETWORK:ADDRESS"
        )
        one.add_argument("--seq", type=int, default=None, help="only this one")

    media = top.add_parser("media", help="manage links to files").add_subparsers(dest="action", required=True)
    media.add_parser("revoke-links", parents=[listing], help="end all links to files that were given out")

    policy = top.add_parser("policy", help="test policies and explain decisions").add_subparsers(
        dest="action", required=True
    )
    test = policy.add_parser(
        "test", parents=[listing], help="show what each policy would decide about a message"
    )
    test.add_argument("--room", required=True, help=_ROOM)
    test.add_argument("--sender", required=True, metavar="NETWORK:USER", help="sender of the message")
    test.add_argument("--text", required=True, help="text of the message")
    explain = policy.add_parser("explain", parents=[listing], help="show why something was decided")
    explain.add_argument("decision", help="the decision ID that a refusal names, d-...")
    policy.add_parser(
        "log", parents=[listing], help="list the newest decisions, including those of shadow mode"
    )
    store_parser.add_parsers(top, listing)
    new_plugin.add_parsers(top)
    return parser


def plugin_parser(name: str, commands: Iterable[Command]) -> argparse.ArgumentParser:
    """The parser of ``hansa NAME ...``, for the commands of a plugin."""
    parser = argparse.ArgumentParser(f"hansa {name}", description=f"Commands of the plugin {name}.")
    top = parser.add_subparsers(dest="command", required=True)
    groups: dict[str, Any] = {}
    for command in commands:
        first, _, second = command.words.partition(" ")
        into, word = top, first
        if second:
            if first not in groups:
                group = top.add_parser(first, help=f"`hansa {name} {first} --help` lists them")
                groups[first] = group.add_subparsers(dest="action", required=True)
            into, word = groups[first], second
        one = into.add_parser(word, help=command.help)
        one.add_argument(
            "-c",
            "--config",
            type=Path,
            default=Path("hansa.toml"),
            help="the configuration (default: hansa.toml)",
        )
        one.add_argument("--json", action="store_true", help="print JSON")
        one.add_argument("--network", default="", help="network, if several use the plugin")
        for argument in command.arguments:
            _add_argument(one, argument)
        one.set_defaults(_command=command)
    return parser


def _add_argument(parser: argparse.ArgumentParser, argument: Argument) -> None:
    if argument.secret:
        default = "ask for it; without a terminal, the first line of the standard input"
        text = f"a file that has {argument.help} (default: {default})"
        parser.add_argument(f"{argument.name}-file", type=Path, help=text)
        return
    more: dict[str, Any] = {"help": argument.help}
    if argument.switch:
        more["action"] = "store_true"
    elif argument.number:
        more["type"] = int
    if argument.many:
        more["nargs"] = "+"
    elif argument.optional and not argument.name.startswith("-"):
        more["nargs"] = "?"
    parser.add_argument(argument.name, **more)


def commands_of(name: str) -> list[Command]:
    """The commands of an installed plugin. Raises ConfigError or PluginError."""
    from hansa.host import loader as plugins  # noqa: PLC0415
    from hansa.model.commands import Commands  # noqa: PLC0415

    commands = Commands()
    hook = getattr(plugins.load_plugin(name), "register_commands", None)
    if hook is not None:
        hook(commands)
    return list(commands.found.values())


def _of_plugins() -> str:
    """The commands of every installed plugin, as the help lists them; of one that cannot be loaded, why."""
    from hansa.host import loader as plugins  # noqa: PLC0415
    from hansa.model.commands import format_table  # noqa: PLC0415

    rows: list[list[str]] = []
    for name in sorted(plugins.installed_plugins()):
        try:
            found = commands_of(name)
        except HansaError as error:
            rows.append([f"  {name}", f"(cannot be loaded: {error})"])
            continue
        rows += [[f"  {one.words if one.short else f'{name} {one.words}'}", one.help] for one in found]
    return format_table(["commands of plugins:", ""], sorted(rows)) if rows else ""


def _exit_unknown(word: str) -> NoReturn:
    """Ends the process: a word that is neither a command nor a plugin is wrong use."""
    from hansa.host import loader as plugins  # noqa: PLC0415

    added = {name for name in plugins.installed_plugins() if _has_commands(name)}
    added |= {short for name in plugins.installed_plugins() for short in _short_words(name)}
    known = ", ".join([*sorted(_OWN), *sorted(added)])
    _make_parser().error(f"invalid choice: {printable(word)!r} (choose from {known})")


def _has_commands(plugin: str) -> bool:
    try:
        return bool(commands_of(plugin))
    except HansaError:
        return False


def _short_words(plugin: str) -> set[str]:
    """The first words of a plugin's short commands; none of one that cannot be loaded as it is installed."""
    try:
        return {c.words.partition(" ")[0] for c in commands_of(plugin) if c.short}
    except HansaError:
        return set()


def _run_plugin(argv: Sequence[str]) -> int | None:
    """Runs ``hansa PLUGIN ...``; None if the first word is not a plugin."""
    from hansa.host import loader as plugins  # noqa: PLC0415

    words = list(argv)
    if argv[0] not in plugins.installed_plugins():
        named = [name for name in sorted(plugins.installed_plugins()) if argv[0] in _short_words(name)]
        if len(named) != 1:
            return None
        words = [named[0], *argv]
    from hansa.cli.socket_client import call_with_progress  # noqa: PLC0415

    found_commands = commands_of(words[0])
    if not found_commands:
        raise LocalProtocolError(f"plugin {words[0]} adds no commands")
    args = plugin_parser(words[0], found_commands).parse_args(words[1:])
    command: Command = args._command  # noqa: SLF001
    body = {
        "network": args.network,
        "words": command.words,
        "arguments": {
            _field_name(argument): _read_argument(argument, args) for argument in command.arguments
        },
    }
    found = call_with_progress(args.config, "POST", f"/operate/{words[0]}", body)
    _print_answer(found, command.show, as_json=args.json)
    return 1 if command.failed(found) else 0


def _print_answer(found: Any, shown: Callable[[Any], str], *, as_json: bool) -> None:
    if as_json:
        terminal.show_json(found)
        return
    try:
        terminal.show(found, shown)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        text = "the running Hansa has another version than this command: restart it, or use --json"
        raise LocalProtocolError(text) from error


def _field_name(argument: Argument) -> str:
    return argument.name.lstrip("-").replace("-", "_")


def _read_argument(argument: Argument, args: argparse.Namespace) -> Any:
    if not argument.secret:
        return getattr(args, _field_name(argument))
    file: Path | None = getattr(args, f"{_field_name(argument)}_file")
    if file is not None:
        try:
            return file.read_text().strip()
        except OSError as error:
            raise LocalProtocolError(f"{file}: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise LocalProtocolError(f"{file} is not text in UTF-8") from error
    if not sys.stdin.isatty():
        return _read_secret_line(argument)
    from getpass import getpass  # noqa: PLC0415

    first = getpass(f"{_field_name(argument)}: ")
    if getpass(f"{_field_name(argument)} again: ") != first:
        raise LocalProtocolError("the two are not the same")
    return first


def _read_secret_line(argument: Argument) -> str:
    """The first line of the standard input, where that is not a terminal."""
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError as error:
        raise LocalProtocolError("the standard input is not text in UTF-8") from error
    if not line.strip():
        name = _field_name(argument)
        text = f"there is neither a terminal nor a {name} in the standard input: give it as the first line"
        raise LocalProtocolError(f"{text}, or a file by {argument.name}-file")
    return line.strip()


#: ``(method, path, body)`` of a request to the running Hansa.
_Ask = tuple[str, str, Any]


def _room_options(args: argparse.Namespace) -> dict[str, Any]:
    return {"links": args.links, "name": args.name, "published": args.published}


def _make_question(args: argparse.Namespace) -> tuple[_Ask, str]:
    """Returns the request to make, and the name of the function of ``show`` that prints the answer."""
    name = f"{args.command} {getattr(args, 'action', '')}".strip()
    match name:
        case "status":
            return ("GET", f"/{name}", None), name
        case "reload" | "drain" | "promote":
            return ("POST", f"/{name}", {}), "format_pairs"
        case "where":
            return ("GET", f"/where/{quote(args.event, safe='')}", None), "where"
        case "rooms ls":
            return ("GET", "/rooms", None), "rooms"
        case "rooms show":
            return ("GET", f"/rooms/{quote(args.room, safe='')}", None), "room"
        case "rooms create":
            return ("POST", "/rooms/create", _room_options(args)), "format_pairs"
        case "rooms link":
            return ("POST", "/rooms/link", {"room": args.room, "links": args.links}), "format_pairs"
        case "rooms unlink":
            return ("POST", "/rooms/unlink", {"link": args.link}), "format_pairs"
        case "search":
            text = quote(" ".join(args.words), safe="")
            return ("GET", f"/search/{args.kind}/{text}", None), "matches"
        case "deliveries ls":
            return ("GET", "/deliveries", None), "deliveries"
        case "deliveries retry" | "deliveries drop":
            return (
                "POST",
                f"/deliveries/{args.action}",
                {"link": args.link, "seq": args.seq},
            ), "format_pairs"
        case "media revoke-links":
            return ("POST", "/media/revoke-links", {}), "format_pairs"
        case "policy test":
            body = {"room": args.room, "sender": args.sender, "text": args.text}
            return ("POST", "/policy/test", body), "tested"
        case "policy log":
            return ("GET", "/policy/log", None), "decisions"
        case _:
            return ("GET", f"/policy/explain/{quote(args.decision, safe='')}", None), "explanation"


def _write_plugin(args: argparse.Namespace) -> int:
    from hansa.host import loader as plugins  # noqa: PLC0415

    taken = dict.fromkeys(_OWN, "a command") | dict.fromkeys(
        plugins.installed_plugins(), "an installed plugin"
    )
    terminal.page(new_plugin.write_plugin(args.name, args.kind, args.into, taken))
    return 0


def _check_config(args: argparse.Namespace) -> int:
    from hansa.config.private_files import exposed  # noqa: PLC0415
    from hansa.config.reader import ConfigErrors, load  # noqa: PLC0415
    from hansa.host import loader as plugins  # noqa: PLC0415
    from hansa.model.commands import counted  # noqa: PLC0415
    from hansa.store import missing_driver  # noqa: PLC0415

    try:
        config = load(args.config, plugins.load_plugin)
        if (missing := missing_driver(config.store.url)) is not None:
            raise ConfigErrors([missing])
    except ConfigErrors as mistakes:
        if args.json:
            found = [{"path": e.path, "reason": e.reason} for e in mistakes.errors]
            terminal.show_json({"ok": False, "mistakes": found})
        else:
            for error in mistakes.errors:
                terminal.say(f"{args.config}: {error}")
        return 2
    warnings = exposed(args.config, config)
    if args.json:
        terminal.show_json({"ok": True, "mistakes": [], "warnings": warnings})
    else:
        for warning in warnings:
            terminal.say(f"warning: {warning}")
        has = ", ".join(
            (
                counted(len(config.networks), "network"),
                counted(len(config.policies), "policy", "policies"),
                counted(len(config.rooms), "room"),
                *((counted(len(config.observers), "observer"),) if config.observers else ()),
            )
        )
        terminal.say(f"{args.config} is good: {has}")
    return 0


def _show_plugins(args: argparse.Namespace) -> int:
    from hansa.cli import plugins, show  # noqa: PLC0415

    if args.action is None:
        _print_answer(plugins.list_plugins(args.config), show.plugins, as_json=args.json)
        return 0
    found = plugins.describe_plugin(args.name, args.config)
    _print_answer(found, plugins.show_plugin, as_json=args.json)
    return 1 if found["mistake"] else 0


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; the exit code: 0 done, 1 refused or something is wrong, 2 wrong use or
    configuration; ``hansa run`` has more (``hansa.serve``).
    """
    try:
        return _run_words(list(sys.argv[1:] if argv is None else argv))
    except HansaError as error:
        terminal.say(f"hansa: {error}", error=True)
    except BrokenPipeError:  # the reader has closed its end
        terminal.give_up()
    except KeyboardInterrupt:
        return 130
    except EOFError:
        terminal.say("hansa: nothing was entered", error=True)
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        terminal.say(f"hansa: {what}{error.strerror or error}", error=True)
    return 1


def _run_words(words: list[str]) -> int:
    if words and words[0][:1] != "-" and words[0] not in _OWN:
        done = _run_plugin(words)
        if done is not None:
            return done
        _exit_unknown(words[0])
    if not words:
        terminal.page(_make_parser(_of_plugins()).format_help())
        return 2
    args = _make_parser(_of_plugins() if words[0] in {"-h", "--help"} else "").parse_args(words)
    if args.command == "run":
        from hansa.serve import run  # noqa: PLC0415

        return run(args.config, verbose=args.verbose)
    if args.command == "check":
        return _check_config(args)
    if args.command == "plugins":
        return _show_plugins(args)
    if args.command == "init":
        from hansa.cli.init import init  # noqa: PLC0415

        terminal.page(init(args.folder, args.name))
        return 0
    if args.command == "plugin":
        return _write_plugin(args)
    if args.command == "store":
        from hansa.cli import store  # noqa: PLC0415

        return store.run(args)
    from hansa.cli import show  # noqa: PLC0415
    from hansa.cli.socket_client import call_with_progress  # noqa: PLC0415

    question, shown = _make_question(args)
    found = call_with_progress(args.config, *question)
    _print_answer(found, getattr(show, shown), as_json=args.json)
    return 0
