"""The policy as a whole: what each crossing is judged by, and what may never be denied."""

from __future__ import annotations

import asyncio
import itertools
import threading
from dataclasses import replace
from typing import ClassVar

import hansa_governance
import pytest
from hansa import (
    Action,
    Custom,
    DirectoryPublish,
    Encrypted,
    EventIn,
    EventOut,
    Invite,
    Join,
    KeysQuery,
    Knock,
    Link,
    MediaUpload,
    Member,
    Membership,
    Message,
    Name,
    NativeFacts,
    NativeId,
    PeerConnect,
    ProfileChange,
    RefusalCode,
    RoomCreate,
    RoomMember,
    RoomUpgrade,
    RoomView,
    ToDevice,
    Topic,
    ViewDelta,
)
from hansa.environment import Environment, SystemRandom
from hansa.setup import PolicySetup
from hansa.testing import Actor, ManualClock, PolicySuite, run_hansa, until
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.actor import module
from hansa_governance.policy import GovernancePolicy
from hansa_governance.servers import MAX_NAMED

ANN, BOB = NativeId("matrix", "@ann:good.example"), NativeId("xmpp", "bob@good.chat")
EVE = NativeId("matrix", "@eve:evil.example")
IN, OUT = Link(room="r", native=NativeId("matrix", "!a")), Link(room="r", native=NativeId("xmpp", "b"))


def room(*servers: str) -> RoomView:
    view = RoomView("r")
    people = [
        RoomMember(user=NativeId("matrix", f"@p:{server}"), membership=Membership.JOIN, server=server)
        for server in servers
    ]
    view.apply(ViewDelta(upserts=tuple(people)))
    return view


_acts = itertools.count()


def event_in(content, sender=ANN, server="good.example", **more):
    facts = NativeFacts(sender_server=server, texts=more.pop("texts", ()), act=f"act-{next(_acts)}")
    return EventIn(link=IN, sender=sender, content=content, view=room(server), facts=facts, **more)


def event_out(content, *servers, native=frozenset()):
    return EventOut(
        link=OUT, sender=ANN, content=content, view=room(*servers), facts=NativeFacts(room_servers=native)
    )


async def codes(crossing, clock=None, **config) -> list[str]:
    options = hansa_governance.Config.model_validate(config)
    verdict = await GovernancePolicy(options, "gov", clock or ManualClock()).check(crossing)
    if verdict is None:
        return []
    assert verdict.action is Action.DENY
    assert all(reason.policy == "gov" and reason.text and reason.rule for reason in verdict.reasons)
    return sorted(reason.code for reason in verdict.reasons)


DENIED, NOT_ALLOWED = ["GOV_SERVER_DENIED"], ["GOV_SERVER_NOT_ALLOWED"]
HELLO = Message(text="hello")


def join(server="good.example", *others, outbound=False):
    user = NativeId("matrix", f"@x:{server}")
    return Join(
        network="matrix",
        room="!a",
        user=user,
        user_server=server,
        outbound=outbound,
        servers=frozenset(others),
    )


def invite(server="good.example", *others, outbound=False):
    return Invite(
        network="matrix",
        room="!a",
        sender=NativeId("matrix", f"@s:{server}"),
        sender_server=server,
        user=ANN,
        outbound=outbound,
        servers=frozenset(others),
    )


@pytest.mark.parametrize(
    ("crossing", "expected"),
    [
        (PeerConnect(network="matrix", server="evil.example"), DENIED),
        (PeerConnect(network="matrix", server="evil.example:8448", outbound=True), DENIED),
        (PeerConnect(network="matrix", server="good.example"), []),
        (event_in(HELLO, EVE, "evil.example"), DENIED),
        (event_in(HELLO), []),
        (event_out(HELLO, "good.example"), []),
        # A third server in the room gets every message in it.
        (event_out(HELLO, "good.example", "evil.example"), DENIED),
        (event_out(HELLO, "good.example", native=frozenset({"evil.example"})), DENIED),
        (join("evil.example"), DENIED),
        (join("good.example", "evil.example", outbound=True), DENIED),
        (join("good.example", "other.example"), []),
        (invite("evil.example"), DENIED),
        (invite("good.example", "evil.example", outbound=True), DENIED),
        (invite("good.example"), []),
    ],
)
async def test_a_denied_server_is_kept_out_as_peer_and_as_member(crossing, expected):
    assert await codes(crossing, deny_servers=["evil.example"]) == expected


