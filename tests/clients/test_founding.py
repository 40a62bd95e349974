"""The first events of a room are asked about and checked like later ones; a refused room leaves nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, matrix_server, part
from hansa import (
    ALLOW,
    Action,
    Custom,
    DirectoryPublish,
    EventIn,
    Invite,
    Reason,
    RoomCreate,
    Verdict,
)
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa_governance.config import Config, RateConfig
from hansa_governance.policy import GovernancePolicy
from matrix.server_with_peer import OURS, THEIRS


class Strict:
    """Denies what ``forbids`` says; remembers everything that it was asked."""

    def __init__(self, forbids: Any = lambda _: False) -> None:
        self.asked: list[Any] = []
        self._forbids = forbids

    async def check(self, crossing: Any) -> Verdict:
        self.asked.append(crossing)
        if self._forbids(crossing):
            return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="strict", text="not here"),))
        return ALLOW

    def kinds(self) -> list[str]:
        return [one.facts.type for one in self.asked if isinstance(one, EventIn)]


def under(home: MatrixServer, policy: Any) -> Any:
    home.app.decisions.replace([InstalledPolicy(name="strict", policy=policy)])
    return policy


async def rows(home: MatrixServer) -> dict[str, list[Any]]:
    """Everything that a room leaves in the store and in memory."""
    matrix = home.matrix
    store = matrix.store
    kept = {
        name: [row.key for row in await store.scan(name, limit=1000)]
        for name in ("room", "pdu", "state_group", "room_alias", "published", "news")
    }
    return kept | {"rooms": list(matrix.rooms), "links": [str(li.native) for li in matrix.ctx.list_links()]}


async def refused(home: MatrixServer, who: LocalUser, options: Any) -> Any:
    """The answer to a room that is not made, of which nothing is left."""
    before = await rows(home)
    status, answer = await who.ask("POST", "/createRoom", options)
    assert await rows(home) == before
    assert "rooms" not in await who.sync()
    return status, answer


def says(word: str) -> Any:
    """A policy about events on their way in, as it would be of a later event of the kind."""
    return lambda crossing: (
        isinstance(crossing, EventIn) and word in f"{crossing.content} {crossing.facts.type}"
    )


FORBIDDEN = [
    {"name": "the classified room"}, {"topic": "classified matters"},
    {"initial_state": [{"type": "m.room.topic", "content": {"topic": "classified"}}]},
    {"initial_state": [{"type": "m.room.name", "content": {"name": "classified"}}]},
    {"initial_state": [{"type": "org.classified", "content": {}}]},
]  # fmt: skip


@pytest.mark.parametrize("options", FORBIDDEN)
async def test_a_room_with_a_word_that_may_not_be_said_is_not_made(tmp_path, options):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        under(home, Strict(says("classified")))
        status, answer = await refused(
            home, alice, {"room_alias_name": "x", "visibility": "public"} | options
        )
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        assert answer["dev.hansa.decision"].startswith("d-")


async def test_the_words_of_the_governance_policy_hold_at_creation(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        policy = GovernancePolicy(Config(words=["classified"]), "gov", home.app.contexts["matrix"].clock)
        under(home, policy)
        for options in (*FORBIDDEN[:4], {"room_alias_name": "classified"}):
            status, answer = await refused(home, alice, options)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN"), options
        await alice.call("PUT", f"/profile/{part(alice.user)}/displayname", {"displayname": "fair"})
        assert await alice.create(name="fair", topic="words")


async def test_a_creator_whose_name_may_not_be_shown_makes_no_room(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        await alice.call("PUT", f"/profile/{part(alice.user)}/displayname", {"displayname": "classified"})
        under(
            home, Strict(lambda c: isinstance(c, EventIn) and getattr(c.content, "name", "") == "classified")
        )
        status, _ = await refused(home, alice, {})
        assert status == 403


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (RoomCreate, {}), (Invite, {"invite": [f"@m:{THEIRS}"]}), (DirectoryPublish, {"room_alias_name": "plaza"}),
        (DirectoryPublish, {"visibility": "public"}),
        (Invite, {"creation_content": {"additional_creators": [f"@m:{THEIRS}"]}}),
        (Invite, {"preset": "trusted_private_chat", "invite": [f"@m:{THEIRS}"]}),
    ],
)  # fmt: skip
async def test_every_crossing_of_a_creation_is_asked_about_before_anything_is_written(
    tmp_path, kind, options
):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        under(home, Strict(lambda crossing: isinstance(crossing, kind)))
        status, answer = await refused(home, alice, options)
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        assert answer["dev.hansa.decision"].startswith("d-")


async def test_a_policy_is_told_of_the_whole_room_and_of_each_of_its_first_events(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        strict = under(home, Strict())
        room = await alice.create(
            name="Verona", topic="a feud", room_alias_name="verona", invite=[bob.user],
            creation_content={"m.federate": False, "additional_creators": [bob.user]},
            initial_state=[{"type": "m.room.avatar", "content": {"url": f"mxc://{OURS}/a"}}],
        )  # fmt: skip
        (made,) = [one for one in strict.asked if isinstance(one, RoomCreate)]
        assert (made.user.id, made.version, made.federated) == (alice.user, "12", False)
        assert [ref.id for ref in made.invited] == [bob.user]
        assert f"#verona:{OURS}" in made.texts
        first = [one for one in strict.asked if isinstance(one, EventIn) and one.facts.automatic]
        state = await alice.get(f"/rooms/{part(room)}/state")
        assert len(first) == len(state)
        assert all(one.link.native.id == room for one in first)
        assert [one.room for one in strict.asked if isinstance(one, Invite)][:1] == [room]


async def test_who_is_invited_is_judged_by_the_invite_itself_before_there_is_a_room(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        await bob.call("PUT", f"/profile/{part(bob.user)}/displayname", {"displayname": "classified"})

        def forbids(crossing: Any) -> bool:
            return isinstance(crossing, EventIn) and "classified" in crossing.facts.texts

        under(home, Strict(forbids))
        status, answer = await refused(home, alice, {"invite": [bob.user]})
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        under(home, Strict(lambda c: isinstance(c, EventIn) and c.content.kind.value == "member" and c.content.user.id == bob.user))  # fmt: skip
        assert (await refused(home, alice, {"invite": [bob.user]}))[0] == 403


async def test_a_room_is_one_act_of_its_maker_for_a_rate(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        rate = Config(rate=RateConfig(events=2, seconds=1000))
        under(home, GovernancePolicy(rate, "gov", home.app.contexts["matrix"].clock))
        assert await alice.create(name="Verona", topic="a feud")


async def test_denied_people_and_servers_begin_no_room(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        clock = home.app.contexts["matrix"].clock
        under(home, GovernancePolicy(Config(deny_servers=[THEIRS.partition(":")[0]]), "gov", clock))
        for options in (
            {"invite": [f"@m:{THEIRS}"]},
            {"creation_content": {"additional_creators": [f"@m:{THEIRS}"]}},
        ):
            assert (await refused(home, alice, options))[0] == 403
        under(home, GovernancePolicy(Config(deny_users=["@alice:*"]), "gov", clock))
        assert (await refused(home, alice, {}))[0] == 403


async def test_an_invite_that_another_server_does_not_take_is_told_and_the_room_is_there(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        answer = await alice.call("POST", "/createRoom", {"invite": [f"@m:{THEIRS}", bob.user]})
        assert list(answer["dev.hansa.not_invited"]) == [f"@m:{THEIRS}"]
        assert answer["room_id"] in (await bob.sync())["rooms"]["invite"]
        assert (await alice.get("/joined_rooms"))["joined_rooms"] == [answer["room_id"]]


@pytest.mark.parametrize(
    ("type_", "content", "code"),
    [
        ("m.room.canonical_alias", {"alias": f"#lobby:{OURS}"}, "M_BAD_ALIAS"),
        ("m.room.canonical_alias", {"alt_aliases": [f"#lobby:{OURS}"]}, "M_BAD_ALIAS"),
        ("m.room.canonical_alias", {"alias": "lobby"}, "M_INVALID_PARAM"),
        ("m.room.canonical_alias", {"alt_aliases": "x"}, "M_BAD_JSON"),
        ("m.room.server_acl", {"allow": ["*"], "deny": ["127.*"]}, "M_BAD_JSON"),
        ("m.room.server_acl", {"allow": []}, "M_BAD_JSON"), ("m.room.create", {}, "M_INVALID_PARAM"),
        ("x" * 256, {}, "M_INVALID_PARAM"), ("", {}, "M_INVALID_PARAM"),
    ],
)  # fmt: skip
async def test_what_no_state_event_may_say_no_room_begins_with(tmp_path, type_, content, code):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        await alice.create(room_alias_name="lobby", preset="public_chat")
        initial = [{"type": type_, "content": content}]
        before = await rows(home)
        status, answer = await bob.ask("POST", "/createRoom", {"initial_state": initial})
        assert (status, answer["errcode"]) == (400, code)
        assert await rows(home) == before
        if type_:
            room = await bob.create()
            status, answer = await bob.ask("PUT", f"/rooms/{part(room)}/state/{part(type_)}/", content)
            assert (status, answer["errcode"]) == (400, code)


async def test_an_event_that_is_too_large_begins_no_room(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        large = [{"type": "m.room.topic", "content": {"topic": "x" * 70_000}}]
        status, answer = await refused(home, alice, {"initial_state": large})
        assert (status, answer["errcode"]) == (413, "M_TOO_LARGE")
        status, answer = await refused(home, alice, {"power_level_content_override": {"users": {"x": 1}}})
        assert (status, answer["errcode"]) == (400, "M_INVALID_ROOM_STATE")
        own = [{"type": "m.room.canonical_alias", "content": {"alias": f"#own:{OURS}"}}]
        assert await alice.create(room_alias_name="own", initial_state=own)


async def test_nobody_takes_a_name_by_what_a_room_says(tmp_path):
    """A state event names ``#lobby``; then that room is replaced."""
    async with matrix_server(tmp_path, "11") as home:
        alice, mallory = await home.person("alice"), await home.person("mallory")
        lobby = await alice.create(room_alias_name="lobby", preset="public_chat")
        room = await mallory.create(preset="public_chat")
        matrix = home.matrix
        # As another server's event would, which nobody here has checked.
        room_of = matrix.get_room(room)
        said = {"alias": f"#lobby:{OURS}", "alt_aliases": [f"#lobby:{OURS}"]}
        what = Custom(type="m.room.canonical_alias")
        refusal = await matrix.local_events.send(mallory.user, room, what, (what.type, "", said))
        assert refusal is None
        assert ("m.room.canonical_alias", "") in await room_of.state()
        for one in (alice, lobby), (mallory, room):
            listed = f"/directory/list/room/{part(one[1])}"
            await one[0].call("PUT", listed, {"visibility": "public"})
        chunk = (await alice.get("/publicRooms"))["chunk"]
        assert {r["room_id"]: r.get("canonical_alias") for r in chunk} == {
            lobby: f"#lobby:{OURS}",
            room: None,
        }
        answer = await mallory.room(room, "upgrade", {"new_version": "11"})
        new = answer["replacement_room"]
        assert (await home.anybody.get(f"/directory/room/{part(f'#lobby:{OURS}')}"))["room_id"] == lobby
        state = await mallory.get(f"/rooms/{part(new)}/state")
        assert "m.room.canonical_alias" not in [e["type"] for e in state]
        await alice.call("DELETE", f"/directory/room/{part(f'#lobby:{OURS}')}")


