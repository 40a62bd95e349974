"""The content of timeline events is read from any JSON, within bounds."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hansa import Call, Custom, Edit, Kind, Location, Message, NativeId, PollStart, Reaction, Retraction
from hansa.model.codec import content_from_json, content_to_json
from hansa_matrix.conversion.from_matrix import content_from_event
from hansa_matrix.conversion.native_ids import NativeIds
from hansa_matrix.proto import message_content as read
from hypothesis import given
from hypothesis import strategies as st
from matrix.proto.json_values import json_values, objects

EVENT = "$" + "e" * 43
TYPES = [
    "m.room.message",
    "m.reaction",
    "m.sticker",
    "m.room.redaction",
    "m.call.invite",
    "org.matrix.msc4075.call.notify",
    *read.POLL_STARTS,
    *read.POLL_VOTES,
    *read.POLL_ENDS,
]
STATE = [
    "m.room.member",
    "m.room.avatar",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.tombstone",
    "m.room.power_levels",
    "m.call.member",
]
#: Names that the readers look for, with what they look for or anything else in their place.
NAMES = {
    "msgtype": st.sampled_from(["m.text", "m.image", "m.audio", "m.location", "m.emote", "m.strange"]),
    "body": st.text(max_size=20) | st.just("> <@a:b> x\n\ny"),
    "format": st.just("org.matrix.custom.html"),
    "formatted_body": st.sampled_from(["<b>x</b>", "<mx-reply>q</mx-reply>x", "<mx-reply>"]),
    "filename": st.text(max_size=8),
    "url": st.sampled_from(["mxc://a.example/b", "https://a.example/"]),
    "geo_uri": st.sampled_from(["geo:1,2", "javascript:1"]),
    "redacts": st.just(EVENT),
    "membership": st.sampled_from(["join", "leave"]),
    "m.new_content": objects,
    "m.mentions": st.fixed_dictionaries({}, optional={"user_ids": json_values}),
    "m.selections": st.lists(json_values, max_size=3),
    "info": objects,
    "m.relates_to": st.fixed_dictionaries(
        {},
        optional={
            "rel_type": st.sampled_from([read.REPLACE, read.ANNOTATION, read.THREAD, read.REFERENCE]),
            "event_id": st.just(EVENT) | json_values,
            "key": st.text(max_size=4) | json_values,
            "m.in_reply_to": st.fixed_dictionaries({"event_id": st.just(EVENT) | json_values}),
            "is_falling_back": json_values,
        },
    ),
    "m.poll": st.fixed_dictionaries(
        {"answers": json_values | st.lists(st.fixed_dictionaries({"m.id": json_values}), max_size=3)},
        optional={"question": json_values, "max_selections": json_values, "kind": json_values},
    ),
    "org.matrix.msc3381.poll.start": json_values,
    "org.matrix.msc3381.poll.response": json_values,
}
contents = st.fixed_dictionaries({}, optional={name: value | json_values for name, value in NAMES.items()})


class _Context:
    """What ``NativeIds`` needs of a context."""

    id = "matrix"

    async def home_of(self, user: str) -> NativeId:
        return NativeId("matrix", user)


IDS = NativeIds(_Context(), "here.example")  # type: ignore[arg-type]


def converted(type_: str, content: dict[str, Any], state_key: str | None = None) -> Any:
    return asyncio.run(content_from_event((type_, state_key, content), IDS))


@given(st.sampled_from(TYPES), contents)
def test_any_timeline_event_becomes_a_content_that_the_log_can_hold(type_, content):
    made = converted(type_, content)
    assert content_from_json(orjson.loads(orjson.dumps(content_to_json(made)))) == made


@given(st.sampled_from(STATE), contents, st.sampled_from(["", "@a:b.example"]))
def test_any_state_event_becomes_a_content_that_the_log_can_hold(type_, content, state_key):
    made = converted(type_, content, state_key)
    assert content_from_json(orjson.loads(orjson.dumps(content_to_json(made)))) == made


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("> <@a:b> one\n> two\n\nhi\nthere", "hi\nthere"),
        ("> * <@a:b> waves\n\nhi", "hi"),
        ("> my own quote\nhi", "> my own quote\nhi"),
        ("> <@a:b> one", "> <@a:b> one"),
        ("hi", "hi"),
    ],
)
def test_the_quote_of_older_clients_is_no_part_of_a_reply(body, said):
    assert read.without_reply_fallback(body) == said


def test_lists_and_keys_are_bounded():
    users = [f"@u{number}:a.example" for number in range(100)]
    assert len(read.mentioned_users({"m.mentions": {"user_ids": users}})) == read.MAX_MENTIONS
    answers = [{"m.id": str(number), "m.text": "x"} for number in range(100)]
    poll = read.poll_start(
        {"m.poll": {"answers": answers, "max_selections": 99, "question": {"m.text": "?"}}}
    )
    assert isinstance(poll, PollStart)
    assert (len(poll.answers), poll.max_selections) == (read.MAX_ANSWERS, read.MAX_ANSWERS)
    assert len(read.poll_selections({"m.selections": [str(n) for n in range(100)]})) == read.MAX_ANSWERS
    about = {"rel_type": "m.annotation", "event_id": EVENT}
    for key, kind in (("x" * read.MAX_KEY, Reaction), ("x" * (read.MAX_KEY + 1), Custom), ("", Custom)):
        assert isinstance(converted("m.reaction", {"m.relates_to": {**about, "key": key}}), kind)


def test_the_types_of_the_proposal_and_of_clients_are_read_alike():
    unstable = {
        "org.matrix.msc3381.poll.start": {
            "question": {"org.matrix.msc1767.text": "tea?"},
            "answers": [{"id": "y", "org.matrix.msc1767.text": "yes"}],
            "kind": "org.matrix.msc3381.poll.undisclosed",
        }
    }
    stable = {
        "m.poll": {
            "question": {"m.text": [{"body": "tea?"}]},
            "answers": [{"m.id": "y", "m.text": [{"body": "yes"}]}],
            "kind": "m.undisclosed",
        }
    }
    first = converted("org.matrix.msc3381.poll.start", unstable)
    assert first == converted("m.poll.start", stable) and not first.disclosed


def test_a_call_is_told_once():
    offer = {"offer": {"type": "offer", "sdp": "v=0\nm=video 9"}}
    assert converted("m.call.invite", offer) == Call(text="with video")
    member = {"application": "m.call", "device_id": "D"}
    user = "_@a:b.example_D"
    assert converted("m.call.member", member, user) == Call()
    assert converted("m.call.member", {**member, "created_ts": 1}, user).kind is Kind.CUSTOM
    assert converted("m.call.member", {}, user).kind is Kind.CUSTOM


def test_only_a_place_that_is_one_is_a_place():
    place = {"msgtype": "m.location", "body": "here", "geo_uri": "geo:1,2"}
    assert converted("m.room.message", place) == Location(text="here", uri="geo:1,2")
    for uri in ("https://x.example/", "geo:" + "1" * 2000, 5):
        assert converted("m.room.message", {**place, "geo_uri": uri}) == Message(text="here")


def test_an_edit_of_an_edit_and_of_a_reply_says_what_is_new():
    new = {"msgtype": "m.text", "body": "new", "m.relates_to": {"m.in_reply_to": {"event_id": EVENT}}}
    about = {"rel_type": "m.replace", "event_id": EVENT}
    sent = {"msgtype": "m.text", "body": "* new", "m.new_content": new, "m.relates_to": about}
    assert converted("m.room.message", sent) == Edit(target=EVENT, message=Message(text="new"))
    del sent["m.new_content"]
    assert converted("m.room.message", sent) == Message(text="* new")
    assert converted("m.room.redaction", {"redacts": 5}) == Retraction(target="")
