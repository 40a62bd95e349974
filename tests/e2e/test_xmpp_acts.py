"""Acts of XMPP people on a room whose rules are Matrix's, and of Matrix people on XMPP's, with real servers."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from e2e.three_servers import MUC, wait_linked, wait_matrix_member, xmpp_config
from peers.prosody import XmppUser
from peers.synapse import MatrixUser
from peers.waiting import until

pytestmark = pytest.mark.e2e
ADMIN, OWNER = "http://jabber.org/protocol/muc#admin", "http://jabber.org/protocol/muc#owner"
USER = "{http://jabber.org/protocol/muc#user}"
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"


@dataclass
class Scene:
    """Alice (Synapse) made the room. Juliet owns it, and Romeo and Paris are members, on XMPP."""

    room: str
    alice: MatrixUser
    hugo: MatrixUser
    juliet: XmppUser
    romeo: XmppUser
    paris: XmppUser
    ghosts: dict[str, str]

    async def has_level(self, name: str, level: int) -> None:
        """Waits until Synapse knows the power level of a person."""

        async def holds() -> bool:
            levels = (await self.alice.state(self.room))["m.room.power_levels", ""]["content"]
            return int(levels["users"].get(self.ghosts[name], levels.get("users_default", 0))) == level

        await until(f"{name} has the power level {level}", holds)

    async def set_levels(self, **levels: int) -> None:
        content = (await self.alice.state(self.room))["m.room.power_levels", ""]["content"]
        users = {**content["users"], **{self.ghosts[name]: level for name, level in levels.items()}}
        await self.alice.set_state(self.room, "m.room.power_levels", {**content, "users": users})

    async def membership_of(self, name: str) -> tuple[str, str]:
        content = (await self.alice.state(self.room))["m.room.member", self.ghosts[name]]["content"]
        return content["membership"], content.get("reason", "")

    async def becomes(self, name: str, membership: str, reason: str = "") -> dict[str, Any]:
        """Waits for what Synapse knows of a person's membership; returns the event."""

        async def holds() -> bool:
            return await self.membership_of(name) == (membership, reason)

        await until(f"{name}: {membership}: {reason}", holds)
        event: dict[str, Any] = (await self.alice.state(self.room))["m.room.member", self.ghosts[name]]
        return event


@pytest.fixture
async def scene(
    hansa: Any,
    prosody: Any,
    matrix_user: Callable[[str], Awaitable[MatrixUser]],
    local_user: Callable[[Any, str], Awaitable[MatrixUser]],
    xmpp_user: Callable[[str], Awaitable[XmppUser]],
) -> Scene:
    server = await hansa(xmpp_config(prosody))
    alice, hugo = await matrix_user("alice"), await local_user(server, "hugo")
    room = await hugo.create_room("11", room_alias_name="lobby")
    await server.run("rooms", "create", f"matrix:#lobby:{server.name}", "xmpp:lobby")
    await wait_linked(server)
    await alice.join(f"#lobby:{server.name}")
    ghosts = {}
    people = [await xmpp_user(name) for name in ("juliet", "romeo", "paris")]
    for user, nick in zip(people, ("Juliet", "Romeo", "Paris"), strict=True):
        await user.join(MUC, nick)
        ghosts[nick] = await wait_matrix_member(alice, room, nick)
    levels = (await hugo.state(room))["m.room.power_levels", ""]["content"]
    users = {**levels["users"], alice.id: 100, ghosts["Juliet"]: 100}
    await hugo.set_state(room, "m.room.power_levels", {**levels, "users": users})
    made = Scene(room, alice, hugo, *people, ghosts)
    await standing(made.juliet, "Juliet", "owner", "moderator")
    await made.has_level("Juliet", 100)
    return made


async def ask(user: XmppUser, inner: str, *, kind: str = "set", to: str = MUC) -> str:
    """``result``, or the condition of the error that an IQ is answered with."""
    return result_of(await answer_to(user, inner, kind=kind, to=to))


async def answer_to(user: XmppUser, inner: str, *, kind: str, to: str = MUC) -> Element:
    return await user.ask(f"<iq to='{to}' type='{kind}' id='q{secrets.token_hex(6)}'>{inner}</iq>")


def result_of(answer: Element) -> str:
    conditions = [e.tag.removeprefix(STANZAS) for e in answer.iter() if e.tag.startswith(STANZAS)]
    return next((one for one in conditions if one != "text"), "result")


