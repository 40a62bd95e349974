"""What a policy may know of a Matrix event beside what it means."""

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
    """What a policy may know of an event: the same of a PDU that arrived and of what somebody here says.

    An act is what a person does with a client of ours, and a PDU of another server's person. What we do in
    somebody's name is none, nor is a copy of something that was said here, nor what is read of the past.
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
