"""From stanzas to submissions: what XMPP people do, in the order in which each does it, and what they are
answered. Whatever waits is bounded; what does not fit is refused with ``resource-constraint``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from xml.etree.ElementTree import Element

from hansa import (
    Busy,
    Custom,
    DirectoryQuery,
    Edit,
    Encrypted,
    Join,
    LocalProtocolError,
    LogLimit,
    Member,
    Membership,
    Message,
    NativeId,
    NetworkContext,
    NetworkStatus,
    RemoteProtocolError,
    StoreFault,
    Submission,
)

from hansa_xmpp.archive import Archive
from hansa_xmpp.bridge_chat import BridgeChat
from hansa_xmpp.direct_chats import DirectChats, chat_id, is_chat_id, is_puppet
from hansa_xmpp.foreign_rooms import ForeignRooms
from hansa_xmpp.proto import convert, errors, iq, jid
from hansa_xmpp.proto.archive_query import is_archive_request
from hansa_xmpp.proto.commands import (
    ChatState,
    Command,
    DisplayedMarker,
    GroupchatMessage,
    Ignored,
    InviteDecline,
    JoinRequest,
    NickChange,
    PresenceUpdate,
    PrivateMessage,
    RoomChanges,
    SendStanzas,
    VoiceRequest,
)
from hansa_xmpp.proto.errors import StanzaRefusal
from hansa_xmpp.proto.muc import Muc
from hansa_xmpp.proto.parse import OversizedStanza
from hansa_xmpp.proto.payload import payload_of
from hansa_xmpp.proto.presence_xml import without_status
from hansa_xmpp.proto.room_requests import parse_direct_invite
from hansa_xmpp.proto.stanza import MAX_ID, NS_MUC, Stanza, parse_stanza, truncate_id
from hansa_xmpp.proto.targeted import ReactionSet
from hansa_xmpp.room_changes import RoomChangeRequests
from hansa_xmpp.room_requests import RoomRequests
from hansa_xmpp.service import HostedRoom, MucService
from hansa_xmpp.signals import Signals
from hansa_xmpp.submissions import ItemSubmitter, make_submission, with_policy_texts
from hansa_xmpp.subscriptions import Subscriptions
from hansa_xmpp.targets import TargetRefused
from hansa_xmpp.transport import Transport
from hansa_xmpp.user_queues import KeyedQueues, TaskSpawner
from hansa_xmpp.vcards import VCards, is_vcard_request

_LEAVE_TRIES = 20
#: Seconds between two looks for members who are away for too long.
_IDLE_INTERVAL_S = 3600.0
#: Seconds after which a leave is tried again that the database did not take.
_LEAVE_AGAIN = 5.0
#: Characters of a domain by which those whose stanzas are dropped are told apart in the log.
_SOURCE = 255
#: The memory of a stanza with its addresses, of an element and of an attribute, besides their text (bytes).
_STANZA, _ELEMENT, _ATTRIBUTE = 1024, 320, 150


@dataclass(frozen=True, slots=True)
class _LeaveTask:
    """The last connection of ``user`` to a room left it. ``full`` is its full JID: if it is alive, the user
    leaves. It is empty where they leave in any case.
    """

    user: NativeId
    full: str


@dataclass(frozen=True, slots=True)
class _StanzaTask:
    """A stanza, and in which life of the link it came."""

    stanza: Stanza
    epoch: int


@dataclass(frozen=True, slots=True)
class _Question:
    """An IQ that only asks."""

    stanza: Stanza


class StanzaHandler:
    """Implements ``hansa_xmpp.transport.StanzaListener``."""

    def __init__(self, ctx: NetworkContext, transport: Transport, spawn: TaskSpawner) -> None:
        config = ctx.config
        self._ctx = ctx
        self._told = LogLimit(ctx.log)
        self.service = MucService(ctx, transport, spawn, self.on_last_session_closed)
        self.foreign = ForeignRooms(ctx, self.service, spawn)
        self.signals = Signals(ctx, self.service, self.service.targets)
        self._submitter = ItemSubmitter(ctx)
        self._changes = RoomChangeRequests(ctx, self.service, self._submitter)
        self.chats = DirectChats(ctx, transport, self.service)
        self._requests = RoomRequests(ctx, self.service, self.chats, self._submitter)
        self.subscriptions = Subscriptions(ctx, self.service)
        self._archive = Archive(ctx, self.service, transport)
        self._vcards = VCards(ctx, self.service)
        self._bridge = BridgeChat(ctx)
        self._lanes: KeyedQueues[_StanzaTask | _LeaveTask | _Question] = KeyedQueues(
            self._run_lane, spawn, most=config.queue, most_bytes=config.queue_bytes
        )

    def on_state(self, up: bool, text: str) -> None:
        """See ``StanzaListener.on_state``."""
        self.service.on_link_state(up)
        self.foreign.on_link_state(up)
        self._ctx.report_status(NetworkStatus.UP if up else NetworkStatus.DOWN, text)

    def on_oversized(self, excess: OversizedStanza) -> None:
        """See ``StanzaListener.on_oversized``."""
        self._ctx.count("xmpp_refused", why="excess")
        stanza = self._parse_stanza(excess.element)
        if stanza is not None:
            self.service.send_stanzas(
                errors.error_reply(truncate_id(stanza), errors.POLICY_VIOLATION, excess.reason)
            )

    def on_unknown(self, element: Element) -> None:
        """See ``StanzaListener.on_unknown``."""
        self._ctx.count("xmpp_dropped", why="unsupported-stanza-type")
        self._told.info("no stanza", "no stanza: %r", element.tag[:200])

    def on_stanza(self, element: Element) -> None:
        """See ``StanzaListener.on_stanza``."""
        if self.service.link_ping.answered(element):
            return
        stanza = self._parse_stanza(element)
        if stanza is None:
            return
        if self.foreign.is_from_room(stanza):
            self.foreign.take_stanza(stanza, _stanza_bytes(element))
            return
        if stanza.kind == "iq" and stanza.type in {"result", "error"}:
            if not (self.service.pings.answered(stanza) or self.service.existence_queries.answered(stanza)):
                self._ctx.count("xmpp_ignored", why="unasked")
            return
        waits = (is_archive_request(stanza) and not stanza.to.resource) or is_vcard_request(stanza)
        if waits or (self._ctx.has_policies and stanza.kind == "iq" and stanza.type == "get"):
            self._queue_question(stanza, element)
            return
        if not stanza.to.local:
            self._to_service(stanza)
            return
        native = stanza.to.bare
        if stanza.kind in {"message", "presence"} and is_puppet(stanza.to.local):
            self._queue_chat(stanza, element)
            return
        room = self.service.room(native)
        if room is None:
            self.service.send_stanzas(
                errors.error_reply(truncate_id(stanza), errors.NOT_FOUND, "there is no such room")
            )
        elif stanza.kind == "iq" and stanza.type != "set":
            self._handle_iq(stanza, room)
        else:
            must = stanza.type in {"unavailable", "error"}
            arrived = _StanzaTask(stanza, self.service.epoch)
            if not self._enqueue_item(native, stanza.sender.bare, arrived, _stanza_bytes(element), must=must):
                self._refuse_full(stanza)
            elif stanza.kind == "presence" and not stanza.type and stanza.child("x", NS_MUC) is not None:
                self.service.mark_rejoining(room, stanza.sender.full)

    def _queue_chat(self, stanza: Stanza, element: Element) -> None:
        """Queues a message or presence of one user to the puppet of a person of another network."""
        item = _StanzaTask(stanza, self.service.epoch)
        chat = chat_id(stanza.to.bare, stanza.sender.bare)
        if not self._enqueue_item(chat, stanza.sender.bare, item, _stanza_bytes(element), must=False):
            self._refuse_full(stanza)

    def _refuse_full(self, stanza: Stanza) -> None:
        text = "too much waits; try again later"
        self.service.refuse_stanza(stanza, errors.RESOURCE_CONSTRAINT, text, why="queue")

    def _queue_question(self, stanza: Stanza, element: Element) -> None:
        """Queues a query of any user, which policies are asked about first."""
        asked = _Question(stanza)
        if not self._enqueue_item(
            self._ctx.config.component, stanza.sender.bare, asked, _stanza_bytes(element), must=False
        ):
            self._refuse_full(stanza)

    async def _answer_iq(self, stanza: Stanza) -> None:
        """A question to the service, a room or an occupant, unless a policy denies its server."""
        server = jid.domain_of(stanza.sender.bare)
        crossing = DirectoryQuery(
            network=self._ctx.id,
            server=server,
            address=stanza.to.bare if stanza.to.local else "",
            outbound=False,
        )
        verdict = await self._ctx.check(crossing)
        for link in self._ctx.list_links():
            if stanza.to.bare in {link.native.id, self._ctx.config.component}:
                await self._ctx.get_judged_view(link.native.id)
        if not verdict.allowed:
            self.service.refuse_stanza(stanza, errors.FORBIDDEN, verdict.text)
        elif not stanza.to.local:
            self._to_service(stanza)
        elif is_vcard_request(stanza):
            await self._vcards.answer(stanza, self.service.room(stanza.to.bare))
        elif (room := self.service.room(stanza.to.bare)) is None:
            self.service.send_stanzas(
                errors.error_reply(truncate_id(stanza), errors.NOT_FOUND, "there is no such room")
            )
        elif is_archive_request(stanza) and not stanza.to.resource:
            await self._archive.answer(stanza, room)
        else:
            self._handle_iq(stanza, room)

    def on_last_session_closed(self, native: str, user: NativeId, full: str = "") -> None:
        """Submits the leave of a user, unless they are back when their turn comes. A server says that a
        connection has left a room also where it is lost: who cannot be reached by it any more has not left.
        """
        self._enqueue_item(native, user.id, _LeaveTask(user, full), 0, must=True)

    async def leave_idle_members(self) -> None:
        """Lets members leave whose absence has lasted too long, for as long as the network runs."""
        while True:
            while idle := await self.service.absences.list_idle():
                for native, user in idle:
                    await self._submit_leave(native, user)
                    await self.service.absences.end(native, user)
            await asyncio.sleep(_IDLE_INTERVAL_S)

    def _enqueue_item(
        self, native: str, bare: str, item: _StanzaTask | _LeaveTask | _Question, size: int, *, must: bool
    ) -> bool:
        return self._lanes.put(native, bare, item, size, must=must)

    def _parse_stanza(self, element: Element) -> Stanza | None:
        component = self._ctx.config.component
        try:
            return parse_stanza(element, component)
        except RemoteProtocolError as error:
            source = f"{error.code} {jid.domain_of(element.get('from', ''))[:_SOURCE]}"
            self._told.info(source, "stanza dropped: %s", error.reason)
            if error.code != errors.JID_MALFORMED.name:
                self._ctx.count("xmpp_dropped", why=error.code)
                return None
        self._ctx.count("xmpp_refused", why=errors.JID_MALFORMED.name)
        # Nobody has the address that it was sent to, so the service speaks for it.
        stanza = truncate_id(
            parse_stanza(Element(element.tag, {**element.attrib, "to": component}), component)
        )
        self.service.send_stanzas(
            errors.error_reply(stanza, errors.JID_MALFORMED, "the address is malformed")
        )
        return None

    def _to_service(self, stanza: Stanza) -> None:
        if stanza.kind == "iq":
            rooms = list[tuple[str, str]]()
            for link in self._ctx.list_links():
                view = self._ctx.get_view(link.native.id)
                if link.hosted and view is not None and view.facts.join_rule == "public":
                    rooms.append((link.native.id, view.facts.name or link.native.id.partition("@")[0]))
            for command in iq.to_service(stanza, sorted(rooms)):
                self.service.send_stanzas(command.stanzas)
        elif stanza.kind == "message" and not self._enqueue_item(
            stanza.to.bare,
            stanza.sender.bare,
            _StanzaTask(stanza, self.service.epoch),
            _stanza_bytes(stanza.element),
            must=False,
        ):
            self._refuse_full(stanza)

    def _handle_iq(self, stanza: Stanza, room: HostedRoom) -> None:
        for command in iq.to_room(stanza, room.muc, self.service.view(room.muc.room)):
            if isinstance(command, SendStanzas):
                self.service.send_stanzas(command.stanzas)

    async def _run_lane(self, native: str, items: Sequence[_StanzaTask | _LeaveTask | _Question]) -> None:
        """One person's turn in one room. Words that follow each other are submitted together."""
        words: list[GroupchatMessage] = []
        for item in items:
            if isinstance(item, _StanzaTask) and not item.stanza.to.local:
                self.service.send_stanzas(await self._bridge.answer(truncate_id(item.stanza)))
                continue
            if isinstance(item, _StanzaTask) and is_chat_id(native):
                if item.stanza.kind == "presence":
                    await self.subscriptions.handle_stanza(native, item.stanza)
                elif (invite := parse_direct_invite(item.stanza)) is not None:
                    await self._requests.invite_directly(item.stanza, invite)
                else:
                    await self.chats.handle_stanza(item.stanza)
                continue
            if isinstance(item, _Question):
                try:
                    await self._answer_iq(item.stanza)
                except StoreFault:
                    self.service.send_stanzas(
                        errors.error_reply(truncate_id(item.stanza), *errors.STORE_FAULT)
                    )
                continue
            room = self.service.room(native)
            if room is None:
                return
            await self.service.wait_verified(room)
            if isinstance(item, _LeaveTask):
                await self._submit_messages(native, words)
                if not item.full or await self.service.is_session_alive(native, item.full):
                    await self._submit_leave(native, item.user)
                else:
                    self._ctx.count("xmpp_sessions_lost")
                continue
            stanza = item.stanza
            if stanza.kind == "iq":
                commands: Sequence[Command] = iq.to_room(stanza, room.muc, self.service.view(native))
            else:
                if stanza.kind == "presence" and stanza.type == "unavailable":
                    stanza = await self._judge_leave(stanza, room.muc)
                commands = room.muc.handle_stanza(stanza)
            for command in commands:
                if isinstance(command, GroupchatMessage) and not command.names_events:
                    words.append(command)
                    continue
                await self._submit_messages(native, words)
                if isinstance(command, GroupchatMessage):
                    await self._submit_targeted(native, room, command)
                elif isinstance(command, RoomChanges):
                    await self._changes.submit(native, room, command)
                elif isinstance(command, InviteDecline | VoiceRequest | PrivateMessage):
                    await self._requests.handle(native, room, command)
                elif isinstance(command, ChatState | DisplayedMarker):
                    await self._submit_signal(native, room, command)
                elif isinstance(command, PresenceUpdate):
                    await self._update_presence(room, command)
                elif isinstance(command, JoinRequest):
                    await self._join_occupant(native, room, command, item.epoch)
                elif isinstance(command, NickChange):
                    await self._submit_nick(native, room, command)
                elif isinstance(command, Ignored):
                    self._ctx.count("xmpp_ignored", why=command.why)
            await self.service.apply_commands(native, commands)
            if room.muc.roster.suspended(stanza.sender.full):  # and was not let in again
                await self.service.apply_commands(native, room.muc.close_sessions([stanza.sender.full]))
        await self._submit_messages(native, words)

    async def _join_occupant(self, native: str, room: HostedRoom, enter: JoinRequest, epoch: int) -> None:
        if not await self._is_still_connected(native, enter, epoch):
            room.muc.roster.release(enter.user)
            return
        person = self.service.view(native).person(enter.user)
        joined = person is not None and person.membership is Membership.JOIN
        if person is None or not joined or person.name != enter.nick:
            content = Member(user=enter.user, membership=Membership.JOIN, name=enter.nick)
            asked = with_policy_texts(
                self._ctx, make_submission(self._ctx, native, enter.user, content), enter.stanza
            )
            refused = await self._submitter.submit_one(asked, policy=errors.FORBIDDEN)
        else:
            refused = await self._join_refusal(native, enter)
        if refused is not None:
            self._ctx.count("xmpp_refused", why=refused[0].name)
            self.service.send_stanzas(room.muc.reply_error(enter, *refused))
            return
        await self.service.wait_verified(room)
        if await self._is_still_connected(native, enter, epoch):
            try:
                enter = await self.service.presences.judge_join(room.muc, enter)
                await self.service.complete_join(native, enter)
            except StoreFault:
                self._ctx.count("xmpp_refused", why=errors.RESOURCE_CONSTRAINT.name)
                self.service.send_stanzas(room.muc.reply_error(enter, *errors.STORE_FAULT))
                room.muc.roster.release(enter.user)
                if not joined:
                    self.on_last_session_closed(native, enter.user)
        else:
            room.muc.roster.release(enter.user)
            if not joined:
                await self._submit_leave(native, enter.user)

    async def _join_refusal(self, native: str, enter: JoinRequest) -> StanzaRefusal | None:
        """Returns the error for a denied join. An occupant who enters on one more connection does not join a
        second time, and may have been denied since.
        """
        if not self._ctx.has_policies:
            return None
        crossing = Join(
            network=self._ctx.id,
            room=native,
            user=enter.user,
            user_server=jid.domain_of(enter.user.id),
            outbound=False,
            texts=(enter.nick, *convert.texts_of(enter.stanza)),
        )
        verdict = await self._ctx.check(crossing)
        return None if verdict.allowed else (errors.FORBIDDEN, verdict.text)

    async def _is_still_connected(self, native: str, enter: JoinRequest, epoch: int) -> bool:
        """True if the sender of a join is still connected. After a break of the component's link the sender
        may have left without notice.
        """
        return epoch == self.service.epoch or await self.service.is_session_alive(
            native, enter.stanza.sender.full
        )

    async def _submit_nick(self, native: str, room: HostedRoom, rename: NickChange) -> None:
        content = Member(user=rename.user, membership=Membership.JOIN, name=rename.nick)
        asked = with_policy_texts(
            self._ctx, make_submission(self._ctx, native, rename.user, content), rename.stanza
        )
        refused = await self._submitter.submit_one(asked)
        if refused is None:
            with suppress(StoreFault):  # it is only a restart that has them under the nick of before
                await self.service.rename(native, rename.user, rename.nick)
        else:
            self.service.send_stanzas(room.muc.reply_error(rename, *refused))

    async def _submit_messages(self, native: str, words: list[GroupchatMessage]) -> None:
        """Submits and empties ``words``; the sender of a refused message gets an error. Accepted messages are
        shown by the log, not here.
        """
        if not words:
            return
        said, items = list(words), list[Submission]()
        words.clear()
        for say in said:
            assert say.content is not None  # it is about nothing else
            inbound = make_submission(self._ctx, native, say.user, say.content, say.ids)
            items.append(self._with_stanza(inbound, say))
        commands = list[Submission]()
        answers = await self._submitter.submit_items(items, commands)
        room = self.service.room(native)
        for say, item in zip(said, items, strict=True):
            if room is not None and item in commands:  # nobody else sees it, and its sender waits for it
                self.service.send_stanzas(room.muc.echo_command(say))
        for say, answer in zip(said, answers, strict=True):
            refused = answer
            if (
                refused is not None
                and refused[0] is errors.POLICY_VIOLATION
                and isinstance(say.content, Member)
            ):
                refused = (errors.FORBIDDEN, refused[1])  # an invite: of persons, not of words
            self._answer(say, refused)
        if room is not None and any(r is not None and r[0] == errors.NOT_ACCEPTABLE for r in answers):
            # The authority does not know this person as joined; then they are not here either.
            occupant = room.muc.roster.by_user(said[0].user)
            for full in list(occupant.sessions) if occupant else ():
                await self.service.apply_commands(native, room.muc.close_session(full, 307, 333))

    async def _submit_targeted(self, native: str, room: HostedRoom, said: GroupchatMessage) -> None:
        """Submits what concerns an earlier message: all events of a set of reactions together."""
        try:
            resolved = await self.service.targets.resolve_message(native, said)
        except TargetRefused as refused:
            self._answer(said, (refused.condition, refused.text))
            return
        except StoreFault:
            self._answer(said, errors.STORE_FAULT)
            return
        items, last = list[Submission](), len(resolved.contents)
        for number, content in enumerate(resolved.contents, 1):
            ids = said.ids if number == last else None
            inbound = make_submission(self._ctx, native, said.user, content, ids)
            items.append(self._with_stanza(inbound, said, whole=resolved.whole))
        if not items and isinstance(said.about, ReactionSet):  # all is as it was, and its sender waits for it
            self.service.send_stanzas(room.muc.echo_reactions(said, said.about))
            return
        answers = await self._submitter.submit_items(items)
        self._answer(said, next(filter(None, answers), None))

    async def _submit_signal(
        self, native: str, room: HostedRoom, signal: ChatState | DisplayedMarker
    ) -> None:
        try:
            await self.signals.submit_signal(native, room, signal)
        except StoreFault:
            self._ctx.count("xmpp_dropped", why="signals")

    async def _update_presence(self, room: HostedRoom, update: PresenceUpdate) -> None:
        try:
            self.service.send_stanzas(await self.service.presences.take_update(room.muc, update))
        except StoreFault:
            self._ctx.count("xmpp_dropped", why="presence")

    async def _judge_leave(self, stanza: Stanza, muc: Muc) -> Stanza:
        """Returns a presence of someone who leaves, as the policies let it be shown."""
        try:
            return await self.service.presences.judge_leave(stanza, muc.user(stanza))
        except StoreFault:
            return without_status(stanza)

    def _answer(self, said: GroupchatMessage, refused: StanzaRefusal | None) -> None:
        if refused is not None:
            self._ctx.count("xmpp_refused", why=refused[0].name)
            self.service.send_stanzas(errors.error_reply(said.stanza, *refused))
        elif said.stanza.kind == "iq":
            self.service.send_stanzas(iq.result(said.stanza).stanzas)

    async def _submit_leave(self, native: str, user: NativeId) -> None:
        room = self.service.room(native)
        if room is None or room.muc.roster.is_present_or_joining(user):
            return
        person = self.service.view(native).person(user)
        if person is None or person.membership is not Membership.JOIN:
            return
        inbound = make_submission(self._ctx, native, user, Member(user=user, membership=Membership.LEAVE))
        tried = 0
        while tried < _LEAVE_TRIES:
            try:
                (outcome,) = await self._ctx.submit([inbound])
            except Busy as busy:
                tried += 1
                await asyncio.sleep(busy.after * tried)
                continue
            except StoreFault:  # who is gone does not come again to leave
                await asyncio.sleep(_LEAVE_AGAIN)
                continue
            except LocalProtocolError as error:
                self._log_failed_leave(native, user, str(error))
                return
            if outcome.refusal is not None:
                self._log_failed_leave(native, user, outcome.refusal.text)
            return

    def _log_failed_leave(self, native: str, user: NativeId, why: str) -> None:
        self._told.warning(f"leave {native}", "%s could not leave %s: %s", user, native, why)

    def _with_stanza(self, inbound: Submission, said: GroupchatMessage, *, whole: bool = False) -> Submission:
        """With what a message says besides its content: its ids, its payload, and its texts for policies.
        ``whole``: the content does not say all of the body.
        """
        if isinstance(inbound.content, Message | Edit | Encrypted | Custom):
            whole = whole or convert.is_more_than_text(said.stanza, inbound.content)
            named = (one for one in (said.ids.id, said.ids.origin) if 0 < len(one) <= MAX_ID)
            ids = tuple(dict.fromkeys(named))
            edits = isinstance(inbound.content, Edit)
            payload = payload_of(said.stanza, whole=whole, edits=edits)
            inbound = replace(inbound, chosen_ids=ids, payload=payload)
        return with_policy_texts(self._ctx, inbound, said.stanza)


def _stanza_bytes(element: Element) -> int:
    """About how much memory a stanza takes."""
    return _STANZA + sum(
        _ELEMENT + len(e.text or "") + len(e.tail or "") + sum(_ATTRIBUTE + len(v) for v in e.attrib.values())
        for e in element.iter()
    )