def change(reason: str = "", **attributes: str) -> str:
    given = " ".join(f"{name}='{value}'" for name, value in attributes.items())
    why = f"<reason>{reason}</reason>" if reason else ""
    return f"<query xmlns='{ADMIN}'><item {given}>{why}</item></query>"


async def standing(user: XmppUser, nick: str, affiliation: str, role: str) -> None:
    """Waits until the last presence of an occupant says this."""

    def shown() -> bool:
        for e in reversed(user.stanzas):
            if e.tag.endswith("presence") and e.get("from") == f"{MUC}/{nick}":
                item = e.find(f"{USER}x/{USER}item")
                return item is not None and (item.get("affiliation"), item.get("role")) == (affiliation, role)
        return False

    await user.until(f"{nick} is {affiliation} {role}", shown)


async def removal(user: XmppUser, nick: str) -> tuple[set[str], str, str]:
    """Waits for the removal of an occupant: status codes, the nick of the actor, and the reason."""

    def gone() -> list[Element]:
        last = [e for e in user.stanzas if e.tag.endswith("presence") and e.get("from") == f"{MUC}/{nick}"]
        return last[-1:] if last and last[-1].get("type") == "unavailable" else []

    presence = (await user.until(f"{nick} is removed", gone))[0]
    x = presence.find(f"{USER}x")
    codes = {str(e.get("code")) for e in x.findall(f"{USER}status")}
    actor, reason = x.find(f"{USER}item/{USER}actor"), x.findtext(f"{USER}item/{USER}reason", "")
    return codes, actor.get("nick", "") if actor is not None else "", reason


async def test_ranks_that_an_owner_gives_are_power_levels(scene: Scene) -> None:
    assert await ask(scene.juliet, change(nick="Romeo", role="moderator")) == "result"
    await standing(scene.paris, "Romeo", "admin", "moderator")
    await scene.has_level("Romeo", 50)
    assert await ask(scene.juliet, change(jid=scene.romeo.bare, affiliation="owner")) == "result"
    await standing(scene.paris, "Romeo", "owner", "moderator")
    await scene.has_level("Romeo", 100)
    assert await ask(scene.juliet, change(jid=scene.paris.bare, affiliation="admin")) == "result"
    await standing(scene.romeo, "Paris", "admin", "moderator")
    assert await ask(scene.paris, change(jid=scene.romeo.bare, affiliation="none")) == "not-allowed"
    assert await ask(scene.juliet, change(nick="Paris", affiliation="none")) == "result"
    await standing(scene.romeo, "Paris", "none", "participant")
    await scene.has_level("Paris", 0)


async def test_voice_is_taken_and_given_back(scene: Scene) -> None:
    assert await ask(scene.juliet, change(nick="Paris", role="visitor")) == "result"
    await standing(scene.romeo, "Paris", "none", "visitor")
    refused = await scene.paris.verdict(scene.paris.say(MUC, "may I?"), MUC)
    assert refused is not None
    assert refused.condition == "forbidden"
    assert await ask(scene.romeo, change(nick="Paris", role="participant")) == "forbidden"
    assert await ask(scene.juliet, change(nick="Paris", role="participant")) == "result"
    await standing(scene.romeo, "Paris", "none", "participant")
    assert await scene.paris.verdict(scene.paris.say(MUC, "thank you"), MUC) is None


async def test_kicks_and_bans_by_xmpp_people_are_memberships_with_reasons(scene: Scene) -> None:
    assert await ask(scene.romeo, change("no", nick="Paris", role="none")) == "forbidden"
    assert await ask(scene.juliet, change("weary", nick="Paris", role="none")) == "result"
    event = await scene.becomes("Paris", "leave", "weary")
    assert event["sender"] == scene.ghosts["Juliet"]
    for user in (scene.paris, scene.romeo):
        codes, actor, reason = await removal(user, "Paris")
        assert "307" in codes
        assert (actor, reason) == ("Juliet", "weary")
    await scene.paris.join(MUC, "Paris")
    await scene.becomes("Paris", "join")
    banned = change("for ever", jid=scene.paris.bare, affiliation="outcast")
    assert await ask(scene.juliet, banned) == "result"
    event = await scene.becomes("Paris", "ban", "for ever")
    assert event["sender"] == scene.ghosts["Juliet"]
    codes, actor, reason = await removal(scene.paris, "Paris")
    assert "301" in codes
    assert (actor, reason) == ("Juliet", "for ever")
    listed = await answer_to(scene.juliet, change(affiliation="outcast"), kind="get")
    assert [e.get("jid") for e in listed.iter(f"{{{ADMIN}}}item")] == [scene.paris.bare]
    assert await ask(scene.romeo, change(affiliation="outcast"), kind="get") == "forbidden"
    assert await ask(scene.juliet, change(jid=scene.paris.bare, affiliation="none")) == "result"
    await scene.becomes("Paris", "leave")