@pytest.mark.parametrize(
    ("crossing", "expected"),
    [
        (PeerConnect(network="matrix", server="a.good.example"), []),
        (PeerConnect(network="matrix", server="other.example"), NOT_ALLOWED),
        (PeerConnect(network="matrix", server=""), NOT_ALLOWED),
        (event_in(HELLO, server="other.example"), NOT_ALLOWED),
        (replace(event_in(HELLO), facts=NativeFacts()), NOT_ALLOWED),
        (event_out(HELLO, "a.good.example", "other.example"), NOT_ALLOWED),
        (event_out(HELLO, "a.good.example"), []),
        (join("a.good.example", "b.good.example"), []),
        (join("a.good.example", "other.example"), NOT_ALLOWED),
        (join(""), NOT_ALLOWED),
        (invite("other.example"), NOT_ALLOWED),
    ],
)
async def test_with_an_allow_list_all_others_are_refused_and_so_is_who_is_not_known(crossing, expected):
    assert await codes(crossing, allow_servers=["*.good.example"]) == expected


async def test_deny_overrides_allow():
    peer = PeerConnect(network="matrix", server="bad.good.example")
    lists = {"allow_servers": ["*.good.example"], "deny_servers": ["bad.*"]}
    assert await codes(peer, **lists) == DENIED
    users = {"allow_users": ["*"], "deny_users": ["@eve:*"]}
    assert await codes(event_in(HELLO, EVE), **users) == ["GOV_USER_DENIED"]


async def test_users_are_judged_wherever_they_appear():
    config = {"deny_users": ["@eve:*"]}
    assert await codes(event_in(HELLO, EVE), **config) == ["GOV_USER_DENIED"]
    assert await codes(event_in(HELLO), **config) == []
    assert await codes(replace(join(), user=EVE), **config) == ["GOV_USER_DENIED"]
    assert await codes(replace(invite(), sender=EVE), **config) == ["GOV_USER_DENIED"]
    assert await codes(replace(invite(), user=EVE), **config) == ["GOV_USER_DENIED"]
    invited = Member(user=EVE, membership=Membership.INVITE)
    assert await codes(event_in(invited), **config) == ["GOV_USER_DENIED"]
    only = {"allow_users": ["@ann:*", "bob@*"]}
    assert await codes(event_in(HELLO), **only) == []
    assert await codes(event_in(HELLO, BOB), **only) == []
    assert await codes(event_in(HELLO, EVE), **only) == ["GOV_USER_NOT_ALLOWED"]
    assert await codes(event_in(HELLO, NativeId("xmpp", "")), **only) == ["GOV_USER_NOT_ALLOWED"]


@pytest.mark.parametrize(
    "content",
    [
        Message(text="it is classified"),
        Name(text="classified"),
        Topic(text="on classified matters"),
        Custom(type="poll", text="classified?"),
        Member(user=ANN, membership=Membership.JOIN, name="Classified"),
        Member(user=ANN, membership=Membership.KNOCK, reason="classified"),
    ],
)
async def test_a_word_is_found_in_everything_that_a_person_reads(content):
    assert await codes(event_in(content), words=["classified"]) == ["GOV_CONTENT"]


async def test_a_word_is_found_in_the_native_texts_and_not_told_to_the_sender():
    crossing = event_in(HELLO, texts=("hello", "a caption: classified"))
    options = hansa_governance.Config(words=("classified",))
    verdict = await GovernancePolicy(options, "gov", ManualClock()).check(crossing)
    assert verdict.reasons[0].code == "GOV_CONTENT"
    assert "classified" not in verdict.text
    assert verdict.reasons[0].rule == "words: classified"


