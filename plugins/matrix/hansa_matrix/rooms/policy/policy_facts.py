"""The facts of a Matrix event that a policy may know besides its content."""

from __future__ import annotations

from hansa import NativeFacts, NativeId, Submission

from hansa_matrix.proto.auth_rules.state_keys import CREATE
from hansa_matrix.proto.ids import domain_of
from hansa_matrix.proto.state_content import additional_creators
from hansa_matrix.rooms.native_events import ClientEvent, ReceivedPdu
from hansa_matrix.texts import texts_of_event, texts_of_pdu

#: Additional creators that are looked at; an event has no room for more.
_CREATORS = 1000


def facts_of_native(inbound: Submission, server: str) -> NativeFacts:
    """Returns the facts of an event for policies: the same for a received PDU and for a local event.

    An act is what a user does with a client of this server, and a PDU of another server's user. An event that
    this server sends in a user's name is not an act, nor is a copy of a local event, nor an event read from
    the past.
    """
    home = domain_of(inbound.sender.id)
    native = inbound.native
    pdu = getattr(native, "pdu", None)
    draft = native if isinstance(native, tuple) else getattr(native, "draft", None)
    act, size = "", 0
    if pdu is not None:
        type_, state_key, content, size = pdu.type, pdu.state_key, pdu.content, len(pdu.wire)
        texts = texts_of_pdu(type_, state_key, pdu.raw)
        act = inbound.origin.id if isinstance(native, ReceivedPdu) and home != server else ""
    elif draft is not None:
        type_, state_key, content = draft
        texts = texts_of_event(type_, state_key, content)
        act = inbound.origin.id if isinstance(native, ClientEvent) and not native.follows else ""
    else:
        return NativeFacts(sender_server=home, automatic=True)
    named = additional_creators(content) if type_ == CREATE else ()
    return NativeFacts(
        type=type_,
        state_key=state_key,
        size=size,
        encrypted=type_ == "m.room.encrypted",
        sender_server=home,
        texts=texts,
        people=tuple(NativeId(inbound.sender.network, one) for one in named[:_CREATORS]),
        automatic=not act,
        act=act,
        ts=inbound.ts,
    )
