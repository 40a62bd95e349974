"""Events that were accepted under older policies, or under none, and are read or sent under others."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from clients.matrix_server import MatrixServer, matrix_server, part
from clients.test_crossings import Forbid
from clients.test_withheld import THEM, WORD, Scene, leaks, scene
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.testing import until
from hansa_matrix.proto.hashing import event_id
from matrix.server_with_peer import OURS, THEIRS, V1
from matrix.two_servers import at


class Words(Forbid):
    """Counts the events that it was asked about."""

    def __init__(self) -> None:
        super().__init__(WORD)
        self.asked = 0

    async def check(self, crossing: Any) -> Any:
        self.asked += type(crossing).__name__ == "EventIn"
        return await super().check(crossing)


def under(home: MatrixServer, *policies: Any) -> None:
    home.app.decisions.replace([InstalledPolicy(name=f"p{n}", policy=p) for n, p in enumerate(policies)])


@pytest.mark.parametrize("version", ["7", "12"])
async def test_what_came_before_a_policy_is_in_no_answer_after_it(tmp_path, version):
    async with matrix_server(tmp_path, version) as home:
        made: Scene = await scene(home, censored=False)
        under(home, Words())
        assert await leaks(made) - {"view"} == set()


async def test_an_event_is_judged_once_by_each_generation(tmp_path):
    async with matrix_server(tmp_path) as home:
        made = await scene(home, censored=False)
        policy = Words()
        under(home, policy)
        where = f"/rooms/{part(made.room)}"
        before = await made.bob.get(f"{where}/messages?dir=b&limit=100")
        asked = policy.asked
        assert asked > 10 and WORD not in str(before["chunk"])
        await made.bob.get(f"{where}/messages?dir=b&limit=100")
        assert policy.asked == asked
        await made.alice.say(made.room, "fair")
        now = policy.asked
        assert "fair" in await made.bob.texts(made.room) and policy.asked == now
        under(home, policy)
        await made.bob.get(f"{where}/messages?dir=b&limit=100")
        assert policy.asked > now
        under(home)
        now = policy.asked
        assert WORD in str((await made.bob.get(f"{where}/messages?dir=b&limit=100"))["chunk"])
        assert policy.asked == now


async def test_what_waits_for_a_server_goes_without_what_is_forbidden_by_then(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.join(f"#one:{OURS}")
        sent: list[dict[str, Any]] = []
        down = True

        def answer(request: Any) -> Any:
            if "/send/" not in request.target:
                return None
            if down:
                return 503, {"errcode": "M_UNKNOWN", "error": "down"}
            sent.extend(orjson.loads(request.body)["pdus"])
            return 200, {}

        home.wire.peer.answer = answer
        event = await alice.say(room, WORD)
        under(home, Words())
        down = False
        status, _ = await home.wire.ask("GET", f"{V1}/event/{at(event)}")  # it is there again
        assert status == 200
        await until(lambda: event in [event_id(raw, home.wire.room.version) for raw in sent])
        assert WORD not in str(sent) and THEM.endswith(THEIRS)


async def test_what_people_say_of_themselves_is_judged_by_the_policies_of_now(tmp_path):
    async with matrix_server(tmp_path, presence_enabled=True) as home:
        alice, bob = await home.person("alice"), await home.person("bob")
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await alice.call("PUT", f"/profile/{part(alice.user)}/displayname", {"displayname": WORD})
        status = {"presence": "online", "status_msg": f"at {WORD}"}
        await alice.call("PUT", f"/presence/{part(alice.user)}/status", status)

        async def seen() -> str:
            found = [
                await bob.get(f"/profile/{part(alice.user)}"),
                await bob.get(f"/presence/{part(alice.user)}/status"),
                await bob.call("POST", "/user_directory/search", {"search_term": "alice"}),
                await home.wire.ask("GET", f"{V1}/query/profile?user_id={at(alice.user)}"),
            ]
            bob.since = ""
            return str([*found, await bob.sync()])

        assert (await seen()).count(WORD) >= 5
        policy = Words()
        under(home, policy)
        assert WORD not in await seen()
        assert "ProfileChange" in policy.denied
        under(home)
        assert WORD in await seen()


async def test_a_message_that_waits_for_a_device_is_judged_by_the_policies_of_now(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob = await home.person("alice"), await home.person("bob")

        async def tell(txn: str, **content: Any) -> None:
            messages = {bob.user: {bob.device: content}}
            await alice.call("PUT", f"/sendToDevice/test.x/{txn}", {"messages": messages})

        await tell("1", note=WORD)
        await tell("2", note="fair")
        policy = Words()
        under(home, policy)
        assert [e["content"] for e in (await bob.sync())["to_device"]["events"]] == [{"note": "fair"}]
        assert policy.denied == {"ToDevice"}
        await tell("3", note="fair too")  # judged already when it is read
        policy.denied.clear()
        (event,) = (await bob.sync())["to_device"]["events"]
        assert event == {"sender": alice.user, "type": "test.x", "content": {"note": "fair too"}}


async def test_what_is_not_shown_any_more_is_not_counted_as_unread(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice, bob, carol = [await home.person(name) for name in ("alice", "bob", "carol")]
        room = await alice.create(preset="public_chat")
        await bob.join(room)
        await carol.join(room)
        await alice.say(room, WORD)
        await alice.say(room, "fair")

        async def unread(person: Any) -> int:
            found = (await person.sync())["rooms"]["join"][room]["unread_notifications"]
            return int(found["notification_count"])

        assert await unread(bob) == 2
        under(home, Words())
        assert await unread(carol) == 1