@pytest.mark.parametrize(
    ("sender", "content"),
    [
        (EVE, Member(user=EVE, membership=Membership.LEAVE, reason="enough")),
        (EVE, Member(user=ANN, membership=Membership.LEAVE)),
        (ANN, Member(user=EVE, membership=Membership.BAN, reason="spam")),
    ],
)
async def test_leaving_and_putting_somebody_out_is_never_denied(sender, content):
    config = {
        "deny_servers": ["*"],
        "deny_users": ["*"],
        "words": ["classified"],
        "rate": {"events": 1, "seconds": 1000},
    }
    policy = GovernancePolicy(hansa_governance.Config.model_validate(config), "gov", ManualClock())
    for _ in range(5):
        assert await policy.check(event_in(content, sender, "evil.example")) is None
    assert await codes(replace(event_out(content, "evil.example"), sender=sender), **config) == []
    coming = Member(user=sender, membership=Membership.JOIN)
    assert await codes(event_in(coming, sender, "evil.example"), **config)


@pytest.mark.parametrize(
    "content",
    [
        Member(user=EVE, membership=Membership.LEAVE, reason="classified"),
        Member(user=ANN, membership=Membership.LEAVE, reason="classified"),
        Member(user=ANN, membership=Membership.BAN, reason="classified"),
    ],
)
async def test_the_reason_of_leaving_is_judged_and_the_refusal_says_how_to_leave(content):
    options = hansa_governance.Config(words=("classified",), deny_users=("*",), deny_servers=("*",))
    policy = GovernancePolicy(options, "gov", ManualClock())
    verdict = await policy.check(event_in(content, EVE))
    assert [reason.code for reason in verdict.reasons] == ["GOV_CONTENT"]
    assert "without giving a reason" in verdict.text
    assert await policy.check(event_in(replace(content, reason=""), EVE)) is None
    odd = NativeId("matrix", "@classified person:evil.example")
    leave = event_in(Member(user=odd, membership=Membership.LEAVE), odd, texts=(odd.id,))
    assert await policy.check(leave) is None, "nobody is locked in by their own id"
    hidden = event_in(replace(content, reason=""), EVE, texts=("classified",))
    assert await policy.check(hidden), "nor may it be anywhere else in the event"


@pytest.mark.parametrize(
    "content", [HELLO, Encrypted(), Custom(type="poll"), Topic(text="t"), Name(text="n")]
)
async def test_everything_that_is_said_counts_to_the_rate(content):
    clock = ManualClock()
    options = hansa_governance.Config(rate={"events": 2, "seconds": 10})
    policy = GovernancePolicy(options, "gov", clock)
    assert [await policy.check(event_in(content)) for _ in range(2)] == [None, None]
    verdict = await policy.check(event_in(content))
    assert verdict.reasons[0].code == "GOV_RATE" and verdict.retry_after == pytest.approx(5)
    assert await policy.check(event_in(content, BOB)) is None
    assert await policy.check(event_out(content, "good.example")) is None
    clock.advance(5)
    assert await policy.check(event_in(content)) is None


@pytest.mark.parametrize(
    "content",
    [
        Name(text="a name"),
        Topic(text="a topic"),
        Member(user=ANN, membership=Membership.JOIN, name="Another"),
        Member(user=BOB, membership=Membership.INVITE),
        Member(user=BOB, membership=Membership.BAN, reason="x"),
        Member(user=ANN, membership=Membership.LEAVE, reason="x"),
    ],
    ids=lambda content: f"{content.kind}-{getattr(content, 'membership', '')}",
)
async def test_acts_that_are_no_messages_count_too(content):
    options = hansa_governance.Config(rate={"events": 2, "seconds": 10})
    policy = GovernancePolicy(options, "gov", ManualClock())
    assert [await policy.check(event_in(content)) for _ in range(2)] == [None, None]
    verdict = await policy.check(event_in(HELLO))
    assert verdict.reasons[0].code == "GOV_RATE"


