"""Commands that people write to the bridge in a chat: who may, how often, and how they are answered."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from hansa.api.contracts import AnswersCommands, CannotOpenRoom, Network
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rooms import Room
from hansa.bus.schema import hashed_key
from hansa.environment import Environment
from hansa.logins.core_logins import CoreLogins
from hansa.model.chat_commands import MAX_COMMAND, ChatCommand, CommandSettings, is_command, read_command
from hansa.model.content import Content, Message
from hansa.model.crossing import EventIn
from hansa.model.errors import Busy, HansaError
from hansa.model.events import Event, Link, NativeFacts, Placement, Submission
from hansa.model.ref import NativeId
from hansa.model.view import RoomView
from hansa.pacing.token_buckets import TokenBuckets
from hansa.store.base import Conflict, Delete, Insert, ScopedStore
from hansa.store.faults import StoreFault

#: Commands a second of one person and of one server, and how many of each may come at once.
_PERSON_RATE, _PERSON_BURST, _SERVER_RATE, _SERVER_BURST = 0.2, 5, 2.0, 30
#: Commands that are carried out at a time, and how many of them are of one server and of one person.
_MAX_RUNNING, _MAX_OF_SERVER, _MAX_OF_PERSON = 16, 4, 2
#: Seconds that a command may take, and its answer.
_COMMAND_TIMEOUT_S, _ANSWER_TIMEOUT_S = 30.0, 10.0
#: Milliseconds after which a command is history, and after which it is forgotten that it was carried out.
_FRESH_MS, _REMEMBERED_MS = 300_000, 86_400_000
_FORGOTTEN = 50
#: Characters of an answer.
_MAX_ANSWER = 4000
_UNREADABLE = f"A command is one line of at most {MAX_COMMAND} characters."


class CommandRefused(HansaError):
    """A command is not carried out: the text says why, to the person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandCall:
    """A command of a person. ``room`` and ``link`` are None in a direct chat with the bridge."""

    person: NativeId
    command: ChatCommand
    room: Room | None = None
    link: Link | None = None


class CommandActions(Protocol):
    """The commands there are."""

    async def run(self, call: CommandCall) -> str:
        """Carries out a command; the answer. Raises ``HansaError`` with a text for the person."""
        ...


class CommandHost(Protocol):
    """The parts of the running application that commands use."""

    core: ScopedStore
    decisions: PolicyEngine

    @property
    def seams(self) -> Environment:
        """Clock and randomness."""
        ...

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        ...

    def server_of(self, network: str, user: str) -> str:
        """The server of a user, by the network's own rule."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> object:
        """Run a task of the core's own."""
        ...

    def count(self, name: str, **labels: str) -> None:
        """Add one to a counter."""
        ...