async def test_a_person_of_matrix_is_banned_by_an_owner_of_xmpp(scene: Scene) -> None:
    item = await person_item(scene.juliet, scene.alice)
    assert await ask(scene.romeo, change("out", jid=item, affiliation="outcast")) == "forbidden"
    assert (
        await ask(scene.juliet, change("out", jid=item, affiliation="outcast")) == "not-allowed"
    )  # an equal
    content = (await scene.alice.state(scene.room))["m.room.power_levels", ""]["content"]
    users = {user: level for user, level in content["users"].items() if user != scene.alice.id}
    await scene.alice.set_state(scene.room, "m.room.power_levels", {**content, "users": users})
    await standing(scene.juliet, scene.alice.id[1:].partition(":")[0], "none", "participant")
    assert await ask(scene.juliet, change("out", jid=item, affiliation="outcast")) == "result"

    async def banned() -> bool:
        event = (await scene.hugo.state(scene.room))["m.room.member", scene.alice.id]
        return (event["content"]["membership"], event["sender"]) == ("ban", scene.ghosts["Juliet"])

    await until("alice is banned", banned)


async def person_item(user: XmppUser, other: MatrixUser) -> str:
    """The address that a moderator sees of a person."""
    nick = other.id[1:].partition(":")[0]

    def found() -> str:
        for e in user.stanzas:
            if e.tag.endswith("presence") and e.get("from") == f"{MUC}/{nick}":
                item = e.find(f"{USER}x/{USER}item")
                return item.get("jid", "") if item is not None else ""
        return ""

    return str(await user.until(f"the address of {nick}", found)).partition("/")[0]


@pytest.mark.parametrize("version", ["urn:xmpp:message-moderate:1", "urn:xmpp:message-moderate:0"])
async def test_what_a_moderator_retracts_is_redacted(version: str, scene: Scene) -> None:
    said = await scene.alice.say(scene.room, "spam spam")

    def stanza_id() -> str:
        for e in scene.juliet.messages(MUC):
            if e.findtext("{jabber:client}body") == "spam spam":
                return e.find("{urn:xmpp:sid:0}stanza-id").get("id", "")
        return ""

    name = await scene.juliet.until("the message", stanza_id)
    retract = f"<retract xmlns='urn:xmpp:message-retract:{version[-1]}'/><reason>no spam</reason>"
    inner = f"<moderate xmlns='{version}' id='{name}'>{retract}</moderate>"
    if version.endswith("0"):
        moderate = f"<moderate xmlns='{version}'>{retract}</moderate>"
        inner = f"<apply-to xmlns='urn:xmpp:fasten:0' id='{name}'>{moderate}</apply-to>"
    assert await ask(scene.romeo, inner) == "forbidden"
    assert await ask(scene.juliet, inner) == "result"

    async def redacted() -> list[tuple[str, str]]:
        events = await scene.alice.history(scene.room)
        return [
            (e["sender"], e["content"].get("reason", ""))
            for e in events
            if e["type"] == "m.room.redaction" and said in (e.get("redacts"), e["content"].get("redacts"))
        ]

    assert await until("the redaction", redacted) == [(scene.ghosts["Juliet"], "no spam")]
    shown = await scene.paris.until(
        "the retraction",
        lambda: [e for e in scene.paris.stanzas if e.find("{urn:xmpp:message-retract:1}retract") is not None],
    )
    retraction = shown[-1].find("{urn:xmpp:message-retract:1}retract")
    assert (shown[-1].get("from"), retraction.get("id")) == (MUC, name)
    assert retraction.find("{urn:xmpp:message-moderate:1}moderated").get("by") == f"{MUC}/Juliet"