_BY = {"network": "matrix", "user": ANN, "user_server": "good.example"}
_NOTE = {"network": "matrix", "sender": ANN, "sender_server": "good.example"}


@pytest.mark.parametrize(
    "act",
    [
        MediaUpload(**_BY),
        RoomCreate(**_BY),
        RoomUpgrade(**_BY, room="!a"),
        ProfileChange(**_BY),
        DirectoryPublish(**_BY, room="!a"),
        Join(**_BY, room="!a", outbound=True),
        Knock(**_BY, room="!a", outbound=True),
        Invite(**_NOTE, room="!a", user=BOB, outbound=False),
    ],
    ids=lambda act: type(act).__name__,
)
async def test_acts_that_are_no_events_count_too(act):
    options = hansa_governance.Config(rate={"events": 2, "seconds": 10})
    policy = GovernancePolicy(options, "gov", ManualClock())
    assert [await policy.check(act) for _ in range(2)] == [None, None]
    verdict = await policy.check(act)
    assert verdict.reasons[0].code == "GOV_RATE" and verdict.retry_after == pytest.approx(5)
    assert (await policy.check(event_in(HELLO))).reasons[0].code == "GOV_RATE"
    assert await policy.check(event_in(HELLO, BOB)) is None


async def test_who_invites_to_a_denied_server_is_not_told_that_their_own_is_denied():
    policy = GovernancePolicy(hansa_governance.Config(deny_servers=["evil.example"]), "gov", ManualClock())
    verdict = await policy.check(invite("good.example", "evil.example", outbound=True))
    assert verdict.reasons[0].text == "a server concerned is not allowed here"


async def test_messages_between_devices_have_a_larger_rate_of_their_own():
    options = hansa_governance.Config(rate={"events": 2, "seconds": 10})
    policy = GovernancePolicy(options, "gov", ManualClock())
    assert [await policy.check(ToDevice(**_NOTE)) for _ in range(20)] == [None] * 20
    assert (await policy.check(ToDevice(**_NOTE))).reasons[0].code == "GOV_RATE"
    assert await policy.check(event_in(HELLO)) is None


async def test_an_act_is_counted_once_and_what_is_nobodys_act_never():
    options = hansa_governance.Config(rate={"events": 1, "seconds": 10})
    policy = GovernancePolicy(options, "gov", ManualClock())
    said = event_in(HELLO, immutable=True)
    assert [await policy.check(said) for _ in range(5)] == [None] * 5
    again = replace(said, facts=replace(said.facts, act=""))
    ours = replace(said, facts=replace(said.facts, act="x", automatic=True))
    assert [await policy.check(one) for one in (again, ours)] == [None, None]
    assert (await policy.check(event_in(HELLO))).reasons[0].code == "GOV_RATE"


async def test_fifty_messages_of_an_hour_that_arrive_together_all_pass():
    clock = ManualClock(1_700_000_000_000)
    options = hansa_governance.Config(rate={"events": 20, "seconds": 60})
    policy = GovernancePolicy(options, "gov", clock)

    def said(n):
        crossing = event_in(HELLO, immutable=True)
        return replace(crossing, facts=replace(crossing.facts, ts=clock.now() - (50 - n) * 72_000))

    assert [await policy.check(said(n)) for n in range(50)] == [None] * 50


async def test_a_draft_cannot_claim_an_older_time():
    clock = ManualClock(1_700_000_000_000)
    policy = GovernancePolicy(hansa_governance.Config(rate={"events": 1, "seconds": 60}), "gov", clock)

    def said(n):
        crossing = event_in(HELLO)
        return replace(crossing, facts=replace(crossing.facts, ts=clock.now() - (9 - n) * 600_000))

    assert [bool(await policy.check(said(n))) for n in range(3)] == [False, True, True]


