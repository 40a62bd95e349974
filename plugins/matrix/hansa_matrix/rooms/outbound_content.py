"""What people of other networks do, as events of a Matrix room: what it concerns gets its names there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from hansa import (
    Attachment,
    Content,
    Edit,
    Event,
    Kind,
    Member,
    Message,
    NativeId,
    NetworkContext,
    Retraction,
    SpanKind,
    Style,
    Surroundings,
    display_of,
    fallback_text,
    target_of,
)
from hansa.model.media_sources import sources_of

from hansa_matrix.conversion.native_ids import NativeIds
from hansa_matrix.conversion.to_matrix import EventDraft, MatrixNames, event_from_content
from hansa_matrix.proto.ids import is_valid_event_id
from hansa_matrix.proto.message_content import MAX_MENTIONS

#: Files of one message that have an event each; of further ones the message says the names.
_MAX_FILES = 20


class OutboundContent:
    """Makes the drafts of one room."""

    def __init__(self, ctx: NetworkContext, ids: NativeIds, room_id: str) -> None:
        self._ctx = ctx
        self._ids = ids
        self._room_id = room_id

    async def draft_of(self, content: Content) -> EventDraft | None:
        """The event that a content is; None for what nobody can do in a Matrix room. What concerns an event
        that Matrix does not have is told in words.
        """
        wanted, target, native = target_of(content), None, ""
        if wanted:
            target = await self._ctx.event_with_id(self._room_id, wanted)
            native = await self._event_id(target)
            if not native:
                content = self._in_words(content, target)
        if isinstance(content, Edit) and target is not None and isinstance(target.content, Message):
            content = replace(content, message=self._without_kept_files(content.message, target.content))
        names = MatrixNames(events={wanted: native} if native else {}, files=self._file_uris(content))
        message = content.message if isinstance(content, Edit) else content
        if isinstance(content, Member):
            names = replace(names, users={content.user: await self._ctx.get_ghost_id(content.user)})
        if not isinstance(message, Message):
            return event_from_content(content, names)
        if message.thread and isinstance(content, Message):
            root = await self._event_id(await self._ctx.event_with_id(self._room_id, message.thread))
            names = replace(names, events={**names.events, message.thread: root})
        if message.mentions or message.spans:
            names = replace(names, users=await self._user_ids(_mentioned(message)))
        if native and target is not None and isinstance(content, Message):
            names = replace(names, answered=target.sender.id if target.sender.network == self._ctx.id else "")
        return event_from_content(content, names)

    def parts_of(self, content: Content) -> list[Content]:
        """A content, or for a message with several files one message for each: an event of Matrix has one."""
        if not isinstance(content, Message) or len(shown := self._events_of_files(content)) < 2:
            return [content]
        files, (first, *others) = content.attachments, shown
        named = [file for file in files if file is first or file not in others]
        return [
            replace(content, attachments=tuple(named)),
            *(Message(text="", thread=content.thread, attachments=(file,)) for file in others),
        ]

    def _without_kept_files(self, edited: Message, before: Message) -> Message:
        """An edited message without the files that have events of their own, which stay."""
        kept = {file.source for file in self._events_of_files(before)[1:]}
        first = self._events_of_files(edited)[:1]
        files = [file for file in edited.attachments if file in first or file.source not in kept]
        return replace(edited, attachments=tuple(files))

    def _events_of_files(self, message: Message) -> list[Attachment]:
        """The files of a message that have an event each, in the order of the events."""
        files = message.attachments
        shown = [file for file in files if file.source is not None and self._ids.uri_of(file.source)]
        return shown[:_MAX_FILES]

    def _file_uris(self, content: Content) -> dict[NativeId | None, str]:
        uris = {source: self._ids.uri_of(source) for source in sources_of(content)}
        return {source: uri for source, uri in uris.items() if uri}

    async def is_known(self, event_id: str) -> bool:
        """True if Matrix has an event of the core."""
        return bool(await self._event_id(await self._ctx.event_with_id(self._room_id, event_id)))

    async def other_parts(self, native: str) -> list[tuple[str, str]]:
        """The ghost and the id of each other event that a message of another network is, by one of them."""
        event = await self._ctx.event_by(native)
        if event is None or event.sender.network == self._ctx.id:
            return []
        others = [one for one in await self._ctx.native_ids(event) if one != native]
        ghost = await self._ctx.get_ghost_id(event.sender) if others else ""
        return [(ghost, one) for one in others if is_valid_event_id(one)]

    async def further_redactions(self, content: Retraction | Edit) -> list[EventDraft]:
        """The redactions of a message's further files: of those that an edit leaves out, or of all that a
        retraction takes back, with the edits, whose words would stay. These are as many as the core lets
        there be.
        """
        target = await self._ctx.event_with_id(self._room_id, content.target)
        if target is None or not isinstance(target.content, Message):
            return []
        parts = (await self._ctx.native_ids(target))[1:] if target.sender.network != self._ctx.id else []
        if isinstance(content, Edit):
            kept = {file.source for file in self._events_of_files(content.message)[1:]}
            files = self._events_of_files(target.content)
            parts = [part for part, file in zip(parts, files[1:], strict=False) if file.source not in kept]
        natives = [native for native in parts if is_valid_event_id(native)]
        if isinstance(content, Retraction):
            natives += [await self._event_id(edit) async for edit in self._ctx.related(target, Kind.EDIT)]
        return [("m.room.redaction", None, {"redacts": native}) for native in natives if native]

    async def _event_id(self, event: Event | None) -> str:
        native = await self._ctx.native_id(event) if event is not None else None
        return native if native and is_valid_event_id(native) else ""

    async def _user_ids(self, users: Iterable[NativeId]) -> dict[NativeId, str]:
        return {user: await self._ctx.get_ghost_id(user) for user in islice(users, MAX_MENTIONS)}

    def _in_words(self, content: Content, target: Event | None) -> Content:
        """A content that concerns an event which Matrix does not have."""
        if isinstance(content, Message) and target is None:
            return replace(content, reply_to="")
        around = Surroundings()
        if target is not None:
            view = self._ctx.get_view(self._room_id)
            name = view.name_of(target.sender) if view is not None else display_of(target.sender)
            around = Surroundings(target=target, target_name=name)
        if isinstance(content, Message):
            said = replace(content, attachments=())
            return replace(content, text=fallback_text(said, around), spans=(), reply_to="")
        if isinstance(content, Edit):
            return Message(text=fallback_text(content, around), style=content.message.style)
        return Message(text=fallback_text(content, around), style=Style.NOTICE)


def _mentioned(message: Message) -> Iterable[NativeId]:
    spans = (span.user for span in message.spans if span.kind is SpanKind.MENTION)
    return dict.fromkeys([*message.mentions, *(user for user in spans if user is not None)])
