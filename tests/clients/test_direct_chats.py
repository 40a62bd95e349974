"""Direct chats of Matrix users with people of another network."""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from types import SimpleNamespace

import hansa_matrix
import pytest
from clients.matrix_server import MatrixServer, Refused, part
from hansa import CannotOpenRoom, NativeId, OpenedRoom, PersonMatch, Refusal, RefusalCode, hookimpl
from hansa.testing import Actor, run_hansa, until
from hansa.testing.actor import Config as ActorConfig
from hansa.testing.actor import module
from hansa_matrix.config import Config
from hansa_matrix.crypto import SigningKey
from hansa_matrix.local.ghosts import escape_localpart
from matrix.server_with_peer import OURS

ANN = "ann@x.example"


class Chat(Actor):
    """A network with direct chats, whose users' names begin with ``ann``."""

    async def is_nonexistent_user(self, user: str) -> bool:
        return not user.startswith("ann")

    async def require_direct_chat(self, user: str, other: NativeId) -> None:
        del other
        if user.startswith("annoyed"):
            raise CannotOpenRoom(Refusal(code=RefusalCode.FORBIDDEN, text=f"{user} takes no messages"))

    async def find_people(self, text: str, *, limit: int) -> list[PersonMatch]:
        if text == "broken":
            raise RuntimeError("a fault of the network")
        people = [PersonMatch(user=NativeId(self.ctx.id, ANN), name="Ann")] if text in ANN else []
        return [*people, PersonMatch(user=NativeId("matrix", "@forged:x"))][:limit]

    async def open_direct_chat(self, user: str, other: NativeId) -> OpenedRoom:
        await self.require_direct_chat(user, other)
        return OpenedRoom(native=NativeId(self.ctx.id, f"{user} {other.id}"))


@asynccontextmanager
async def bridged(folder):
    """A Hansa with local Matrix users, and a network with direct chats."""
    key = folder / "matrix.key"
    key.touch(0o600)
    key.write_text(SigningKey.from_seed("ed25519:a", secrets.token_bytes(32)).line())
    cheap = {"argon2_memory_kib": 8, "argon2_time_cost": 1, "client_rate": 0, "registration": "open"}
    config = Config(server_name=OURS, signing_key=key, public_base_url="https://ours.example", **cheap)
    made: dict[str, Chat] = {}
    plugin = module({})

    @hookimpl
    def open_network(ctx):
        made[ctx.id] = Chat(ctx)
        return made[ctx.id]

    plugin.open_network = open_network
    async with run_hansa({"matrix": (hansa_matrix, config), "chat": (plugin, ActorConfig())}) as app:
        yield MatrixServer(SimpleNamespace(app=app)), made["chat"]


def ghost(person: str) -> str:
    return f"@_chat_{escape_localpart(person)}:{OURS}"


async def state_of(user, room: str) -> dict[tuple[str, str], dict]:
    return {(e["type"], e["state_key"]): e for e in await user.get(f"/rooms/{part(room)}/state")}


async def test_a_new_direct_chat_reaches_the_other_network_and_comes_back(tmp_path):
    async with bridged(tmp_path) as (home, chat):
        alice = await home.person("alice")
        room = await alice.create(is_direct=True, preset="trusted_private_chat", invite=[ghost(ANN)])
        await alice.say(room, "hello")
        native = f"{ANN} {alice.user}"
        assert await chat.until(native, 1) == ["hello"]
        await chat.say(native, ANN, "hello alice")
        await until(lambda: _texts_have(alice, room, "hello alice"))
        state = await state_of(alice, room)
        member = state["m.room.member", ghost(ANN)]["content"]
        assert (member["membership"], member["displayname"]) == ("join", ANN)
        notices = [t for t in await alice.texts(room) if "not encrypted" in t]
        assert len(notices) == 1
        assert chat.texts(native) == ["hello"]
        view = home.app.contexts["matrix"].get_view(room)
        assert view.facts.direct


async def _texts_have(user, room: str, text: str) -> bool:
    return text in await user.texts(room)


@pytest.mark.parametrize(
    ("more", "status", "text"),
    [
        ({"invite": [ghost("annoyed@x")]}, 403, "takes no messages"),
        ({"invite": [ghost("nobody@x")]}, 404, "there is no"),
        ({"invite": [ghost(ANN), ghost("anna@x")]}, 403, "only a chat of two"),
        (
            {
                "invite": [ghost(ANN)],
                "initial_state": [{"type": "m.room.encryption", "state_key": "", "content": {}}],
            },
            403,
            "cannot read encrypted",
        ),
    ],
)
async def test_a_room_that_would_reach_nobody_is_not_made(tmp_path, more, status, text):
    async with bridged(tmp_path) as (home, _):
        alice = await home.person("alice")
        with pytest.raises(Refused) as refused:
            await alice.create(is_direct=True, **more)
        assert refused.value.status == status
        assert text in refused.value.body["error"]
        assert (await alice.get("/joined_rooms"))["joined_rooms"] == []