async def test_every_control_gives_its_reason():
    config = {
        "deny_servers": ["evil.example"],
        "deny_users": ["@eve:*"],
        "words": ["classified"],
        "rate": {"events": 1, "seconds": 60},
    }
    policy = GovernancePolicy(hansa_governance.Config.model_validate(config), "gov", ManualClock())
    bad = event_in(Message(text="classified"), EVE, "evil.example")
    await policy.check(bad)
    bad = replace(bad, facts=replace(bad.facts, act="another"))
    verdict = await policy.check(bad)
    found = {reason.code for reason in verdict.reasons}
    assert found == {"GOV_SERVER_DENIED", "GOV_USER_DENIED", "GOV_CONTENT", "GOV_RATE"}


ALL = {
    "deny_servers": ["*.evil.example", "z.example"],
    "allow_servers": ["x.example", "y.example", "[2001:db8::1]"],
    "deny_users": ["*@z.example"],
    "words": ["hello", "spam"],
    "rate": {"events": 3, "seconds": 60},
}


class TestOfEverything(PolicySuite):
    plugin = hansa_governance
    options: ClassVar = ALL


class TestOfNothing(PolicySuite):
    plugin = hansa_governance


def setup(mode="enforce", **config):
    options = hansa_governance.Config.model_validate(config)
    return PolicySetup(name="gov", module=hansa_governance, options=options, shadow=mode == "shadow")


def networks(made):
    plugin = module(made)
    return {name: (plugin, ActorConfig()) for name in ("left", "right")}


async def test_what_is_refused_carries_a_decision_that_explains_itself():
    made, clock = dict[str, Actor](), ManualClock()
    policies = [setup(words=["classified"], rate={"events": 2, "seconds": 10})]
    seams = Environment(clock, SystemRandom())
    async with run_hansa(
        networks(made), rooms=[("left:a", "right:b")], policies=policies, seams=seams
    ) as app:
        left = made["left"]
        refusal = (await left.say("a", "ann@x", "Classified!")).refusal
        assert refusal.code is RefusalCode.POLICY
        assert refusal.text.endswith(f"[{refusal.decision}]")
        explained = await app.decisions.explain(refusal.decision)
        assert explained["reasons"][0]["rule"] == "words: classified"
        assert explained["facts"]["sender"] == "left:ann@x"
        assert (await left.say("a", "ann@x", "fine")).refusal is None
        refusal = (await left.say("a", "ann@x", "too fast")).refusal
        assert refusal.code is RefusalCode.RATE and refusal.retry_after == pytest.approx(5)
        assert await made["right"].until("b", 1) == ["fine"]


async def test_in_shadow_mode_all_passes_and_the_log_says_what_would_not():
    made = dict[str, Actor]()
    policies = [setup("shadow", words=["classified"], deny_servers=["evil.example"])]
    async with run_hansa(networks(made), rooms=[("left:a", "right:b")], policies=policies) as app:
        assert (await made["left"].say("a", "eve@evil.example", "classified")).refusal is None
        assert await made["right"].until("b", 1) == ["classified"]
        (decided,) = await app.decisions.log(10)
        assert (decided["mode"], decided["action"], decided["would"]) == ("shadow", "allow", "deny")
        assert {r["code"] for r in decided["would_reasons"]} == {"GOV_CONTENT", "GOV_SERVER_DENIED"}


async def test_while_a_denied_server_is_in_the_room_nothing_goes_into_it():
    made = dict[str, Actor]()
    policies = [setup(deny_servers=["evil.example"])]
    async with run_hansa(networks(made), rooms=[("left:a", "right:b")], policies=policies) as app:
        await made["right"].join("b", "bob@y")
        view = next(iter(app.rooms)).view
        eve = RoomMember(
            user=NativeId("right", "eve@evil.example"), membership=Membership.JOIN, server="evil.example"
        )
        await app.contexts["right"].reconcile_view("b", ViewDelta(upserts=(eve,)))
        assert "evil.example" in view.servers()
        said = (await made["left"].say("a", "ann@x", "are we alone?")).event
        assert [link for link, _ in said.withheld_from] == ["right:b"]
        await made["right"].leave("b", "eve@evil.example")
        await made["left"].say("a", "ann@x", "now we are")
        assert await made["right"].until("b", 1) == ["now we are"]


