"""Messages of a user to the component itself: commands to the bridge."""

from __future__ import annotations

from hansa import NetworkContext

from hansa_xmpp.proto import errors
from hansa_xmpp.proto.render import OutboundStanza, stanza, xml_element, xml_text
from hansa_xmpp.proto.stanza import MAX_ID, Stanza

#: Bytes of a body that is read; no command is as long.
_MAX_BODY = 4096


class BridgeChat:
    """Answers messages to the address of the component."""

    def __init__(self, ctx: NetworkContext) -> None:
        self._ctx = ctx

    async def answer(self, said: Stanza) -> list[OutboundStanza]:
        """The answer to a message of type ``chat`` or ``normal``. An error, a headline and what has no body
        are not answered: a service that answers by itself would go on for ever.
        """
        body = said.text_of("body") or ""
        if said.type not in {"chat", "normal", ""} or not body.strip():
            self._ctx.count("xmpp_ignored", why="no command")
            return []
        if len(said.id.encode()) > MAX_ID or len(body.encode()) > _MAX_BODY:
            return []
        answer = await self._ctx.answer_command(said.sender.bare, body)
        if answer is None:
            return errors.error_reply(said, errors.UNAVAILABLE)
        inner = xml_element("body", "", xml_text(answer))
        return [stanza("message", said.to.bare, (said.sender.full,), inner, type_="chat")]
