"""From the stanzas of rooms elsewhere to submissions, and to the reflections of what we sent there."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hansa import (
    Busy,
    Content,
    Edit,
    LocalProtocolError,
    Member,
    Membership,
    Message,
    NativeId,
    NetworkContext,
    Placement,
    RemoteProtocolError,
    StoreFault,
    Submission,
    SubmitResult,
    TokenBuckets,
    Topic,
    Typing,
    display_of,
    truncate_utf8,
)

from hansa_xmpp.foreign_echoes import ForeignEchoes
from hansa_xmpp.foreign_session import ForeignSession
from hansa_xmpp.foreign_store import ForeignStore, ReadPosition
from hansa_xmpp.proto import convert
from hansa_xmpp.proto.commands import GroupchatMessage
from hansa_xmpp.proto.foreign_room import (
    ForeignOccupant,
    Happening,
    is_of_room,
    message_native_id,
    stanza_id_of,
)
from hansa_xmpp.proto.signal_xml import parse_chat_state
from hansa_xmpp.proto.stanza import MAX_ID, Stanza
from hansa_xmpp.proto.targeted import (
    Correction,
    ReactionSet,
    Reply,
    RetractionRequest,
    Targeted,
    parse_targeted,
)
from hansa_xmpp.submissions import with_policy_texts
from hansa_xmpp.targets import TargetRefused, Targets

#: Characters of the name of an occupant that other networks are told.
_MAX_NAME = 255
#: The beginning of the key of a draft, which the core gives: see ``hansa.LateAuthority``.
DRAFT = "draft-"
#: Occupants of one room that are shown to come or leave: per second, and at once besides those on entering.
_MEMBERS_RATE, _MEMBERS_AT_ONCE = 5.0, 50.0
#: Chat states of one room: per second, and at once.
_SIGNAL_RATE, _SIGNALS_AT_ONCE = 20.0, 60.0


@dataclass(frozen=True, slots=True)
class HeardMessage:
    """A message of the room, and who sent it. ``at`` is when it came, None for one that comes now."""

    stanza: Stanza
    sender: ForeignOccupant
    at: int | None = None


@dataclass(frozen=True, slots=True)
class MembersChanged:
    """Occupants came or left: those who are shown are not those who are there."""


HeardItem = HeardMessage | Happening | MembersChanged


class ForeignInbound:
    """Submits what happens in rooms elsewhere."""

    def __init__(self, ctx: NetworkContext, store: ForeignStore, targets: Targets) -> None:
        self._ctx = ctx
        self.store = store
        self.targets = targets
        self.echoes = ForeignEchoes()
        self._signals = TokenBuckets(ctx.clock, _SIGNAL_RATE, _SIGNALS_AT_ONCE)
        at_once = _MEMBERS_AT_ONCE + 2 * ctx.config.muc_members
        self._comings = TokenBuckets(ctx.clock, _MEMBERS_RATE, at_once)
        #: Who waits for the reflection of a message, by room and id of the message.
        self.waiting: dict[tuple[str, str], asyncio.Future[str]] = {}

    async def take(self, session: ForeignSession, items: Sequence[HeardItem]) -> float:
        """Submits what happened, in order, and stores how far the room was read. Returns after how many
        seconds further members may be shown, 0 if all are.
        """
        position, wait = session.position, 0.0
        for item in items:
            if self._ctx.get_link(session.room) is None:
                return 0.0
            if isinstance(item, MembersChanged):
                wait = await self._show_members(session)
                continue
            try:
                if isinstance(item, Happening):
                    await self.take_happening(session, item)
                    continue
                await self._take_message(session, item)
            except StoreFault:
                raise
            except Exception:  # a message of another service must not end the network
                self._ctx.count("xmpp_dropped", why="fault")
                self._ctx.log.exception("something that %s said was not taken", session.room)
                continue
            position = self._position_after(session, item, position)
        if position is not None and position != session.position:
            session.position = position
            await self.store.put_position(session.room, position)
        return wait

    async def _show_members(self, session: ForeignSession) -> float:
        """Shows who is there, at a rate; the seconds until further ones may be shown, 0 if there are none."""
        session.members_queued = False
        shown = self.shown(session) - {session.room}
        for item in session.state.differences(shown, self._ctx.config.muc_members):
            if wait := self._comings.take(session.room):
                return wait
            await self.take_happening(session, item)
        return 0.0

    def is_plain(self, session: ForeignSession, item: Happening) -> bool:
        """True if a person came or left by themselves, which the present of the room says too."""
        content, view = item.content, self._ctx.get_view(session.room)
        if (
            not isinstance(content, Member)
            or item.sender != content.user.id
            or content.reason
            or view is None
        ):
            return False
        renamed = content.membership is Membership.JOIN and view.membership(content.user) is Membership.JOIN
        return not renamed

    def _position_after(
        self, session: ForeignSession, item: HeardMessage, before: ReadPosition | None
    ) -> ReadPosition | None:
        if item.stanza.text_of("body") is None and not stanza_id_of(item.stanza, session.room):
            return before
        known = stanza_id_of(item.stanza, session.room) if session.state.traits.stable_ids else ""
        return ReadPosition(last=known, at=item.at or self._ctx.clock.now())

    async def take_happening(self, session: ForeignSession, item: Happening) -> None:
        """Someone came, left or was removed."""
        content = item.content
        if not isinstance(content, Member):
            return
        view = self._ctx.get_view(session.room)
        before = view.membership(content.user) if view is not None else None
        enters = content.membership is Membership.JOIN
        if not enters and content.membership is Membership.LEAVE and before is not Membership.JOIN:
            return
        if enters and before is Membership.JOIN:
            person = view.person(content.user) if view is not None else None
            if person is not None and person.name == content.name:
                return
        elif enters and self.members_of(session) >= self._ctx.config.muc_members:
            return
        if content.name:
            content = replace(content, name=truncate_utf8(content.name, _MAX_NAME))
        if item.sender != content.user.id:
            await self._show_sender(session, ForeignOccupant(item.name, item.sender))
        outcome = await self._submit(self._submission(session, item.sender, content))
        if item.sender != content.user.id and outcome is not None and outcome.refused is not None:
            # Who removed them has no rank here, and they are gone all the same.
            left = replace(content, membership=Membership.LEAVE)
            await self._submit(self._submission(session, content.user.id, left))

    async def is_refused(self, session: ForeignSession, item: Happening) -> bool:
        """Submits what an occupant did to a person of another network; True if it is refused."""
        await self._show_sender(session, ForeignOccupant(item.name, item.sender))
        outcome = await self._submit(self._submission(session, item.sender, item.content))
        return outcome is None or outcome.refused is not None

    async def tell(self, session: ForeignSession, sender: str, name: str, content: Message) -> None:
        """Says something to the other networks, as an occupant or as the room."""
        await self._show_sender(session, ForeignOccupant(name, sender))
        await self._submit(self._submission(session, sender, content))

    def name_of(self, session: ForeignSession, person: NativeId) -> str:
        """What a person of another network is called in the room."""
        view = self._ctx.get_view(session.room)
        return view.name_of(person) if view is not None else display_of(person)

    def members_of(self, session: ForeignSession) -> int:
        """How many of the room's occupants are shown as members."""
        return len(self.shown(session))

    def shown(self, session: ForeignSession) -> set[str]:
        """The native ids of the occupants that are shown as members."""
        view = self._ctx.get_view(session.room)
        people = () if view is None else view.joined()
        own = (one.user.id for one in people if one.user.network == self._ctx.id)
        return {user for user in own if is_of_room(user, session.room)}

    async def _show_sender(self, session: ForeignSession, sender: ForeignOccupant) -> None:
        """Lets the sender of something be a member, if they are not yet."""
        view = self._ctx.get_view(session.room)
        user = NativeId(self._ctx.id, sender.user)
        if view is None or view.membership(user) is Membership.JOIN:
            return
        name = truncate_utf8(sender.nick or session.room.partition("@")[0], _MAX_NAME)
        content = Member(user=user, membership=Membership.JOIN, name=name)
        await self._submit(self._submission(session, sender.user, content))

    async def _take_message(self, session: ForeignSession, item: HeardMessage) -> None:
        stanza, room = item.stanza, session.room
        if item.sender.ours:
            await self._take_reflection(session, item)
            return
        if len(stanza.id.encode(errors="surrogatepass")) > MAX_ID:
            stanza = replace(stanza, id="")
        state = parse_chat_state(stanza)
        may_signal = item.at is None and state in {"composing", "paused"}
        if may_signal and not self._signals.take(room):
            user = NativeId(self._ctx.id, item.sender.user)
            await self._ctx.send_ephemeral(room, Typing(user=user, typing=state == "composing"))
        try:
            said = self._parse(stanza, item.sender)
        except RemoteProtocolError as error:
            self._ctx.count("xmpp_dropped", why=error.code or "foreign message")
            return
        if said is None or (isinstance(said.content, Topic) and self._is_known_subject(session, item, said)):
            return
        if isinstance(said.content, Message) and self._is_echo(item, said.content):
            self._ctx.count("xmpp_ignored", why="echo")
            return
        await self._show_sender(session, item.sender)
        try:
            said = await self._with_event_ids(room, said)
            resolved = await self.targets.resolve_message(room, said)
        except TargetRefused:
            if not isinstance(said.content, Message):
                self._ctx.count("xmpp_ignored", why="unknown target")
                return
            await self._submit_all(session, said, item, (said.content,))  # it is words all the same
            return
        await self._submit_all(session, said, item, resolved.contents)

    def _is_echo(self, item: HeardMessage, content: Message) -> bool:
        """True if another gateway says again what we said a moment ago."""
        if item.at is not None or not content.text:
            return False
        now, text = self._ctx.clock.monotonic(), item.stanza.text_of("body") or ""
        return self.echoes.is_echo_of_sent(item.stanza.sender.bare, item.sender.nick, text, now)

    def _parse(self, stanza: Stanza, sender: ForeignOccupant) -> GroupchatMessage | None:
        body = stanza.text_of("body") or ""
        if len(body.encode(errors="surrogatepass")) > convert.MAX_TEXT:
            self._ctx.count("xmpp_dropped", why="large foreign message")
            return None
        about = parse_targeted(stanza)
        content = None
        if not isinstance(about, ReactionSet | RetractionRequest):
            content = convert.content_of(stanza, self._ctx.id)
            if content is None:
                return None
        answer = convert.message_of(stanza, about.body, self._ctx.id) if isinstance(about, Reply) else None
        user, ids = NativeId(self._ctx.id, sender.user), convert.parse_ids(stanza)
        if len(ids.origin.encode(errors="surrogatepass")) > MAX_ID:
            ids = replace(ids, origin="")
        return GroupchatMessage(stanza, user, content, ids, about, answer)

    @staticmethod
    def _is_known_subject(session: ForeignSession, item: HeardMessage, said: GroupchatMessage) -> bool:
        """True for a subject that the room has already. What was missed is taken in any case."""
        assert isinstance(said.content, Topic)
        before, session.subject = session.subject, said.content.text
        return item.at is None and before == said.content.text

    async def _with_event_ids(self, room: str, said: GroupchatMessage) -> GroupchatMessage:
        """With the core's id of the message that it is about, in the place of the room's."""
        about: Targeted | None = said.about
        if about is None or isinstance(about, Correction):
            return said
        event = await self._ctx.event_by(message_native_id(room, about.id))
        if event is None and isinstance(about, RetractionRequest):  # some name the sender's id
            event = await self._ctx.event_by_chosen_id(room, said.user, about.id)
        return replace(said, about=replace(about, id=event.id if event is not None else ""))

    async def _submit_all(
        self, session: ForeignSession, said: GroupchatMessage, item: HeardMessage, contents: Sequence[Content]
    ) -> None:
        named = tuple(dict.fromkeys(filter(None, (said.ids.origin, said.ids.id))))
        for number, content in enumerate(contents):
            last = number + 1 == len(contents)
            made = self._submission(session, said.user.id, content, item.at)
            stable = stanza_id_of(item.stanza, session.room) if session.state.traits.stable_ids else ""
            native = message_native_id(session.room, stable) if stable else self._made_id(session, item)
            if native:
                native = native if last else f"{native} {number}"
                made = replace(made, origin=NativeId(self._ctx.id, native))
            if last and isinstance(content, Message | Edit):
                made = replace(made, chosen_ids=named)
            await self._submit(with_policy_texts(self._ctx, made, item.stanza))

    @staticmethod
    def _made_id(session: ForeignSession, item: HeardMessage) -> str:
        """The native id of a message to which the room gives none, empty where its sender gave none either:
        history has the same message again.
        """
        stanza = item.stanza
        if not stanza.id:
            return ""
        text = "\0".join((stanza.sender.resource, stanza.id, stanza.text_of("body") or ""))
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]
        return message_native_id(session.room, f"made {digest}")

    def _submission(
        self, session: ForeignSession, sender: str, content: Content, at: int | None = None
    ) -> Submission:
        return Submission(
            origin=NativeId(self._ctx.id, f"{session.room} {self._ctx.random.bytes(12).hex()} "),
            room=NativeId(self._ctx.id, session.room),
            sender=NativeId(self._ctx.id, sender),
            content=content,
            ts=self._ctx.clock.now() if at is None else at,
            placement=Placement.LIVE if at is None else Placement.GAP,
        )

    async def _submit(self, submission: Submission) -> SubmitResult | None:
        """Submits one thing, again while the room's queue is full; None where the room is not linked."""
        while True:
            try:
                (outcome,) = await self._ctx.submit([submission])
            except Busy as busy:
                await asyncio.sleep(busy.after or 1.0)
                continue
            except LocalProtocolError as error:
                self._ctx.log.info("not submitted: %s", error)
                return None
            if outcome.refused is not None:
                self._ctx.count("xmpp_foreign_refused", why=outcome.refused.code.value)
            return outcome

    async def _take_reflection(self, session: ForeignSession, item: HeardMessage) -> None:
        """One of our own messages came back."""
        stanza, room = item.stanza, session.room
        if not stanza.id or len(stanza.id.encode(errors="surrogatepass")) > MAX_ID:
            return
        stable = stanza_id_of(stanza, room) if session.state.traits.stable_ids else ""
        native = message_native_id(room, stable or f"ours {stanza.id}")
        if await self.store.reflected(room, stanza.id) is None:
            await self.store.put_reflected(room, stanza.id, native)
        future = self.waiting.get((room, stanza.id))
        if future is not None and not future.done():
            future.set_result(native)
            return
        link = self._ctx.get_link(room)
        if link is not None and link.authority and stanza.id.startswith(DRAFT):
            late = self._submission(session, room, Message(text=stanza.text_of("body") or ""), item.at)
            origin = NativeId(self._ctx.id, native)
            await self._submit(replace(late, origin=origin, reflects=stanza.id))

    def refuse(self, room: str, message: str, error: Exception) -> bool:
        """An error came for one of our messages; False if nobody waits for it."""
        future = self.waiting.get((room, message))
        if future is None:
            return False
        if not future.done():
            future.set_exception(error)
        return True
