"""``hansa matrix ...``: what an operator may ask of a Matrix network."""

from __future__ import annotations

from typing import Any

from hansa import Argument, Command, Commands
from hansa.model.commands import counted, format_table, format_time


def _format_rooms(found: Any) -> str:
    rows = [
        [r["room"], r["version"], "yes" if r["resident"] else "no", str(r["extremities"]), str(r["waiting"])]
        for r in found
    ]
    return format_table(["room", "version", "joined", "extremities", "waiting"], rows)


def _format_keys(found: Any) -> str:
    rows = [[k["key"], k["public"], format_time(k["expired"]) if k["expired"] else "signs"] for k in found]
    return format_table(["key", "public", "until"], rows)


def _format_invites(found: Any) -> str:
    rows = [[w["user"], w["is"], w["room"], w["by"], w["server"]] for w in found]
    return format_table(["user", "", "room", "by", "answered by"], rows)


def _format_destinations(found: Any) -> str:
    rows = [
        [
            d["name"],
            d["state"],
            str(d["waiting"]),
            str(d["failures"]),
            format_time(d["since"]) if d["since"] else "",
            d["reason"],
        ]
        for d in found
    ]
    return format_table(["server", "", "waiting", "failures", "since", "why"], rows)


def _format_stuck(found: Any) -> str:
    return format_table(
        ["event", "from", "attempts"], [[e["event"], e["origin"], str(e["attempts"])] for e in found]
    )


#: Events that a room's events refer to and that are not stored.
_MISSING = ("missing_prev", "missing_auth", "missing_state")


def _has_missing(found: Any) -> bool:
    return any(found[name] for name in _MISSING)


def _format_check(found: Any) -> str:
    has = f"{counted(found['events'], 'event')}, {counted(found['extremities'], 'extremity', 'extremities')}"
    lines = [f"{found['room']}: {has}"]
    lines += [f"  {status}: {count}" for status, count in sorted(found["statuses"].items())]
    for name in _MISSING:
        lines += [f"  {name.replace('_', ' ')}: {event}" for event in found[name]]
    lines += [f"  rejected: {event}  {why}" for event, why in sorted(found["rejected"].items())]
    for hole in found["holes"]:
        servers = ", ".join(hole["servers"] or hole["asked"])
        lines.append(
            f"  hole: {hole['event']}  {hole['why']} ({servers}), {counted(hole['attempts'], 'try', 'tries')}"
        )
    if not _has_missing(found):
        lines.append("  all events that they reference are stored")
    return "\n".join(lines)


def _format_backfill(found: Any) -> str:
    lines = [f"{found['room']}: {counted(found['events'], 'past event')} stored"]
    lines += [f"  {server}: {why}" for server, why in sorted(found["failed"].items())]
    lines.append("  this is the complete history" if found["complete"] else "  there is more")
    return "\n".join(lines)


def _format_files(found: Any) -> str:
    rows = [[m["media"], str(m["size"]), m["type"], m["name"], format_time(m["used"])] for m in found]
    return format_table(["media", "bytes", "type", "name", "last used"], rows)


def _format_users(found: Any) -> str:
    rows = [
        [
            u["user"],
            "closed" if u["deactivated"] else "admin" if u["admin"] else "",
            str(u["devices"]),
            format_time(u["created"]),
        ]
        for u in found
    ]
    return format_table(["user", "", "devices", "since"], rows)


def _format_tokens(found: Any) -> str:
    rows = [[t["token"], str(t["used"]), str(t["uses"] or "always")] for t in found]
    return format_table(["token", "used", "of"], rows)


def _format_reports(found: Any) -> str:
    rows = [
        [format_time(r["at"]), r["by"], r.get("event") or r.get("room") or r.get("user", ""), r["reason"]]
        for r in found
    ]
    return format_table(["at", "by", "of", "reason"], rows)


def _format_findings(found: Any) -> str:
    lines = [f"{found['server']}: {'healthy' if found['healthy'] else 'not healthy'}"]
    for one in found["findings"]:
        lines.append(f"  {one['state']:4}  {one['check']}: {one['text']}")
        if one["advice"]:
            lines.append(f"        -> {one['advice']}")
    return "\n".join(lines)


