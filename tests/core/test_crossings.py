"""The users, servers and texts of every crossing, and what is stored of it."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import orjson
import pytest
from hansa import (
    Action,
    Crossing,
    EventIn,
    EventOut,
    Link,
    Member,
    Membership,
    NativeFacts,
    NativeId,
    RoomView,
    ToDevice,
    peers_of,
    people_of,
    texts_of,
)
from hansa.bus.policy_engine import crossing_facts
from hansa.model.crossing_parts import ROLES
from hansa.testing.policy_samples import samples


def test_every_field_of_every_crossing_has_a_role():
    missing = {
        f"{kind.__name__}.{field.name}"
        for kind in get_args(Crossing)
        for field in fields(kind)
        if field.name not in ROLES
    }
    assert not missing


def test_the_samples_have_every_kind():
    assert {type(crossing) for crossing in samples()} == set(get_args(Crossing))


@pytest.mark.parametrize("crossing", samples(), ids=lambda crossing: type(crossing).__name__)
def test_what_is_kept_of_a_crossing_is_small_and_has_none_of_its_words(crossing):
    kept = orjson.dumps(crossing_facts(crossing))
    assert len(kept) < 8_000
    for text in texts_of(crossing):
        if len(text) > 4 and text not in (getattr(crossing, "type", ""), getattr(crossing, "server", "")):
            assert orjson.dumps(text)[1:-1] not in kept


def test_an_event_concerns_its_sender_its_member_and_whom_its_facts_name():
    ann, eve, mallory = (NativeId("matrix", f"@{name}:x.example") for name in ("ann", "eve", "mallory"))
    crossing = EventIn(
        link=Link(room="r", native=NativeId("matrix", "!a")),
        sender=ann,
        content=Member(user=eve, membership=Membership.INVITE, name="Eve", reason="hello"),
        view=RoomView("r"),
        facts=NativeFacts(sender_server="x.example", people=(mallory,), texts=("caption",)),
    )
    assert people_of(crossing) == (ann, eve, mallory)
    assert peers_of(crossing) == {"x.example"}
    assert set(texts_of(crossing)) == {"Eve", "hello", "caption"}


def test_a_message_between_devices_concerns_both_sides():
    ann, eve = NativeId("matrix", "@ann:x.example"), NativeId("matrix", "@eve:y.example")
    crossing = ToDevice(
        network="matrix",
        sender=ann,
        sender_server="x.example",
        users=(eve,),
        servers=frozenset({"y.example"}),
        type="org.example.note",
        texts=("hello",),
    )
    assert people_of(crossing) == (ann, eve)
    assert peers_of(crossing) == {"x.example", "y.example"}
    assert set(texts_of(crossing)) == {"org.example.note", "hello"}


@pytest.mark.parametrize("way", [EventIn, EventOut])
def test_what_nobody_is_kept_from_can_only_be_allowed(way):
    ann, bob = NativeId("one", "ann@x.example"), NativeId("one", "bob@x.example")

    def possible(sender, user, membership, **more):
        facts = NativeFacts(texts=more.pop("texts", ()))
        content = Member(user=user, membership=membership, **more)
        link = Link(room="r", native=NativeId("one", "a"))
        made = way(link=link, sender=sender, content=content, view=RoomView("r"), facts=facts)
        return made.allowed_actions

    free = frozenset({Action.ALLOW})
    assert possible(ann, ann, Membership.LEAVE) == free
    assert possible(ann, bob, Membership.LEAVE, texts=("bob@x.example",)) == free
    assert possible(ann, bob, Membership.BAN) == free
    for other in (
        possible(ann, ann, Membership.BAN),
        possible(ann, ann, Membership.JOIN),
        possible(ann, bob, Membership.INVITE),
        possible(ann, ann, Membership.LEAVE, reason="words"),
        possible(ann, ann, Membership.LEAVE, name="words"),
        possible(ann, ann, Membership.LEAVE, texts=("words",)),
    ):
        assert Action.DENY in other
