"""The user directory: within the operator's settings, in few steps, and without withheld texts."""

from __future__ import annotations

from types import SimpleNamespace

import hansa_governance
import pytest
from clients.matrix_server import LocalUser, Refused, matrix_server, part
from hansa.setup import PolicySetup
from hansa.testing import until
from hansa_matrix.client_api import user_directory
from matrix.server_with_peer import OURS, THEIRS

WHERE = "/user_directory/search"


async def found(person: LocalUser, term: str, **more: int) -> list[str]:
    answer = await person.call("POST", WHERE, {"search_term": term, **more})
    return [one["user_id"] for one in answer["results"]]


async def called(person: LocalUser, name: str) -> None:
    await person.call("PUT", f"/profile/{part(person.user)}/displayname", {"displayname": name})


@pytest.mark.parametrize(
    ("allowed", "seen"),
    [("off", set()), ("rooms", {"bob", "carl"}), ("accounts", {"bob", "carl", "dora", "eve"})],
)
async def test_who_is_found_is_the_operators_word(tmp_path, allowed, seen):
    async with matrix_server(tmp_path, user_directory=allowed) as home:
        people = {name: await home.person(name) for name in ("alice", "bob", "carl", "dora", "eve")}
        for name, person in people.items():
            await called(person, f"Montague {name}")
        alice = people["alice"]
        shared = await alice.create(preset="public_chat")
        await people["bob"].join(shared)
        published = await people["carl"].create(visibility="public", name="plaza")
        hidden = await people["dora"].create(preset="public_chat")  # open to who knows it, and not published
        listed_and_closed = await people["eve"].create(visibility="public", preset="private_chat", name="den")
        assert published and hidden and listed_and_closed
        for term in ("montague", "MONTAGUE", f":{OURS}"):
            names = {user[1:].partition(":")[0] for user in await found(alice, term)}
            assert names & people.keys() == seen, term
        assert await found(alice, "@bob") == ([people["bob"].user] if seen else [])


async def test_who_left_who_is_closed_and_who_is_oneself_is_not_found(tmp_path):
    async with matrix_server(tmp_path, user_directory="accounts") as home:
        alice, bob, carl = [await home.person(name) for name in ("alice", "bob", "carl")]
        room = await alice.create(preset="public_chat")
        for person in (bob, carl):
            await person.join(room)
        await home.matrix.network.admin_commands()["user deactivate"]({"name": "carl"})

        async def gone() -> bool:
            return await found(alice, "carl") == []

        assert await until(gone)
        assert await found(alice, "alice") == []
        assert await found(alice, "bob") == [bob.user]
    async with matrix_server(tmp_path, user_directory="rooms") as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        assert await found(alice, "bob") == [bob.user]
        await bob.room(room, "leave")
        assert await found(alice, "bob") == []


async def test_people_of_other_servers_are_found_where_one_meets_them(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        await alice.join(home.wire.room.room_id)
        assert await found(alice, "@m:") == [f"@m:{THEIRS}"]
        assert await found(bob, "@m:") == []


@pytest.mark.parametrize("allowed", ["rooms", "accounts"])
async def test_a_name_that_is_withheld_is_neither_shown_nor_found_by(tmp_path, allowed):
    async with matrix_server(tmp_path, user_directory=allowed) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        await called(bob, "classified Bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        assert await found(alice, "classified") == [bob.user]
        options = hansa_governance.Config(words=("classified",))
        await home.app.reload_policies([PolicySetup(name="gov", module=hansa_governance, options=options)])
        assert await found(alice, "classified") == []
        answer = await alice.call("POST", WHERE, {"search_term": "bob"})
        assert answer["results"] == [{"user_id": bob.user}]


async def test_answers_are_bounded_the_nearest_first(tmp_path, monkeypatch):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat")
        for name in ("xbob", "bob2", "bob1"):
            await (await home.person(name)).join(room)
        assert await found(alice, "bob") == [f"@bob1:{OURS}", f"@bob2:{OURS}", f"@xbob:{OURS}"]
        answer = await alice.call("POST", WHERE, {"search_term": "bob", "limit": 2})
        assert len(answer["results"]) == 2 and answer["limited"] is True
        monkeypatch.setattr(user_directory, "MAX_CANDIDATES", 2)
        assert len(await found(alice, "bob")) < 3
        monkeypatch.setattr(user_directory, "MAX_PROFILES_READ", 1)
        assert len(await found(alice, "b")) <= 1
        for bad in ({"search_term": 5}, {"search_term": "x", "limit": True}, {"limit": 1}):
            with pytest.raises(Refused) as refused:
                await alice.call("POST", WHERE, bad)
            assert refused.value.status == 400
        assert await found(alice, "x" * 10_000) == []
        assert len(await found(alice, "b", limit=-5)) <= 1


async def test_member_events_are_read_of_few_people_and_some_at_a_time(tmp_path, monkeypatch):
    """A search in a room with many members, few of which match, reads the events of those few."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create(preset="public_chat")
        for number in range(5):
            await (await home.person(f"p{number}")).join(room)
        read: list[int] = []
        matrix = home.matrix.get_room(room)
        before = matrix.shown_of

        async def counting(state, keys=None):
            read.append(len(list(keys)) if keys is not None else len(state))
            return await before(state, keys)

        monkeypatch.setattr(matrix, "shown_of", counting)
        policy = SimpleNamespace(name="gov", module=hansa_governance)
        options = hansa_governance.Config(words=("classified",))
        await home.app.reload_policies([PolicySetup(name=policy.name, module=policy.module, options=options)])
        read.clear()
        assert await found(alice, "p3") == [f"@p3:{OURS}"]
        assert sum(read) <= 2, read


async def test_whois_is_for_oneself_and_for_administrators(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice", "PHONE"), await home.person("bob", "LAPTOP")
        bob.address = "192.0.2.7"
        await bob.sync()
        own = await bob.get(f"/admin/whois/{part(bob.user)}")
        assert own["user_id"] == bob.user and own["devices"].keys() == {"LAPTOP"}
        (session,) = own["devices"]["LAPTOP"]["sessions"]
        assert [c["ip"] for c in session["connections"]] == ["192.0.2.7"]
        assert session["connections"][0]["last_seen"] > 0
        for target in (bob.user, "@nobody:" + OURS):
            assert (await alice.ask("GET", f"/admin/whois/{part(target)}"))[0] == 403
        operations = home.matrix.network.admin_commands()
        await operations["user add"]({"name": "root", "password": "pw", "admin": True})
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "root"},
            "password": "pw",
        }
        token = (await home.anybody.call("POST", "/login", login))["access_token"]
        root = LocalUser(home.app, f"@root:{OURS}", token, "x")
        assert (await root.get(f"/admin/whois/{part(bob.user)}"))["devices"] == own["devices"]
        for absent in (f"@nobody:{OURS}", f"@m:{THEIRS}", "bob"):
            assert (await root.ask("GET", f"/admin/whois/{part(absent)}"))[0] == 404