async def test_an_invite_that_would_reach_nobody_is_refused_in_words(tmp_path):
    async with bridged(tmp_path) as (home, _):
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        with pytest.raises(Refused, match="takes no messages"):
            await alice.room(room, "invite", {"user_id": ghost("annoyed@x")})
        await bob.join(room)
        with pytest.raises(Refused, match="only a chat of two"):
            await alice.room(room, "invite", {"user_id": ghost(ANN)})
        assert ("m.room.member", ghost(ANN)) not in await state_of(alice, room)


async def test_who_is_written_to_is_invited_and_reads_what_waited(tmp_path):
    async with bridged(tmp_path) as (home, chat):
        alice = await home.person("alice")
        native = f"{ANN} {alice.user}"
        await chat.ctx.open_direct_chat(native, ANN, NativeId("matrix", alice.user))
        assert (await chat.say(native, ANN, "are you there?")).refusal is None
        invites = (await alice.sync())["rooms"]["invite"]
        ((room, invite),) = invites.items()
        member = next(e for e in invite["invite_state"]["events"] if e["state_key"] == alice.user)
        assert member["content"]["is_direct"] is True
        assert member["sender"] == ghost(ANN)
        await alice.join(room)
        assert "are you there?" in await alice.texts(room)
        state = await state_of(alice, room)
        assert ("m.room.encryption", "") not in state
        assert state["m.room.join_rules", ""]["content"]["join_rule"] == "invite"
        await alice.say(room, "now I am")
        assert await chat.until(native, 1) == ["now I am"]


async def test_the_room_that_a_stop_left_without_a_chat_is_used(tmp_path):
    async with bridged(tmp_path) as (home, chat):
        alice = await home.person("alice")
        network, person = home.matrix.network, NativeId("chat", ANN)
        first = await network.open_direct_chat(alice.user, person)
        assert (await network.open_direct_chat(alice.user, person)).native == first.native
        native = f"{ANN} {alice.user}"
        link = await chat.ctx.open_direct_chat(native, ANN, NativeId("matrix", alice.user))
        assert home.app.contexts["matrix"].get_link(first.native.id).room == link.room


@pytest.mark.parametrize("absent", [f"@nobody:{OURS}", ghost(ANN), f"@hansa:{OURS}", "no user id"])
async def test_nobody_is_written_to(tmp_path, absent):
    async with bridged(tmp_path) as (home, chat):
        before = len(home.app.contexts["matrix"].list_links())
        with pytest.raises(CannotOpenRoom, match="there is no"):
            await chat.ctx.open_direct_chat("n", ANN, NativeId("matrix", absent))
        assert len(home.app.contexts["matrix"].list_links()) == before


async def test_who_is_invited_again_after_leaving_gets_the_next_word(tmp_path):
    async with bridged(tmp_path) as (home, chat):
        alice = await home.person("alice")
        native, other = f"{ANN} {alice.user}", NativeId("matrix", alice.user)
        await chat.ctx.open_direct_chat(native, ANN, other)
        (room,) = (await alice.sync())["rooms"]["invite"]
        await alice.join(room)
        await alice.room(room, "leave")
        await chat.ctx.open_direct_chat(native, ANN, other)
        await chat.say(native, ANN, "come back")
        assert list((await alice.sync())["rooms"]["invite"]) == [room]
        await alice.join(room)
        assert "come back" in await alice.texts(room)


async def test_clients_are_told_not_to_encrypt_new_chats(tmp_path):
    async with bridged(tmp_path) as (home, _):
        alice = await home.person("alice")
        found = await alice.get("/.well-known/matrix/client")
        assert found["io.element.e2ee"] == {"default": False}


async def test_people_of_other_networks_are_found_in_the_user_directory(tmp_path):
    async with bridged(tmp_path) as (home, _):
        alice = await home.person("alice")

        async def search(term: str) -> list[dict[str, str]]:
            answer = await alice.call("POST", "/user_directory/search", {"search_term": term})
            return answer["results"]

        assert await search("ann@x") == [{"user_id": ghost(ANN), "display_name": "Ann"}]
        assert await search("zoe") == []
        assert await search("broken") == []