async def test_of_two_rooms_made_at_once_under_one_name_there_is_one(tmp_path):
    async with matrix_server(tmp_path) as home:
        people = [await home.person(name) for name in ("alice", "bob", "carol")]
        before = await rows(home)
        made = await asyncio.gather(
            *(who.ask("POST", "/createRoom", {"room_alias_name": "plaza"}) for who in people)
        )
        assert sorted(status for status, _ in made) == [200, 400, 400]
        assert {answer["errcode"] for status, answer in made if status == 400} == {"M_ROOM_IN_USE"}
        (room,) = [answer["room_id"] for status, answer in made if status == 200]
        after = await rows(home)
        assert set(after["rooms"]) - set(before["rooms"]) == {room}
        assert {key[0] for key in after["room"]} - {key[0] for key in before["room"]} == {room}
        assert (await home.anybody.get(f"/directory/room/{part(f'#plaza:{OURS}')}"))["room_id"] == room


async def test_of_two_names_given_at_once_one_is(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        chosen = [await alice.create(), await alice.create()]
        path = f"/directory/room/{part(f'#plaza:{OURS}')}"
        given = await asyncio.gather(*(alice.ask("PUT", path, {"room_id": room}) for room in chosen))
        assert sorted(status for status, _ in given) == [200, 409]
        leads = (await home.anybody.get(path))["room_id"]
        assert [status for room, (status, _) in zip(chosen, given, strict=True) if room == leads] == [200]


async def test_a_name_that_a_policy_denies_is_not_given_and_no_room_is_listed(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat", name="Verona")
        strict = under(home, Strict(lambda crossing: isinstance(crossing, DirectoryPublish)))
        for path, body in (
            (f"/directory/room/{part(f'#plaza:{OURS}')}", {"room_id": room}),
            (f"/directory/list/room/{part(room)}", {"visibility": "public"}),
        ):
            status, answer = await alice.ask("PUT", path, body)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
            assert answer["dev.hansa.decision"].startswith("d-")
        asked = [one for one in strict.asked if isinstance(one, DirectoryPublish)]
        assert [(one.address, one.room) for one in asked] == [(f"#plaza:{OURS}", room), ("", room)]
        assert "Verona" in asked[1].texts
        assert (await alice.get("/publicRooms"))["chunk"] == []
        await alice.call("PUT", f"/directory/list/room/{part(room)}", {"visibility": "private"})
