"""Every string of an event that a person may read, and none of its identifiers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hansa import Message, NativeId, Submission
from hansa_matrix.rooms.local_events import EventDraft
from hansa_matrix.rooms.native_events import BackfilledPdu, ClientEvent, ReceivedPdu
from hansa_matrix.rooms.policy.policy_facts import facts_of_native
from hansa_matrix.texts import NAMES, texts_of_event

WORD = "classified"
ID = "$" + "a" * 43

WAYS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("m.room.message", None, {"msgtype": "m.text", "body": WORD}),
    ("m.room.message", None, {"msgtype": "m.text", "body": "x", "formatted_body": f"<b>{WORD}</b>"}),
    ("m.room.message", None, {"body": "* x", "m.new_content": {"msgtype": "m.text", "body": WORD}}),
    ("m.room.message", None, {"body": "* x", "m.new_content": {"body": "x", "formatted_body": WORD}}),
    ("m.room.message", None, {"msgtype": "m.file", "body": "x", "filename": f"{WORD}.pdf"}),
    ("m.room.message", None, {"msgtype": "m.image", "filename": "x.png", "body": WORD}),
    ("m.room.message", None, {"msgtype": "m.location", "body": "x", "geo_uri": f"geo:1,1?q={WORD}"}),
    ("m.room.message", None, {"msgtype": WORD, "body": "x"}),
    ("m.room.message", None, {"msgtype": "m.text", "body": "x", "format": WORD}),
    ("m.room.message", None, {"body": "x", "url": f"https://x.example/{WORD}"}),
    ("m.room.message", None, {"body": "x", "info": {"mimetype": f"text/{WORD}"}}),
    ("m.room.message", None, {"body": "x", WORD: 1}),
    ("m.room.message", None, {"body": "x", "org.example": {"deep": [[{"er": WORD}]]}}),
    ("m.room.message", None, {"body": "x", "org.matrix.msc1767.text": WORD}),
    ("m.room.message", None, {"m.text": [{"body": WORD, "mimetype": "text/plain"}]}),
    ("m.reaction", None, {"m.relates_to": {"rel_type": "m.annotation", "event_id": ID, "key": WORD}}),
    ("m.reaction", None, {"m.relates_to": {"rel_type": WORD, "event_id": ID, "key": "x"}}),
    ("m.reaction", None, {"m.relates_to": {"rel_type": "m.annotation", "event_id": f"${WORD}"}}),
    ("m.sticker", None, {"body": WORD, "url": "mxc://x.example/a"}),
    ("org.matrix.msc3381.poll.start", None, {"org.matrix.msc3381.poll.start": {"question": {"body": WORD}}}),
    ("org.matrix.msc3381.poll.start", None, {"m.poll": {"answers": [{"id": "1", "m.text": WORD}]}}),
    ("org.matrix.msc3381.poll.response", None, {"m.selections": [WORD]}),
    ("org.example.custom", None, {"note": WORD}),
    (f"org.example.{WORD}", None, {}),
    (f"m.{WORD}", None, {}),
    ("org.example.state", "", {"note": WORD}),
    ("org.example.state", WORD, {}),
    ("org.example.state", f"@{WORD}:x.example", {}),
    ("m.room.member", f"@ann {WORD}", {"membership": "join"}),
    ("m.room.member", "@ann:x.example", {"membership": "join", "displayname": WORD}),
    ("m.room.member", "@ann:x.example", {"membership": "leave", "reason": WORD}),
    ("m.room.member", "@ann:x.example", {"membership": "ban", "reason": WORD}),
    ("m.room.member", "@ann:x.example", {"membership": WORD}),
    (
        "m.room.member",
        "@ann:x.example",
        {"membership": "invite", "third_party_invite": {"display_name": WORD}},
    ),
    ("m.room.name", "", {"name": WORD}),
    ("m.room.topic", "", {"topic": WORD}),
    ("m.room.topic", "", {"topic": "x", "m.topic": {"m.text": [{"body": WORD}]}}),
    ("m.room.canonical_alias", "", {"alias": f"#{WORD}:x.example"}),
    ("m.room.canonical_alias", "", {"alt_aliases": [f"#{WORD}:x.example"]}),
    ("m.room.redaction", None, {"redacts": ID, "reason": WORD}),
    ("m.room.tombstone", "", {"body": WORD, "replacement_room": "!a:x.example"}),
    ("m.room.server_acl", "", {"deny": [WORD]}),
    ("m.room.create", "", {"room_version": "11", "type": WORD}),
    ("m.room.pinned_events", "", {"pinned": [WORD]}),
    ("m.room.power_levels", "", {"users": {WORD: 1}}),
    ("m.room.power_levels", "", {"events": {WORD: 1}}),
    ("m.room.encrypted", None, {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "A" * 60, "body": WORD}),
    ("m.room.encrypted", None, {"algorithm": WORD, "ciphertext": "A" * 60}),
    ("m.room.encrypted", None, {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": f"x {WORD}"}),
    ("m.room.message", None, {"body": "x", "ciphertext": f"this/is/{WORD}/////////////"}),
    ("m.policy.rule.user", "r", {"entity": "@x:y", "recommendation": "m.ban", "reason": WORD}),
    ("m.call.invite", None, {"call_id": WORD, "offer": {"sdp": f"s={WORD}"}}),
    ("m.space.child", "!a:x.example", {"order": WORD}),
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way[0]}-{sorted(way[2])}")
def test_no_place_in_an_event_hides_a_word(way):
    assert any(WORD in text for text in texts_of_event(*way))


def test_identifiers_and_the_words_of_the_specification_are_no_texts():
    said = texts_of_event(
        "m.room.message",
        None,
        {
            "msgtype": "m.image",
            "body": "hello",
            "format": "org.matrix.custom.html",
            "url": "mxc://x.example/abc",
            "info": {"mimetype": "image/png", "w": 1, "h": 1, "thumbnail_url": "mxc://x.example/def"},
            "m.relates_to": {"rel_type": "m.thread", "event_id": ID, "m.in_reply_to": {"event_id": ID}},
            "m.mentions": {"user_ids": ["@ann:x.example"]},
        },
    )
    assert said == ("hello",)
    sealed = {
        "algorithm": "m.megolm.v1.aes-sha2",
        "ciphertext": "AwgAEnACgAkL" * 20,
        "device_id": "ABCDEFGHIJ",
        "sender_key": "A" * 43,
        "session_id": "B" * 43,
    }
    assert texts_of_event("m.room.encrypted", None, sealed) == ()
    levels = {"users": {"@ann:x.example": 100}, "events": {"m.room.name": 50}, "ban": 50, "users_default": 0}
    assert texts_of_event("m.room.power_levels", "", levels) == ()
    assert texts_of_event("m.room.member", "@ann:x.example", {"membership": "join"}) == ()


def test_names_of_the_specification_are_short():
    assert all(len(name) < 60 for name in NAMES)


@dataclass(frozen=True)
class _Pdu:
    type: str
    state_key: str | None
    content: dict[str, Any]
    sender: str = "@ann:x.example"
    wire: bytes = b"{}"

    @property
    def raw(self) -> dict[str, Any]:
        return {"type": self.type, "content": self.content}


def _facts(native):
    ref = NativeId("matrix", "@ann:x.example")
    return facts_of_native(
        Submission(
            origin=ref, room=ref, sender=ref, content=Message(text=""), ts=0, native=native, local=True
        ),
        "x.example",
    )


def test_a_draft_and_a_pdu_have_the_same_facts():
    draft: EventDraft = ("m.room.member", "@ann:x.example", {"membership": "join", "displayname": WORD})
    texts = {
        frozenset(_facts(native).texts)
        for native in (draft, ClientEvent(draft=draft), BackfilledPdu(_Pdu(*draft)))
    }
    assert texts == {frozenset({WORD})}
    assert _facts(draft).state_key == "@ann:x.example" and _facts(draft).sender_server == "x.example"
    assert _facts(None).texts == ()


def _acts(native, sender="@ann:x.example", server="x.example"):
    ref = NativeId("matrix", sender)
    inbound = Submission(
        origin=NativeId("matrix", "$e"), room=ref, sender=ref, content=Message(text=""), ts=7, native=native
    )
    facts = facts_of_native(inbound, server)
    assert facts.automatic is not bool(facts.act) and facts.ts == 7
    return facts.act


def test_an_act_is_of_who_does_it_now_and_of_nobody_else():
    draft = ("m.room.message", None, {"body": "x"})
    pdu = _Pdu(*draft)
    arrived = ReceivedPdu(pdu=pdu, origin="y.example")
    assert _acts(ClientEvent(draft=draft)) == "$e"
    assert _acts(arrived, "@eve:y.example") == "$e"
    assert _acts(arrived) == "", "another server hands us a copy, or a fork, of what was said here"
    assert _acts(draft) == "", "we do it in their name"
    assert _acts(BackfilledPdu(pdu), "@eve:y.example") == "", "it is of the past"


def test_additional_creators_are_concerned():
    draft = ("m.room.create", "", {"additional_creators": ["@eve:y.example", 5]})
    assert _facts(draft).people == (NativeId("matrix", "@eve:y.example"),)
