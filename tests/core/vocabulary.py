"""One content of each kind, with every field that it can have, and its words as a fallback."""

from __future__ import annotations

from hansa import (
    Attachment,
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
    NativeId,
    PollAnswer,
    PollEnd,
    PollStart,
    PollVote,
    Reaction,
    Report,
    Retraction,
    Role,
    Span,
    SpanKind,
    Standing,
    Style,
    Topic,
    Upgrade,
)

ANN = NativeId("left", "ann@x")
MXC = NativeId("matrix", "mxc://x/pic")
PICTURE = Attachment(
    name="balcony.png",
    media_type="image/png",
    size=120_000,
    width=640,
    height=480,
    duration=1,
    source=MXC,
    sha256="ab",
    thumbnail=NativeId("matrix", "mxc://x/small"),
    voice=True,
)
ANSWERS = (PollAnswer(id="t", text="Tea"), PollAnswer(id="c", text="Coffee"))
WHOLE = Message(
    text="see here",
    style=Style.EMOTE,
    spans=(Span(start=0, end=3, kind=SpanKind.BOLD),),
    language="en-GB",
    mentions=(ANN,),
    reply_to="e1",
    thread="e0",
    attachments=(PICTURE, Attachment(name="")),
)
#: Every kind, each with the text that stands for it.
SAMPLES: tuple[tuple[Content, str], ...] = (
    (WHOLE, "see here\n[voice message balcony.png, 120 KB]\n[file ]"),
    (Message(text="hello"), "hello"),
    (Edit(target="e1", message=WHOLE), "edited: see here\n[voice message balcony.png, 120 KB]\n[file ]"),
    (Edit(target="e1", message=Message(text="hullo")), "edited: hullo"),
    (Reaction(target="e1", key="👍"), "[reacted with 👍]"),
    (Retraction(target="e1", reason="spam"), "[a message was removed: spam]"),
    (Retraction(target="e1", of=Kind.POLL_START, of_target="e0"), "[a poll was removed]"),
    (Name(text="Lobby"), "[the room is called: Lobby]"),
    (Name(text=""), "[the room has no name]"),
    (Topic(text="Ships"), "[the topic is: Ships]"),
    (Topic(text=""), "[the room has no topic]"),
    (Member(user=ANN, membership=Membership.JOIN, name="Ann", avatar=MXC), "[Ann is here]"),
    (
        Member(
            user=ANN,
            membership=Membership.BAN,
            reason="spam",
            former_membership=Membership.JOIN,
            former_name="Ann",
        ),
        "[ann@x is banned: spam]",
    ),
    (Standing(user=ANN, role=Role.MODERATOR), "[ann is a moderator]"),
    (Standing(user=ANN, role=Role.MEMBER, voice=False), "[ann is a member, without voice]"),
    (Avatar(source=MXC), "[the room has a new picture]"),
    (Avatar(source=None), "[the room has no picture]"),
    (JoinRule(rule="invite"), "[only people who are invited may enter]"),
    (JoinRule(rule="private"), "[it changed who may enter]"),
    (HistoryVisibility(visibility="joined"), "[members may read what was said since they joined]"),
    (Upgrade(successor=NativeId("matrix", "!b"), text="new"), "[the room continues in another one: new]"),
    (Upgrade(successor=None), "[the room continues in another one]"),
    (Report(target="e1", reason="rude"), "[reported a message: rude]"),
    (Location(text="the pier", uri="geo:53.5,9.9"), "[location: the pier] geo:53.5,9.9"),
    (
        PollStart(question="Drink?", answers=ANSWERS, max_selections=2, disclosed=False),
        "[poll: Drink?]\n1. Tea\n2. Coffee",
    ),
    (PollVote(target="e1", answers=("t", "c")), "[voted: t, c]"),
    (PollEnd(target="e1", text="Tea"), "[the poll is over: Tea]"),
    (Call(text="audio"), "[calls the room: audio]"),
    (Encrypted(), "[encrypted message, not readable here]"),
    (Custom(type="poll", text="Tea?"), "Tea?"),
)
assert {content.kind for content, _ in SAMPLES} == set(Kind)