async def test_the_form_of_an_owner_changes_the_room_and_is_forbidden_to_others(scene: Scene) -> None:
    form = f"<query xmlns='{OWNER}'/>"
    assert await ask(scene.romeo, form, kind="get") == "forbidden"
    asked = await answer_to(scene.juliet, form, kind="get")
    fields = {e.get("var"): e for e in asked.iter("{jabber:x:data}field")}
    assert {"muc#roomconfig_roomname", "muc#roomconfig_membersonly"} <= fields.keys()
    assert all(e.get("label") for name, e in fields.items() if name != "FORM_TYPE")
    submitted = (
        f"<query xmlns='{OWNER}'><x xmlns='jabber:x:data' type='submit'>"
        "<field var='FORM_TYPE'><value>http://jabber.org/protocol/muc#roomconfig</value></field>"
        "<field var='muc#roomconfig_roomname'><value>Orchard</value></field>"
        "<field var='muc#roomconfig_membersonly'><value>1</value></field></x></query>"
    )
    assert await ask(scene.romeo, submitted) == "forbidden"
    assert await ask(scene.juliet, submitted) == "result"

    async def changed() -> bool:
        state = await scene.alice.state(scene.room)
        name, rule = state.get(("m.room.name", "")), state["m.room.join_rules", ""]
        return name is not None and (name["content"]["name"], rule["content"]["join_rule"]) == (
            "Orchard",
            "invite",
        )

    await until("the room is called Orchard, and is for members only", changed)


async def test_acts_of_matrix_people_are_seen_by_xmpp_people(scene: Scene) -> None:
    await scene.set_levels(Romeo=50)
    for user in (scene.juliet, scene.romeo, scene.paris):
        await standing(user, "Romeo", "admin", "moderator")
    await scene.set_levels(Romeo=0)
    await standing(scene.paris, "Romeo", "none", "participant")
    await scene.alice.kick(scene.room, scene.ghosts["Romeo"], "weary")
    who = scene.alice.id[1:].partition(":")[0]
    for user in (scene.romeo, scene.paris):
        codes, actor, reason = await removal(user, "Romeo")
        assert "307" in codes
        assert (actor, reason) == (who, "weary")
    await scene.alice.ban(scene.room, scene.ghosts["Paris"])
    codes, actor, _ = await removal(scene.paris, "Paris")
    assert ("301" in codes, actor) == (True, who)


async def test_voice_that_is_asked_for_is_given_by_an_owner(scene: Scene) -> None:
    def form(*fields: tuple[str, str]) -> str:
        named = [
            ("FORM_TYPE", "http://jabber.org/protocol/muc#request"),
            ("muc#role", "participant"),
            *fields,
        ]
        inner = "".join(f"<field var='{var}'><value>{value}</value></field>" for var, value in named)
        return f"<message to='{MUC}' id='v'><x xmlns='jabber:x:data' type='submit'>{inner}</x></message>"

    def asked() -> list[tuple[tuple[str, str], ...]]:
        forms = [e.find("{jabber:x:data}x") for e in scene.juliet.stanzas if e.get("from") == MUC]
        return [
            tuple((str(f.get("var")), f.findtext("{*}value") or "") for f in x.findall("{*}field"))
            for x in forms
            if x is not None
        ]

    assert await ask(scene.juliet, change(nick="Paris", role="visitor")) == "result"
    await standing(scene.romeo, "Paris", "none", "visitor")
    scene.paris.raw(form())
    values = dict((await scene.juliet.until("Paris asks for voice", asked))[0])
    granted = {**values, "muc#request_allow": "true"}
    names = ("muc#jid", "muc#roomnick", "muc#request_allow")
    scene.juliet.raw(form(*((name, granted[name]) for name in names)))
    await standing(scene.romeo, "Paris", "none", "participant")
    assert await scene.paris.verdict(scene.paris.say(MUC, "thank you"), MUC) is None


async def test_a_private_message_is_for_one_occupant_and_nobody_of_matrix(scene: Scene) -> None:
    scene.juliet.raw(f"<message to='{MUC}/Romeo' type='chat' id='p'><body>psst</body></message>")

    def private() -> list[str]:
        bodies = [e.findtext("{*}body") for e in scene.romeo.stanzas if e.get("from") == f"{MUC}/Juliet"]
        return [body for body in bodies if body == "psst"]

    await scene.romeo.until("the private message", private)
    assert await scene.juliet.verdict(scene.juliet.say(MUC, "the last"), MUC) is None
    await scene.paris.until("the last message", lambda: "the last" in scene.paris.bodies(MUC))
    assert "psst" not in scene.paris.bodies(MUC, nick="Juliet")


async def test_people_of_matrix_have_vcards_in_the_room(scene: Scene) -> None:
    nick = next(nick for nick in scene.romeo.occupants(MUC) if nick.lower().startswith("alice"))
    card = await answer_to(scene.romeo, "<vCard xmlns='vcard-temp'/>", kind="get", to=f"{MUC}/{nick}")
    assert result_of(card) == "result"
    assert (card.findtext(".//{vcard-temp}FN") or "").lower().startswith("alice")