class ChatCommands:
    """Takes commands from the pipeline, from the log and from direct chats."""

    def __init__(
        self, settings: CommandSettings, host: CommandHost, actions: CommandActions, logins: CoreLogins
    ) -> None:
        self._settings = settings
        self._host = host
        self._actions = actions
        self._logins = logins
        clock = host.seams.clock
        self._of_person = TokenBuckets(clock, _PERSON_RATE, _PERSON_BURST)
        self._of_server = TokenBuckets(clock, _SERVER_RATE, _SERVER_BURST)
        self._running = Counter[str]()  # by "", server and person; what is 0 is removed
        self._log = logging.getLogger("hansa.commands")

    def is_command(self, sender: NativeId, content: Content) -> bool:
        """See ``hansa.bus.admission.NetworkLookup.is_command``."""
        if not self._settings.enabled or not is_command(content, self._settings.prefix):
            return False
        network = self._host.network(sender.network)
        if network is None:
            raise Busy(f"{sender.network} is not running", after=1.0)
        return isinstance(network, AnswersCommands)

    def on_committed(self, room: Room, events: Sequence[Event]) -> None:
        """Carries out the commands among events of the log."""
        if not self._settings.enabled:
            return
        for event in events:
            link = room.authority
            if link is None or link.native.network != event.sender.network or not event.is_confined:
                continue
            if not isinstance(self._host.network(event.sender.network), AnswersCommands):
                continue
            if isinstance(event.content, Message) and is_command(event.content, self._settings.prefix):
                fresh = event.placement is Placement.LIVE and self._is_fresh(event.ts)
                self._take(room, link, event.sender, event.content.text, fresh=fresh)

    def on_command(self, room: Room, inbound: Submission) -> None:
        """Carries out a command that has no place in the log."""
        link, content = room.links.get(str(inbound.room)), inbound.content
        if link is None or not isinstance(content, Message):
            return
        fresh = inbound.placement is Placement.LIVE and self._is_fresh(inbound.ts)
        origin = hashed_key(inbound.origin.network, inbound.origin.id)
        self._take(room, link, inbound.sender, content.text, fresh=fresh, claim=origin)

    async def answer_direct(self, person: NativeId, text: str) -> str | None:
        """The answer to what a person wrote to the bridge itself, with or without the prefix; None where
        commands are off, a policy denies it, or the person goes on too fast.
        """
        if not self._settings.enabled or not self._admit(person):
            return None
        try:
            # Before a policy, a log or a command sees it: it may be a password.
            if self._logins.is_answer(person, text):
                return await self._answer_login(person, text)
            if not await self._is_allowed(person, text):
                return None
            return await self._answer(CommandCall(person=person, command=ChatCommand(name="")), text)
        finally:
            self._leave(person)

    async def _answer_login(self, person: NativeId, text: str) -> str:
        try:
            return await self._logins.answer(person, text)
        except StoreFault:
            return "The storage of this server fails. Begin the login again later."

    async def _is_allowed(self, person: NativeId, text: str) -> bool:
        """Asks the policies about a message in a direct chat, which has no room."""
        if not self._host.decisions.policies:
            return True
        way_in = EventIn(
            link=Link(room="", native=NativeId(person.network, "")),
            sender=person,
            content=Message(text=text),
            view=RoomView(room=""),
            facts=NativeFacts(
                sender_server=self._host.server_of(person.network, person.id),
                size=len(text.encode()),
                texts=(text,),
                act=f"command {self._host.seams.random.bytes(12).hex()}",
            ),
        )
        allowed = (await self._host.decisions.judge_and_store(way_in)).allowed
        if not allowed:
            self._host.count("chat_commands", result="denied")
        return allowed

    def _is_fresh(self, ts: int) -> bool:
        return abs(self._host.seams.clock.now() - ts) <= _FRESH_MS

    def _admit(self, person: NativeId) -> bool:
        """Takes a place for a command, which ``_leave`` gives back. False, and counted, for one that is over
        a limit. It is not answered: that would be a flood of its own.
        """
        total, server, of_person = names = self._places(person)
        if self._of_person.take(str(person)) or self._of_server.take(server):
            self._host.count("chat_commands", result="rate")
            return False
        running = self._running
        if (
            running[total] >= _MAX_RUNNING
            or running[server] >= _MAX_OF_SERVER
            or running[of_person] >= _MAX_OF_PERSON
        ):
            self._host.count("chat_commands", result="busy")
            return False
        running.update(names)
        return True

    def _leave(self, person: NativeId) -> None:
        for name in self._places(person):
            self._running[name] -= 1
            if not self._running[name]:
                del self._running[name]

    def _places(self, person: NativeId) -> tuple[str, str, str]:
        """The names of all commands, of those of the server and of those of the person."""
        server = self._host.server_of(person.network, person.id)
        return "", f"server {person.network}:{server}", f"person {person}"

    def _take(
        self, room: Room, link: Link, person: NativeId, text: str, *, fresh: bool, claim: str = ""
    ) -> None:
        if not fresh:
            self._host.count("chat_commands", result="old")
            return
        if not self._admit(person):
            return
        call = CommandCall(person=person, command=ChatCommand(name=""), room=room, link=link)
        self._host.spawn(self._carry_out(call, link, text, claim), f"command in {room.id}")

    async def _carry_out(self, call: CommandCall, link: Link, text: str, claim: str) -> None:
        try:
            if claim and not await self._claim(claim):
                return
            answer = await self._answer(call, text)
            network = self._host.network(link.native.network)
            if not isinstance(network, AnswersCommands):
                return
            async with asyncio.timeout(_ANSWER_TIMEOUT_S):
                await network.answer_command(link, call.person.id, answer)
        except HansaError as error:  # the bridge is not in the room, for instance
            self._host.count("chat_commands", result="unanswered")
            self._log.info("%s could not be answered: %s", call.person, error)
        except Exception:  # noqa: BLE001  # a network's fault, and what was done is done
            self._host.count("chat_commands", result="unanswered")
            self._log.exception("%s could not be answered", call.person)
        finally:
            self._leave(call.person)

    async def _claim(self, name: str) -> bool:
        """False if this command was carried out before, or cannot be noted as carried out."""
        store, now = self._host.core, self._host.seams.clock.now()
        try:
            old = await store.scan("command", index=("at",), limit=_FORGOTTEN)
            gone = [
                Delete("command", row.key) for row in old if int(row.fields["at"] or 0) < now - _REMEMBERED_MS
            ]
            await store.commit([Insert("command", (name,), b"", {"at": now}), *gone])
        except Conflict:
            self._host.count("chat_commands", result="repeated")
            return False
        except StoreFault as fault:
            self._host.count("chat_commands", result="fault")
            self._log.warning("a command is lost: %s", fault)
            return False
        return True

    async def _answer(self, call: CommandCall, text: str) -> str:
        command = read_command(text, self._settings.prefix)
        if command is None:
            self._host.count("chat_commands", result="refused")
            return _UNREADABLE
        call = CommandCall(person=call.person, command=command, room=call.room, link=call.link)
        result = "done"
        try:
            async with asyncio.timeout(_COMMAND_TIMEOUT_S):
                answer = await self._actions.run(call)
        except TimeoutError:
            result, answer = "timeout", f"This took more than {_COMMAND_TIMEOUT_S:g} s. Try again later."
        except CannotOpenRoom as error:
            result, answer = "refused", error.refusal.text
        except Busy:
            result, answer = "busy", "The room is busy. Try again later."
        except HansaError as error:
            result, answer = "refused", str(error)
        except StoreFault:
            result, answer = "fault", "The storage of this server fails. Try again later."
        except Exception:  # noqa: BLE001  # a fault of the server or of a plugin is an answer too
            self._log.exception("the command %r of %s failed", command.name[:40], call.person)
            result, answer = "fault", "This server failed to do it. Its operator finds the reason in the log."
        self._host.count("chat_commands", result=result)
        return answer if len(answer) <= _MAX_ANSWER else f"{answer[: _MAX_ANSWER - 4]} ..."
