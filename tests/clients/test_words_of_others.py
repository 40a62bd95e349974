"""Texts of other servers in their lists and errors, and the refusals of a rate."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from clients.matrix_server import Refused, matrix_server, part
from clients.test_summaries import said
from clients.test_words_elsewhere import FORBID, WORD
from hansa import ALLOW, Action, EventIn, Join, MediaTransfer, MediaUpload, Reason, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.proto.room_versions import VERSIONS
from matrix.server_with_peer import THEIRS, V1
from matrix.two_servers import at

SPACE, CHILD, FOUL = f"!space:{THEIRS}", f"!child:{THEIRS}", f"!foul:{THEIRS}"


def listed(room_id: str, **more: Any) -> dict[str, Any]:
    return {
        "room_id": room_id,
        "num_joined_members": 3,
        "world_readable": True,
        "guest_can_join": False,
        **more,
    }


async def test_of_another_servers_list_the_rooms_that_may_be_read_are_shown(tmp_path):
    chunk = [
        listed("!a:x", name="weather"),
        listed("!b:x", name=f"{WORD} things"),
        listed("!c:x", topic="fair", unknown={"deep": [WORD]}),
        listed("!d:x", canonical_alias=f"#{WORD}:x"),
        listed("!e:x", **{WORD: 1}),
        7,
        listed("!f:x"),
    ]
    page = {
        "chunk": chunk,
        "next_batch": f"{WORD} 2",
        "prev_batch": "1",
        "total_room_count_estimate": 7,
        WORD: 1,
    }
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        home.wire.peer.answer = lambda r: (200, page) if r.target.endswith("/publicRooms") else None
        assert await alice.get(f"/publicRooms?server={THEIRS}") == page, (
            "with no policy it is shown as it came"
        )
        home.app.decisions.replace(FORBID)
        for found in (
            await alice.get(f"/publicRooms?server={THEIRS}"),
            await alice.call("POST", f"/publicRooms?server={THEIRS}", {}),
        ):
            assert [one["room_id"] for one in found["chunk"]] == ["!a:x", "!f:x"]
            assert (found["prev_batch"], found["total_room_count_estimate"]) == ("1", 7)
            assert WORD not in str(found)
        counted = tuple(sorted({"plugin": "matrix", "crossing": "DirectoryQuery"}.items()))
        assert home.app.counters["matrix_crossings_denied", counted] == 2 * 5


async def test_of_another_servers_space_the_rooms_that_may_be_read_are_shown(tmp_path):
    def child(room_id: str, **more: Any) -> dict[str, Any]:
        return {
            "type": "m.space.child", "state_key": room_id, "sender": f"@a:{THEIRS}",
            "origin_server_ts": 1, "content": {"via": [THEIRS], **more},
        }  # fmt: skip

    rooms = {
        SPACE: said(
            SPACE,
            room_type="m.space",
            join_rule="public",
            children_state=[child(CHILD), child(FOUL), child(f"!c:{THEIRS}", order=WORD)],
        ),
        CHILD: said(CHILD, join_rule="public"),
        FOUL: said(FOUL, join_rule="public", topic=WORD),
    }

    def answer(request):
        found = next((rooms[one] for one in rooms if f"/hierarchy/{part(one)}" in request.target), None)
        return (200, {"room": found, "children": [], "inaccessible_children": []}) if found else None

    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        home.wire.peer.answer = answer
        root = await alice.create(creation_content={"type": "m.space"})
        await alice.state(root, "m.space.child", {"via": [THEIRS]}, SPACE)

        async def summaries() -> list[tuple[int, Any]]:
            path = "/_matrix/client/v1/room_summary"
            return [await alice.ask("GET", f"{path}/{part(one)}?via={THEIRS}") for one in (CHILD, FOUL)]

        assert [status for status, _ in await summaries()] == [200, 200]
        home.app.decisions.replace(FORBID)
        (fair, _), (foul, refusal) = await summaries()
        assert (fair, foul) == (200, 404) and WORD not in str(refusal)
        shown = (await alice.get(f"/_matrix/client/v1/rooms/{part(root)}/hierarchy"))["rooms"]
        assert [one["room_id"] for one in shown] == [root, SPACE, CHILD]
        assert [one["state_key"] for one in shown[1]["children_state"]] == [CHILD, FOUL]
        assert WORD not in str(shown)


#: A request that has another server asked.
ASKED = {
    "join": ("POST", f"/join/{part(f'!a:{THEIRS}')}?via={THEIRS}", {}),
    "alias": ("GET", f"/directory/room/{part(f'#a:{THEIRS}')}", None),
    "knock": ("POST", f"/knock/{part(f'!a:{THEIRS}')}?via={THEIRS}", {}),
    "public": ("GET", f"/publicRooms?server={THEIRS}", None),
    "media": ("GET", f"/_matrix/client/v1/media/download/{THEIRS}/abc", None),
    "profile": ("GET", f"/profile/{part(f'@a:{THEIRS}')}", None),
}  # fmt: skip


@pytest.mark.parametrize("status", [403, 404, 400, 500])
@pytest.mark.parametrize("name", ASKED)
async def test_an_error_of_another_server_is_told_without_words_that_may_not_be_read(tmp_path, name, status):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        errors = [
            {"errcode": "M_FORBIDDEN", "error": f"you are {WORD}"},
            {"errcode": f"M_{WORD}", "error": "no"},
            {"errcode": f"so {WORD}", "error": "<b>clas</b>sified"},
        ]
        home.app.decisions.replace(FORBID)
        method, target, body = ASKED[name]
        for error in errors:
            home.wire.peer.answer = lambda _, error=error: (status, error)
            got, answer = await alice.ask(method, target, body)
            assert got >= 400, answer
            assert "lassified" not in str(answer), answer
        home.wire.peer.answer = lambda _: (403, {"errcode": "M_FORBIDDEN", "error": "it is late"})
        if name in {"join", "knock", "alias"}:
            _, answer = await alice.ask(method, target, body)
            assert "it is late" in answer["error"]


class Slow:
    """A policy that finds a rate exceeded for the crossings that ``what`` picks."""

    def __init__(self, *what: type) -> None:
        self.what = what

    async def check(self, crossing):
        if not isinstance(crossing, self.what):
            return ALLOW
        reason = Reason(code="GOV_RATE", policy="slow", text="too much at once")
        return Verdict(Action.DENY, (reason,), retry_after=7.0)


def slow(*what: type) -> list[InstalledPolicy]:
    return [InstalledPolicy(name="slow", policy=Slow(*what))]


async def limited(home, status: int, answer: Any, crossing: str) -> None:
    assert (status, answer["errcode"], answer["retry_after_ms"]) == (429, "M_LIMIT_EXCEEDED", 7000)
    explained = await home.app.decisions.explain(answer["dev.hansa.decision"])
    assert explained["facts"]["crossing"] == crossing


async def test_a_rate_is_answered_with_the_time_and_the_decision(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = await alice.create()
        home.app.decisions.replace(slow(EventIn))
        for n in range(2):
            path = f"/rooms/{part(room)}/send/m.room.message/{n}"
            status, answer = await alice.ask("PUT", path, {"msgtype": "m.text", "body": "x"})
            await limited(home, status, answer, "EventIn")
        home.app.decisions.replace(slow(MediaUpload))
        answer = await alice.whole("POST", "/_matrix/media/v3/upload", data=b"x")
        await limited(home, answer.status, orjson.loads(answer.body), "MediaUpload")
        home.app.decisions.replace(slow(Join))
        status, answer = await alice.ask("POST", f"/join/{part(f'!a:{THEIRS}')}?via={THEIRS}", {})
        await limited(home, status, answer, "Join")


async def test_a_file_over_a_rate_may_be_asked_for_later(tmp_path):
    """By another server, and by people here of another server."""
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        given = await alice.whole("POST", "/_matrix/media/v3/upload", data=b"x")
        media = orjson.loads(given.body)["content_uri"].rpartition("/")[2]
        home.app.decisions.replace(slow(MediaTransfer))
        status, answer = await home.wire.ask("GET", f"{V1}/media/download/{at(media)}")
        await limited(home, status, answer, "MediaTransfer")
        status, answer = await alice.ask("GET", f"/_matrix/client/v1/media/download/{THEIRS}/abc")
        await limited(home, status, answer, "MediaTransfer")


async def test_a_join_elsewhere_is_one_act_however_often_it_is_asked_about(tmp_path):
    async with matrix_server(tmp_path) as home:
        asked: list[Join] = []

        class Notes:
            async def check(self, crossing):
                if isinstance(crossing, Join):
                    asked.append(crossing)
                return ALLOW

        alice = await home.person("alice")
        home.app.decisions.replace([InstalledPolicy(name="notes", policy=Notes())])
        with pytest.raises(Refused):
            await alice.call("POST", f"/join/{part(f'!a:{THEIRS}')}?via={THEIRS}", {})
        assert [one.again for one in asked] == [False]


async def test_who_knocks_is_shown_a_room_without_words_that_may_not_be_read(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        room = "!door:" + THEIRS
        pending = home.matrix.pending_invites
        template = {
            "type": "m.room.member", "room_id": room, "sender": alice.user, "state_key": alice.user,
            "content": {"membership": "knock"}, "origin_server_ts": 1, "depth": 1, "hashes": {"sha256": "x"},
            "auth_events": [], "prev_events": ["$" + "a" * 43], "signatures": {},
        }  # fmt: skip
        shown = [
            {"type": "m.room.name", "state_key": "", "sender": f"@m:{THEIRS}", "content": {"name": WORD}},
            {
                "type": "m.room.topic",
                "state_key": "",
                "sender": f"@m:{THEIRS}",
                "content": {"topic": "weather"},
            },
        ]
        pdu = pdu_from_raw(template, VERSIONS["11"])
        await pending.keep(pdu, THEIRS, shown, "11", generation=0)
        assert WORD in str((await alice.sync())["rooms"]["knock"])
        home.app.decisions.replace(FORBID)
        alice.since = ""
        found = str((await alice.sync())["rooms"]["knock"])
        assert WORD not in found and "weather" in found


async def test_an_invite_that_is_taken_back_is_told_without_words_that_may_not_be_read(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        wire = home.wire
        draft = wire.forger.draft(wire.room, "m.room.member", {"membership": "invite"}, alice.user)
        room = "!elsewhere:" + THEIRS
        invite = wire.forger.finish(wire.room, {**draft, "room_id": room})
        matrix = home.matrix
        version = wire.room.version
        pdu = pdu_from_raw(invite, version)
        await matrix.pending_invites.keep(pdu, THEIRS, [], version.id, generation=0)
        content = {"membership": "leave", "reason": f"it is {WORD}"}
        leave = wire.forger.finish(
            wire.room, {**draft, "room_id": room, "content": content, "auth_events": [pdu.event_id]}
        )
        assert await matrix.pending_invites.elsewhere(leave)
        wanted = part('{"room":{"include_leave":true}}')

        async def left() -> str:
            alice.since = ""
            return str((await alice.sync(f"&filter={wanted}"))["rooms"]["leave"][room])

        assert WORD in await left()
        home.app.decisions.replace(FORBID)
        assert WORD not in await left() and "'membership': 'leave'" in await left()
