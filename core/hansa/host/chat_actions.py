"""The commands that people can write in a chat. Each calls the functions that the admin socket calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from hansa.api.contracts import CannotOpenRoom, HasChatCommands, MakesGhosts, Network, NetworkCommand
from hansa.bus.pipeline import Pipeline
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rooms import Room, Rooms
from hansa.environment import Environment
from hansa.host.chat_commands import CommandCall, CommandRefused
from hansa.host.room_linker import RoomLinker
from hansa.host.room_names import RoomNames
from hansa.host.searches import Searches, shorten
from hansa.host.supervisor import NetworkSupervisor
from hansa.logins.core_logins import CoreLogins
from hansa.model.chat_commands import MAX_WORDS, CommandSettings, is_linkable
from hansa.model.content import Member, Membership
from hansa.model.crossing import AdminChange
from hansa.model.events import Submission
from hansa.model.ref import NativeId
from hansa.model.role import Role

#: People that ``who`` names, and results of a search.
_MAX_PEOPLE, _MAX_MATCHES = 50, 10
#: Members of a room whose names are read; of a larger one only the numbers are told.
_MAX_LISTED = 2000


class ActionHost(Protocol):
    """The parts of the running application that the commands use."""

    rooms: Rooms
    pipeline: Pipeline
    decisions: PolicyEngine
    linker: RoomLinker
    searches: Searches
    logins: CoreLogins

    @property
    def seams(self) -> Environment:
        """Clock and randomness."""
        ...

    @property
    def runners(self) -> Mapping[str, NetworkSupervisor]:
        """Every configured network, by its id."""
        ...

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        ...


@dataclass(frozen=True, slots=True)
class _Action:
    """``words`` are how many the command takes, least and most; ``in_room``: only there it has a meaning."""

    usage: str
    help: str
    run: Callable[[CommandCall], Awaitable[str]]
    words: tuple[int, int] = (0, 0)
    in_room: bool = True


class ChatActions:
    """Implements ``hansa.host.chat_commands.CommandActions``."""

    def __init__(self, settings: CommandSettings, host: ActionHost) -> None:
        self._settings = settings
        self._host = host
        self._names = RoomNames(host)
        self._actions = {
            "help": _Action("help", "this list", self._help, in_room=False),
            "status": _Action("status", "which networks work", self._status, in_room=False),
            "who": _Action("who", "who is in this room, by network", self._who),
            "invite": _Action(
                "invite NETWORK:USER", "invite a person of another network", self._invite, (1, 1)
            ),
            "link": _Action("link NETWORK:ADDRESS", "link a room of another network", self._link, (1, 1)),
            "unlink": _Action("unlink NETWORK:ADDRESS", "remove such a link", self._unlink, (1, 1)),
            "search": _Action(
                "search rooms|people WORDS",
                "find rooms or people of all networks",
                self._search,
                (2, MAX_WORDS),
                in_room=False,
            ),
        }
        if settings.logins:
            names = "|".join(sorted(settings.logins))
            self._actions |= {
                "login": _Action(
                    f"login {names}", "speak there as your own account", self._login, (1, 1), in_room=False
                ),
                "logout": _Action(
                    f"logout {names}", "forget that account", self._logout, (1, 1), in_room=False
                ),
            }

    async def run(self, call: CommandCall) -> str:
        """See ``CommandActions.run``."""
        name, words = call.command.name, call.command.words
        if call.room is not None and call.room.view.membership(call.person) is not Membership.JOIN:
            raise CommandRefused("You are not in this room.")
        action = self._actions.get(name)
        if action is None and (commands := self._commands_of(name)):
            command = commands.get(words[0].lower()) if words else None
            if command is None:
                raise CommandRefused(f"{name} has these commands: {', '.join(sorted(commands))}.")
            return await command.run(call.person, words[1:])
        if action is None:
            raise CommandRefused(f"There is no command {name[:40]}: {self._settings.prefix} help lists them.")
        if not action.words[0] <= len(words) <= action.words[1]:
            raise CommandRefused(f"Write {self._settings.prefix} {action.usage}")
        if action.in_room and call.room is None:
            raise CommandRefused("Write this command in a room.")
        return await action.run(call)

    async def _help(self, call: CommandCall) -> str:
        actions = [one for one in self._actions.values() if call.room is not None or not one.in_room]
        lines = [f"{self._settings.prefix} {one.usage}: {one.help}" for one in actions]
        for network in sorted(self._host.runners):
            for name, one in sorted(self._commands_of(network).items()):
                words = " ".join(filter(None, [network, name, one.usage]))
                lines.append(f"{self._settings.prefix} {words}: {one.help}")
        return "\n".join(lines)

    def _commands_of(self, name: str) -> Mapping[str, NetworkCommand]:
        """The commands of a network's own; none of a name that no network has."""
        network = self._host.network(name)
        return network.chat_commands() if isinstance(network, HasChatCommands) else {}

    async def _status(self, call: CommandCall) -> str:
        linked = {link.native.network for link in call.room.links.values()} if call.room else None
        states = [
            f"{network}: {runner.state}"
            for network, runner in sorted(self._host.runners.items())
            if linked is None or network in linked
        ]
        return "\n".join(states)

    async def _who(self, call: CommandCall) -> str:
        room = _room_of(call)
        counts = Counter[str]()
        for (network, _), joined in room.view.joined_servers.items():
            counts[network] += joined
        if counts.total() > _MAX_LISTED:
            return "\n".join(f"{network} ({count})" for network, count in sorted(counts.items()))
        by_network: dict[str, list[str]] = {}
        for person in room.view.joined():
            by_network.setdefault(person.user.network, []).append(person.display)
        lines, left = list[str](), _MAX_PEOPLE
        for network, names in sorted(by_network.items()):
            shown = sorted(names)[:left]
            left -= len(shown)
            rest = f", and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
            lines.append(f"{network} ({len(names)}): {', '.join(shown)}{rest}")
        return "\n".join(lines)

    async def _invite(self, call: CommandCall) -> str:
        room, user = _room_of(call), _native_id_of(call.command.words[0])
        if user.network == call.person.network:
            raise CommandRefused(f"Invite people of {user.network} as your client does.")
        if room.link_of(user.network) is None:
            raise CommandRefused(f"This room is not linked to {user.network}.")
        assert call.link is not None
        if call.link.authority:  # only the person can sign what their network takes as theirs
            network = self._host.network(call.person.network)
            if not isinstance(network, MakesGhosts):
                raise CommandRefused(f"{call.person.network} has no accounts for people of other networks.")
            return f"Invite {network.ghost_id(user)} as your client does: this is {user}."
        invite = Submission(
            origin=NativeId(call.person.network, f"command {self._host.seams.random.bytes(12).hex()}"),
            room=call.link.native,
            sender=call.person,
            content=Member(user=user, membership=Membership.INVITE),
            ts=self._host.seams.clock.now(),
        )
        (outcome,) = await self._host.pipeline.submit(call.person.network, [invite])
        if (refusal := outcome.refused) is not None:
            raise CannotOpenRoom(refusal)
        return f"{user} is invited."

    async def _link(self, call: CommandCall) -> str:
        room, spec = _room_of(call), call.command.words[0]
        if not self._is_operator(call.person):
            self._require_owner(call)
            if not is_linkable(spec, self._settings.linkable):
                raise CommandRefused(f"{spec} may be linked by an operator of this server alone.")
        await self._require_allowed(call, "rooms link", links=str([spec]), room=room.id)
        await self._host.linker.link_room([spec], room.id, create=True, move=False)
        return f"This room is linked to {spec}."

    async def _unlink(self, call: CommandCall) -> str:
        room, spec = _room_of(call), call.command.words[0]
        if not self._is_operator(call.person):
            self._require_owner(call)
        link = await self._names.link(spec)
        if link is None or link.room != room.id:
            raise CommandRefused(f"This room is not linked to {spec}.")
        if link.authority or link == call.link:
            raise CommandRefused(f"{spec} is this room: only an operator unlinks it, on the command line.")
        await self._require_allowed(call, "rooms unlink", link=link.id)
        await self._host.linker.unlink_room(link)
        return f"This room is not linked to {spec} any more."

    async def _search(self, call: CommandCall) -> str:
        kind, text = call.command.words[0].lower(), " ".join(call.command.words[1:])
        if kind == "people":
            people = await self._host.searches.find_people(text, limit=_MAX_MATCHES)
            lines = [f"{one.user}  {shorten(one.name)}".rstrip() for one in people]
        elif kind == "rooms":
            rooms = await self._host.searches.find_rooms(text, limit=_MAX_MATCHES)
            lines = [
                f"{one.network}:{one.address}  {shorten(one.name)}".rstrip()
                + (f" ({one.members})" if one.members else "")
                for one in rooms
            ]
        else:
            raise CommandRefused(f"Write {self._settings.prefix} search rooms WORDS, or search people WORDS.")
        return "\n".join(lines) or f"No {kind} match {text}."

    async def _login(self, call: CommandCall) -> str:
        if call.room is not None:
            _require_chat_with_bridge(call.room)
        return await self._host.logins.begin(call.person, call.command.words[0], direct=call.room is None)

    async def _logout(self, call: CommandCall) -> str:
        return await self._host.logins.end(call.person, call.command.words[0])

    def _is_operator(self, person: NativeId) -> bool:
        return person in self._settings.operators

    def _require_owner(self, call: CommandCall) -> None:
        """Raises ``CommandRefused`` unless the network that decides in the room says that the person owns it.
        A rank by another network does not count.
        """
        room = _room_of(call)
        authority, row = room.authority, room.view.person(call.person)
        if authority is None or authority.native.network != call.person.network:
            raise CommandRefused("Only an operator of this server may do this here.")
        if row is None or row.role < Role.OWNER:
            raise CommandRefused("Only an owner of this room may do this.")

    async def _require_allowed(self, call: CommandCall, command: str, **arguments: str) -> None:
        """Raises ``CommandRefused`` where a policy denies what an operator would do."""
        if not self._host.decisions.policies:
            return
        named = tuple(sorted({**arguments, "by": str(call.person)}.items()))
        verdict = await self._host.decisions.judge_and_store(AdminChange(command=command, arguments=named))
        if not verdict.allowed:
            raise CommandRefused(verdict.text)


def _room_of(call: CommandCall) -> Room:
    assert call.room is not None  # ``_Action.in_room``
    return call.room


def _require_chat_with_bridge(room: Room) -> None:
    """Raises ``CommandRefused`` unless the person and the bridge alone read the room: its answer has a link
    by which one logs in.
    """
    present = sum(row.membership in {Membership.JOIN, Membership.INVITE} for row in room.view.people.values())
    readable = room.view.facts.history_visibility == "world_readable"
    if len(room.links) > 1 or present > 2 or readable:
        raise CommandRefused("Write this to the bridge itself, in a chat with nobody else.")


def _native_id_of(word: str) -> NativeId:
    network, colon, user = word.partition(":")
    if not colon or not network or not user:
        raise CommandRefused(f"{word[:200]} is not NETWORK:USER, such as xmpp:juliet@example.org")
    return NativeId(network, user)