@pytest.mark.parametrize(
    "crossing",
    [
        replace(invite(), again=True),
        ProfileChange(network="matrix", user=ANN, user_server="good.example", again=True),
        ToDevice(network="matrix", sender=ANN, sender_server="good.example", type="m.x", again=True),
    ],
)
async def test_what_is_judged_again_is_nobodys_act(crossing):
    options = hansa_governance.Config.model_validate({"rate": {"events": 1, "seconds": 600}})
    policy = GovernancePolicy(options, "gov", ManualClock())
    for _ in range(30):
        assert await policy.check(crossing) is None
    assert await policy.check(replace(crossing, again=False)) is None


async def test_long_texts_are_read_beside_the_loop():
    options = hansa_governance.Config.model_validate({"words": ["classified"]})
    policy, where = GovernancePolicy(options, "gov", ManualClock()), set()
    read = policy._read_texts

    def seen(crossing, going, *, free):
        where.add(threading.current_thread() is threading.main_thread())
        return read(crossing, going, free=free)

    policy._read_texts = seen
    for length, beside in ((10, False), (20_000, True)):
        where.clear()
        verdict = await policy.check(event_in(Message(text="x " * length + "classified")))
        assert verdict is not None and verdict.action is Action.DENY
        assert where == {not beside}


async def test_what_nobody_waits_for_is_not_read_on():
    """One text that takes longer than a policy has does not hold up the next one."""
    options = hansa_governance.Config.model_validate({"words": ["classified"]})
    policy, steps, go_on, ended = GovernancePolicy(options, "gov", ManualClock()), [], threading.Event(), []
    hit = policy._words.find

    def slow(texts, going):
        def step():
            steps.append(None)
            go_on.wait()
            going()

        try:
            return hit(texts, step)
        finally:
            ended.append(len(steps))

    policy._words.find = slow
    asking = asyncio.ensure_future(policy.check(event_in(Message(text="\u00e9 " * 50_000))))
    await until(lambda: steps)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    go_on.set()
    policy._words.find = hit
    verdict = await policy.check(event_in(Message(text="x " * 20_000 + "classified")))
    assert verdict is not None and verdict.action is Action.DENY
    assert ended == [1]


async def test_a_question_about_thousands_of_people_holds_nobody_up():
    options = hansa_governance.Config.model_validate({"deny_users": ["@mal*:*", "@u4999:x.example"]})
    policy, turns = GovernancePolicy(options, "gov", ManualClock()), 0
    users = tuple(NativeId("m", f"@u{number}:x.example") for number in range(5000))
    asking = asyncio.ensure_future(
        policy.check(KeysQuery(network="m", server="x.example", users=users, outbound=False))
    )
    while not asking.done():
        await asyncio.sleep(0)
        turns += 1
    verdict = await asking
    assert verdict is not None and [reason.admin_text for reason in verdict.reasons] == ["@u4999:x.example"]
    assert turns > 100
    crowd = tuple(NativeId("m", f"@mal{number}:x.example") for number in range(5000))
    verdict = await policy.check(KeysQuery(network="m", server="x.example", users=crowd, outbound=False))
    assert verdict is not None and len(verdict.reasons) == MAX_NAMED


async def test_a_room_may_bar_a_server_that_is_denied_and_in_it():
    """Where nobody of its people is known who could be put out, this is how it is shut out."""
    policy = GovernancePolicy(hansa_governance.Config(deny_servers=("evil.example",)), "gov", ManualClock())
    view, facts = room("good.example", "evil.example"), NativeFacts(sender_server="good.example")
    out = {"link": IN, "sender": ANN, "view": view, "facts": facts}
    assert await policy.check(EventOut(content=Custom(type="m.room.server_acl"), **out)) is None
    assert (await policy.check(EventOut(content=Custom(type="m.room.topic"), **out))).action is Action.DENY
    theirs = EventIn(
        link=IN,
        sender=EVE,
        content=Custom(type="m.room.server_acl"),
        view=view,
        facts=replace(facts, sender_server="evil.example"),
    )
    assert (await policy.check(theirs)).action is Action.DENY
