"""A room is replaced by who may, by a room as it was, with the names that are its own."""

from __future__ import annotations

from typing import Any

import pytest
from clients.matrix_server import LocalUser, MatrixServer, Refused, matrix_server, part
from hansa import ALLOW, Action, EventIn, Invite, Put, Reason, RoomUpgrade, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa_matrix.rooms.directory.aliases import (
    RoomAlias,
    alias_of,
    aliases_of,
    insert_alias_write,
    move_alias_write,
    remove_alias_writes,
)
from hansa_matrix.rooms.directory.public_rooms import publish_write
from matrix.server_with_peer import OURS, THEIRS


async def state(person: LocalUser, room: str) -> dict[tuple[str, str], Any]:
    events = await person.get(f"/rooms/{part(room)}/state")
    return {(e["type"], e["state_key"]): e["content"] for e in events}


async def replaced(person: LocalUser, room: str, version: str, **more: Any) -> str:
    answer = await person.room(room, "upgrade", {"new_version": version, **more})
    return str(answer["replacement_room"])


async def leads(home: MatrixServer, name: str) -> str:
    return str((await home.anybody.get(f"/directory/room/{part(f'#{name}:{OURS}')}"))["room_id"])


@pytest.mark.parametrize(("before", "after"), [("10", "11"), ("11", "12"), ("12", "12")])
async def test_what_a_room_is_for_ever_goes_along(tmp_path, before, after):
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice = await home.person("alice")
        create = {"type": "m.space", "m.federate": False, "org.other": 1}
        room = await alice.create(room_version=before, creation_content=create)
        said = (await state(alice, await replaced(alice, room, after)))["m.room.create", ""]
        assert (said["type"], said["m.federate"]) == ("m.space", False)
        assert "org.other" not in said
        plain = await alice.create(room_version=before)
        said = (await state(alice, await replaced(alice, plain, after)))["m.room.create", ""]
        assert {"type", "m.federate"}.isdisjoint(said)


@pytest.mark.parametrize(("before", "after"), [("9", "11"), ("10", "10"), ("11", "11")])
async def test_nobody_rises_by_replacing_a_room(tmp_path, before, after):
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(room_version=before, preset="public_chat", name="Verona")
        await bob.join(room)
        await alice.room(room, "ban", {"user_id": f"@m:{THEIRS}"})
        levels = (await state(alice, room))["m.room.power_levels", ""]
        levels["users"] |= {bob.user: 50, f"@m:{THEIRS}": 60}
        levels["events"] |= {"m.room.tombstone": 50, "m.room.name": 75}
        await alice.state(room, "m.room.power_levels", levels)
        new = await replaced(bob, room, after)
        seen = await state(bob, new)
        assert seen["m.room.power_levels", ""] == levels
        assert seen["m.room.name", ""] == {"name": "Verona"}
        assert seen["m.room.member", f"@m:{THEIRS}"]["membership"] == "ban"
        await alice.join(new)
        await alice.state(new, "m.room.name", {"name": "Mantua"})
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await bob.state(new, "m.room.name", {"name": "mine"})


async def test_a_version_whose_makers_are_above_everybody_takes_who_may_set_levels(tmp_path):
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(room_version="11", preset="public_chat")
        await bob.join(room)
        levels = (await state(alice, room))["m.room.power_levels", ""]
        levels["users"][bob.user] = 50
        levels["events"]["m.room.tombstone"] = 50
        await alice.state(room, "m.room.power_levels", levels)
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await replaced(bob, room, "12")
        new = await replaced(alice, room, "12", additional_creators=[bob.user])
        seen = await state(alice, new)
        assert seen["m.room.create", ""]["additional_creators"] == [bob.user]
        assert seen["m.room.power_levels", ""]["users"] == {}
        # Back to a version where only a number can say what its makers are.
        older = await replaced(alice, new, "11")
        assert (await state(alice, older))["m.room.power_levels", ""]["users"] == {
            alice.user: 100,
            bob.user: 100,
        }


async def test_further_creators_are_those_that_are_named_now(tmp_path):
    """A former creator is no longer above all others, and keeps no higher level than another user."""
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice, bob, carol = [await home.person(n) for n in ("alice", "bob", "carol")]
        room = await alice.create(
            preset="public_chat", creation_content={"additional_creators": [bob.user, carol.user]}
        )
        for one in (bob, carol):
            await one.join(room)
        kept = await replaced(alice, room, "12", additional_creators=[carol.user])
        seen = await state(alice, kept)
        assert seen["m.room.create", ""]["additional_creators"] == [carol.user]
        assert seen["m.room.power_levels", ""]["users"] == {bob.user: 100}
        dropped = await replaced(alice, kept, "12")
        seen = await state(alice, dropped)
        assert "additional_creators" not in seen["m.room.create", ""]
        assert seen["m.room.power_levels", ""]["users"] == {bob.user: 100, carol.user: 100}


