"""Networks that are broken in replies, files, long edits and messages that they do not know."""

from __future__ import annotations

from hansa import Edit, Message, Reaction, Retraction

from .wire import Wire


class Curt(Wire):
    """Shows the first line of what begins with a quote."""

    def tell(self, room, content):
        if isinstance(content, Message) and content.text.startswith("> "):
            content = Message(text=content.text.partition("\n")[0])
        super().tell(room, content)


class Quoteless(Wire):
    """Takes quotes for something that nobody wants to read twice."""

    def tell(self, room, content):
        if isinstance(content, Message) and content.text.startswith("> "):
            content = Message(text=content.text.rpartition("\n")[2])
        super().tell(room, content)


class Certain(Wire):
    """Takes for granted that it knows each message that others concern."""

    async def send(self, delivery):
        if isinstance(delivery.content, Edit | Reaction | Retraction) and delivery.target is not None:
            _ = (await self.ctx.native_ids(delivery.target))[0]
        return await super().send(delivery)


class Fileless(Wire):
    """Drops the last line of a message with a file, which tells of the file."""

    def tell(self, room, content):
        if isinstance(content, Message) and ".pdf" in content.text:
            content = Message(text=content.text.rpartition("\n")[0])
        super().tell(room, content)


class Terse(Wire):
    """Cuts an edit after a hundred characters."""

    def tell(self, room, content):
        if isinstance(content, Edit):
            content = Edit(target=content.target, message=Message(text=content.message.text[:100]))
        super().tell(room, content)


BROKEN_RELATIONS = {
    Curt: "test_a_reply_is_readable",
    Quoteless: "test_a_reply_is_readable",
    Certain: "test_what_concerns_an_unknown_message_is_no_error",
    Fileless: "test_a_file_is_shown",
    Terse: "test_a_long_edit_is_not_cut_silently",
}
RELATION_SENTENCES = {
    Curt: "the words of a reply were lost",
    Quoteless: "and not what it answers: without ``replies``",
    Certain: "IndexError.*send it in words, or not at all",
    Fileless: "without ``attachments`` in its features a network gets names and links in the text",
    Terse: "of 400 words of an edit were lost",
}