def register(commands: Commands) -> None:
    """Every command."""
    commands.add(
        Command(
            words="keys ls",
            changes=False,
            help="list the signing keys, the active one first",
            show=_format_keys,
        )
    )
    commands.add(
        Command(words="keys rotate", help="sign with a new key from now on; old signatures stay valid")
    )
    commands.add(
        Command(
            words="doctor",
            changes=False,
            help="test federation with this or another server",
            arguments=(Argument(name="server", help="server name (default: this server)", optional=True),),
            show=_format_findings,
            failed=lambda found: not found["healthy"],
        )
    )
    server = Argument(name="server", help="its name")
    commands.add(
        Command(
            words="destinations ls",
            changes=False,
            help="list the servers to which events are sent",
            show=_format_destinations,
        )
    )
    commands.add(Command(words="destinations retry", help="retry one now", arguments=(server,)))
    commands.add(
        Command(
            words="destinations reset",
            help="drop what is waiting for one; it fetches missing events by itself",
            arguments=(server,),
        )
    )
    room = Argument(name="room", help="its id on Matrix, or an address such as #lobby")
    event = Argument(name="event", help="its id")
    commands.add(
        Command(
            words="rooms stuck",
            changes=False,
            help="list events that cannot be processed",
            arguments=(room,),
            show=_format_stuck,
        )
    )
    commands.add(
        Command(words="rooms skip", help="drop an event that cannot be processed", arguments=(room, event))
    )
    whose = Argument(name="--user", help="whose (default: the bridge user's)")
    commands.add(
        Command(
            words="invites ls", changes=False, help="list pending invites and knocks", show=_format_invites
        )
    )
    commands.add(Command(words="invites accept", help="accept an invite", arguments=(room, whose)))
    commands.add(Command(words="invites decline", help="decline an invite", arguments=(room, whose)))
    address = Argument(name="room", help="#name:server, or !id?via=server")
    commands.add(Command(words="rooms knock", help="knock as the bridge user", arguments=(address,)))
    commands.add(
        Command(
            words="rooms create",
            help="create a public room of any version",
            arguments=(
                Argument(name="alias", help="#name"),
                Argument(name="--version", help="its room version (default: the network's room_version)"),
                Argument(name="--name", help="name of the room (default: its alias)"),
                Argument(name="--published", help="list it in the public directory", switch=True),
            ),
        )
    )
    for words, text in (
        ("rooms publish", "list a room in the public directory"),
        ("rooms unpublish", "remove it from the public directory"),
        ("rooms leave", "make all local users leave a room"),
        ("rooms block", "accept no more events of a room, from any server"),
        ("rooms unblock", "accept events of a room again"),
        ("rooms purge", "remove a room without local members"),
    ):
        commands.add(Command(words=words, help=text, arguments=(room,)))
    repair = Argument(name="--repair", help="fetch missing events from other servers", switch=True)
    commands.add(
        Command(
            words="rooms check",
            help="check that all events referenced by a room's events are stored",
            arguments=(room, repair),
            show=_format_check,
            failed=_has_missing,
        )
    )
    commands.add(
        Command(
            words="rooms backfill",
            help="fetch history from before the join, or in a gap, from the room's servers",
            arguments=(
                room,
                Argument(name="--limit", help="maximum number of events (default: 1000)", number=True),
                Argument(name="--server", help="server to ask first"),
            ),
            show=_format_backfill,
        )
    )
    version = Argument(name="version", help="such as 12")
    commands.add(
        Command(
            words="rooms upgrade",
            help="replace a room by one of another version; aliases and links move to it",
            arguments=(room, version),
        )
    )
    commands.add(
        Command(
            words="rooms redact",
            help="redact an event, as the bridge user",
            arguments=(
                room,
                Argument(name="event", help="its id on Matrix"),
                Argument(name="--reason", help="why"),
            ),
        )
    )
    commands.add(
        Command(
            words="rooms level",
            help="set the power level of a user",
            arguments=(
                room,
                Argument(name="user", help="user ID"),
                Argument(name="level", help="such as 50 or 100", number=True),
            ),
        )
    )
    commands.add(
        Command(
            words="rooms set",
            help="send a state event as the bridge user",
            arguments=(
                room,
                Argument(name="type", help="such as m.room.join_rules"),
                Argument(name="content", help="JSON"),
                Argument(name="--key", help="the state key (default: empty)"),
            ),
        )
    )
    name = Argument(name="name", help="its localpart or user ID")
    password = Argument(name="--password", help="its password", secret=True)
    admin = Argument(name="--admin", help="make it an administrator of this server", switch=True)
    commands.add(
        Command(words="user add", help="create an account", arguments=(name, password, admin), short=True)
    )
    commands.add(
        Command(words="user ls", changes=False, help="list all accounts", show=_format_users, short=True)
    )
    commands.add(
        Command(
            words="user passwd",
            help="set a new password and log out every device",
            arguments=(name, password),
            short=True,
        )
    )
    erase = Argument(
        name="--erase",
        help="also remove its profile, and hide its past messages from users who were not in the room",
        switch=True,
    )
    commands.add(
        Command(
            words="user deactivate",
            help="deactivate an account; its name stays taken",
            arguments=(name, erase),
            short=True,
        )
    )
    uses = Argument(
        name="--uses", help="how often it may be used (default: 1; 0: without limit)", number=True
    )
    commands.add(Command(words="tokens add", help="make a registration token", arguments=(uses,)))
    commands.add(
        Command(words="tokens ls", changes=False, help="list registration tokens", show=_format_tokens)
    )
    commands.add(
        Command(
            words="reports ls",
            changes=False,
            help="the last 1,000 reports, the newest last",
            show=_format_reports,
        )
    )
    token = Argument(name="token", help="the token")
    commands.add(Command(words="tokens rm", help="revoke a registration token", arguments=(token,)))
    media = Argument(name="media", help="mxc://SERVER/ID")
    file = Argument(name="file", help="its absolute path; the running Hansa opens it")
    commands.add(
        Command(
            words="media add",
            help="upload a file, for example a room's picture",
            arguments=(file, Argument(name="--type", help="its media type (default: by its name)")),
        )
    )
    commands.add(
        Command(
            words="media get", help="save a file of any server to a new local file", arguments=(media, file)
        )
    )
    commands.add(Command(words="media rm", help="remove a file from this server", arguments=(media,)))
    whose_files = Argument(name="--server", help="of this server only")
    commands.add(
        Command(
            words="media ls",
            changes=False,
            help="list stored files",
            arguments=(whose_files,),
            show=_format_files,
        )
    )
    commands.add(
        Command(
            words="rooms ls", changes=False, help="list and administer rooms on Matrix", show=_format_rooms
        )
    )