@pytest.mark.parametrize("creators", [["@bob:elsewhere.example"], ["nobody"], 7])
async def test_a_version_without_further_creators_ignores_them(tmp_path, creators):
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice = await home.person("alice")
        room = await alice.create(room_version="10")
        new = await replaced(alice, room, "11", additional_creators=creators)
        assert "additional_creators" not in (await state(alice, new))["m.room.create", ""]


async def test_the_names_of_a_room_go_along_and_its_place_in_the_list(tmp_path):
    async with matrix_server(tmp_path, "11", public_reading=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(room_alias_name="verona", preset="public_chat", visibility="public")
        await bob.join(room)
        await bob.call("PUT", f"/directory/room/{part(f'#second:{OURS}')}", {"room_id": room})
        named = {"alias": f"#verona:{OURS}", "alt_aliases": [f"#second:{OURS}"]}
        await alice.state(room, "m.room.canonical_alias", named)
        new = await replaced(alice, room, "11")
        assert [await leads(home, name) for name in ("verona", "second")] == [new, new]
        assert (await state(alice, new))["m.room.canonical_alias", ""] == named
        assert [r["room_id"] for r in (await alice.get("/publicRooms"))["chunk"]] == [new]
        store = home.matrix.store
        assert [(a.name, a.by) for a in await aliases_of(store, new)] == [
            (f"#second:{OURS}", bob.user),
            (f"#verona:{OURS}", alice.user),
        ]
        await bob.call("DELETE", f"/directory/room/{part(f'#second:{OURS}')}")


async def test_a_name_that_only_a_rooms_state_claims_stays_where_it_is(tmp_path):
    """The other server's user has level 50, names a room ``#lobby``, and that room is replaced."""
    async with matrix_server(tmp_path, "11", public_reading=True) as home:
        alice, carol = await home.person("alice"), await home.person("carol")
        lobby = await alice.create(room_alias_name="lobby", preset="public_chat")
        matrix, room = home.matrix, home.wire.room.room_id
        await carol.join(room)
        levels = {"users": {f"@m:{THEIRS}": 50, carol.user: 100, matrix.bridge_user: 100}}
        await matrix.local_events.send_state(room, "m.room.power_levels", "", levels)
        home.wire.room.tips = dict.fromkeys(matrix.get_room(room).head.extremities, 50)
        state_ids = await matrix.get_room(room).state()
        auth = [state_ids[key] for key in (("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", f"@m:{THEIRS}"))]  # fmt: skip
        raw = home.wire.forger.draft(
            home.wire.room,
            "m.room.canonical_alias",
            {"alias": f"#lobby:{OURS}"},
            state_key="",
            auth_events=auth,
        )
        assert await home.wire.fate(home.wire.forger.finish(home.wire.room, raw)) == "accepted"
        assert ("m.room.canonical_alias", "") in await matrix.get_room(room).state()
        new = await replaced(carol, room, "11")
        assert await leads(home, "lobby") == lobby
        assert await leads(home, "one") == new
        assert ("m.room.canonical_alias", "") not in await state(carol, new)


class Strict:
    def __init__(self, forbids: Any) -> None:
        self._forbids = forbids

    async def check(self, crossing: Any) -> Verdict:
        if self._forbids(crossing):
            return Verdict(Action.DENY, (Reason(code="GOV_TEST", policy="strict", text="not here"),))
        return ALLOW


def _of_type(type_: str) -> Any:
    return lambda crossing: isinstance(crossing, EventIn) and crossing.facts.type == type_


@pytest.mark.parametrize(
    "forbids",
    [
        lambda c: isinstance(c, RoomUpgrade), lambda c: isinstance(c, Invite),
        _of_type("m.room.tombstone"), _of_type("m.room.join_rules"),
    ],
)  # fmt: skip
async def test_what_a_policy_denies_replaces_nothing_and_leaves_nothing(tmp_path, forbids):
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(room_alias_name="verona", preset="public_chat")
        matrix = home.matrix
        home.app.decisions.replace([InstalledPolicy(name="strict", policy=Strict(forbids))])
        before = set(matrix.rooms), await alice.get("/joined_rooms")
        body = {"new_version": "12", "additional_creators": [bob.user]}
        status, answer = await alice.ask("POST", f"/rooms/{part(room)}/upgrade", body)
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        assert answer["dev.hansa.decision"].startswith("d-")
        assert (set(matrix.rooms), await alice.get("/joined_rooms")) == before
        assert ("m.room.tombstone", "") not in await state(alice, room)
        assert await leads(home, "verona") == room


async def test_a_name_is_one_rooms_and_changes_hands_only_as_it_was_read(tmp_path):
    async with matrix_server(tmp_path, public_reading=True) as home:
        store = home.matrix.store
        await store.commit([insert_alias_write("#a:x", "!one", "@alice:x")])
        with pytest.raises(Exception, match="exists or has changed"):
            await store.commit([insert_alias_write("#a:x", "!two", "@bob:x")])
        first = await alias_of(store, "#a:x")
        assert first is not None
        assert (first.room_id, first.by) == ("!one", "@alice:x")
        # Meanwhile it is taken away and given to another room, by the same person.
        await store.commit([*remove_alias_writes(first), insert_alias_write("#a:x", "!two", "@alice:x")])
        for writes in ([move_alias_write(first, "!three")], remove_alias_writes(first)):
            with pytest.raises(Exception, match="exists or has changed"):
                await store.commit(writes)
        second = await alias_of(store, "#a:x")
        assert second is not None
        await store.commit([move_alias_write(second, "!three")])
        assert [(a.name, a.room_id, a.by) for a in await aliases_of(store, "!three")] == [
            ("#a:x", "!three", "@alice:x")
        ]
        assert await aliases_of(store, "!one") == await aliases_of(store, "!two") == []


async def test_a_row_of_before_says_who_gave_the_name(tmp_path):

    async with matrix_server(tmp_path, public_reading=True) as home:
        store = home.matrix.store
        for name, by in (("#a:x", b"@alice:x"), ("#b:x", b"")):
            await store.commit([Put("room_alias", (name,), by, {"room_id": "!one"})])
        assert await aliases_of(store, "!one") == [
            RoomAlias("#a:x", "!one", "@alice:x", b"@alice:x"),
            RoomAlias("#b:x", "!one", "", b""),
        ]
        one = await alias_of(store, "#a:x")
        assert one is not None
        await store.commit([move_alias_write(one, "!two")])
        assert [a.by for a in await aliases_of(store, "!two")] == ["@alice:x"]


async def test_a_name_given_away_while_its_room_is_replaced_stays_given_away(tmp_path):
    """Between what an upgrade reads and what it writes, its owner gives the name to another room."""
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice = await home.person("alice")
        room = await alice.create(room_alias_name="verona", preset="public_chat")
        other = await alice.create(preset="public_chat")
        matrix = home.matrix
        store, path = matrix.store, f"/directory/room/{part(f'#verona:{OURS}')}"
        real = matrix.upgrades._move_aliases
        scan, raced = store.scan, []

        class Racing:
            """A store in which another writer is faster once."""

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

            async def scan(self, collection: str, **options: Any) -> Any:
                found = await scan(collection, **options)
                if collection == "room_alias" and not raced:
                    raced.append(True)
                    await alice.call("DELETE", path)
                    await alice.call("PUT", path, {"room_id": other})
                return found

        async def rename(old: str, new: str) -> None:
            matrix.upgrades._ctx = type("Around", (), {"store": Racing()})()
            try:
                await real(old, new)
            finally:
                matrix.upgrades._ctx = matrix.ctx

        matrix.upgrades._move_aliases = rename
        await replaced(alice, room, "12")
        assert raced
        assert await leads(home, "verona") == other


async def test_an_upgrade_that_was_cut_off_is_finished_by_asking_again(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(room_alias_name="verona", preset="public_chat", visibility="public")
        upgrades = home.matrix.upgrades
        rename = upgrades._move_aliases

        async def dies(old: str, new: str) -> bool:
            raise OSError("the power fails")

        upgrades._move_aliases = dies
        with pytest.raises(Refused, match="500"):
            await replaced(alice, room, "12")
        upgrades._move_aliases = rename
        new = (await state(alice, room))["m.room.tombstone", ""]["replacement_room"]
        assert await leads(home, "verona") == room
        assert await replaced(alice, room, "12") == new
        assert await leads(home, "verona") == new
        with pytest.raises(Refused, match="replaced already"):
            await replaced(alice, room, "12")
        # A user claims that a room is replaced by theirs, which says so too; the room was not theirs.
        other = await alice.create(room_alias_name="mantua", preset="public_chat")
        theirs = await bob.create(creation_content={"predecessor": {"room_id": other}})
        await alice.state(other, "m.room.tombstone", {"body": "x", "replacement_room": theirs})
        with pytest.raises(Refused, match="replaced already"):
            await replaced(alice, other, "12")
        assert await leads(home, "mantua") == other


async def test_who_may_take_a_name_away(tmp_path):
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice, bob, eve = [await home.person(name) for name in ("alice", "bob", "eve")]
        room = await alice.create(preset="public_chat")
        for who in (bob, eve):
            await who.join(room)
        path = f"/directory/room/{part(f'#plaza:{OURS}')}"
        for who in (bob, alice):  # who gave it, and who may say which is the room's own
            await bob.call("PUT", path, {"room_id": room})
            with pytest.raises(Refused, match="M_FORBIDDEN"):
                await eve.call("DELETE", path)
            await who.call("DELETE", path)
        with pytest.raises(Refused, match="M_FORBIDDEN"):
            await bob.call("PUT", f"/directory/list/room/{part(room)}", {"visibility": "public"})
        await alice.call("PUT", f"/directory/list/room/{part(room)}", {"visibility": "public"})
        store = home.matrix.store
        assert (await store.get("published", (room,))).body.decode() == alice.user
        assert publish_write(room, alice.user).body.decode() == alice.user


@pytest.mark.parametrize(("before", "after"), [("10", "11"), ("11", "12")])
async def test_what_people_keep_of_a_room_is_kept_of_the_one_after_it(tmp_path, before, after):
    """Of who replaces it at once, of others when they come."""
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice, bob, eve = [await home.person(name) for name in ("alice", "bob", "eve")]
        room = await alice.create(preset="public_chat", room_version=before)
        other = await alice.create(preset="public_chat")
        mute = {"conditions": [{"kind": "event_match", "key": "room_id", "pattern": room}], "actions": []}
        for who in (alice, bob):
            if who is bob:
                await bob.join(room)
            mine = f"/user/{part(who.user)}"
            await who.call("PUT", f"{mine}/rooms/{part(room)}/tags/m.favourite", {"order": 0.25})
            direct = {eve.user: [other, room], alice.user: [other], "odd": "value"}
            await who.call("PUT", f"{mine}/account_data/m.direct", direct)
            await who.call("PUT", f"/pushrules/global/room/{part(room)}", {"actions": ["notify"]})
            await who.call("PUT", f"/pushrules/global/override/{part(room)}", mute)
        await eve.call("PUT", f"/user/{part(eve.user)}/rooms/{part(room)}/tags/u.not.there", {})
        new = await replaced(alice, room, after)

        async def kept(who: LocalUser) -> tuple[Any, Any, Any, Any]:
            mine = f"/user/{part(who.user)}"
            tags = (await who.get(f"{mine}/rooms/{part(new)}/tags"))["tags"]
            direct = await who.get(f"{mine}/account_data/m.direct")
            rules = await who.get("/pushrules/global")
            named = [next((r for r in rules[k] if r["rule_id"] == new), None) for k in ("room", "override")]
            return tags, direct, *named

        direct = {eve.user: [other, room, new], alice.user: [other], "odd": "value"}
        for who in (alice, bob):
            if who is bob:
                assert (await kept(bob))[0] == {}
                await bob.join(new)
            tags, known, rule, override = await kept(who)
            assert tags == {"m.favourite": {"order": 0.25}}
            assert known == direct
            assert rule["actions"] == ["notify"]
            assert override["conditions"] == [{"kind": "event_match", "key": "room_id", "pattern": new}]
        await eve.join(new)  # who was not in the room before
        assert (await eve.get(f"/user/{part(eve.user)}/rooms/{part(new)}/tags"))["tags"] == {}


async def test_nothing_is_kept_of_a_room_that_only_claims_to_replace_another(tmp_path):
    async with matrix_server(tmp_path, public_reading=True) as home:
        alice, eve = await home.person("alice"), await home.person("eve")
        room = await alice.create(preset="public_chat")
        await alice.call("PUT", f"/user/{part(alice.user)}/rooms/{part(room)}/tags/m.favourite", {})
        theirs = await eve.create(
            preset="public_chat", creation_content={"predecessor": {"room_id": room, "event_id": "$x"}}
        )
        await alice.join(theirs)
        assert (await alice.get(f"/user/{part(alice.user)}/rooms/{part(theirs)}/tags"))["tags"] == {}
