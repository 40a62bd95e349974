"""Contents that ``NetworkSuite`` sends through a network."""

from __future__ import annotations

from typing import get_args

from hansa.model.content import (
    Avatar,
    Call,
    Content,
    Custom,
    Edit,
    Encrypted,
    HistoryVisibility,
    JoinRule,
    Kind,
    Location,
    Member,
    Membership,
    Message,
    Name,
    PollAnswer,
    PollEnd,
    PollStart,
    PollVote,
    Reaction,
    Report,
    Retraction,
    Standing,
    Style,
    Targeted,
    Topic,
    Upgrade,
)
from hansa.model.ref import NativeId
from hansa.model.role import Role

#: The kinds that concern an earlier event.
TARGETED = frozenset(one.kind for one in get_args(Targeted))


def sample_contents(person: NativeId) -> list[Content]:
    """Returns contents that stand alone, by ``person``, in an order that a room allows: one or more of each
    kind that does not concern an earlier event.
    """
    answers = (PollAnswer(id="a", text="Tea"), PollAnswer(id="b", text="Coffee"))
    return [
        Member(user=person, membership=Membership.JOIN, name="Known As"),
        Message(text="two\nlines,  é, 😀 <b>&amp;</b>"),
        Message(text="waves", style=Style.EMOTE),
        Message(text="is told", style=Style.NOTICE),
        Standing(user=person, role=Role.MODERATOR),
        Name(text="A room & its name"),
        Topic(text="What we\ntalk about"),
        Avatar(source=None),
        JoinRule(rule="public"),
        HistoryVisibility(visibility="shared"),
        Location(text="The harbour", uri="geo:53.55,9.99"),
        PollStart(question="What to drink?", answers=answers),
        Call(text="by telephone"),
        Encrypted(),
        Custom(type="org.example.poll", text="Tea or coffee?"),
        Upgrade(successor=None, text="elsewhere"),
    ]


def targeted_contents(message: str, reaction: str, poll: str) -> list[Content]:
    """Returns contents that concern earlier events, in an order that a room allows: a message, a reaction and
    a poll of the same person, each by the core's id.
    """
    return [
        Edit(target=message, message=Message(text="said better")),
        Reaction(target=message, key="👍"),
        Report(target=message, reason="spam"),
        PollVote(target=poll, answers=("a",)),
        PollEnd(target=poll, text="Tea"),
        Retraction(target=reaction, of=Kind.REACTION, of_target=message),
        Retraction(target=message, reason="a slip"),
    ]
