"""Requests of other servers, and the effects of their transactions: against the network in memory."""

from __future__ import annotations

import asyncio
from typing import Any

from hansa.testing import until
from hansa_matrix.crypto import verify_signature
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.redact import redact_event
from hansa_matrix.proto.servers.key_document import DAY, check_key_document
from matrix.server_with_peer import OURS, THEIRS, V1, V2, server_with_peer
from matrix.two_servers import (
    OTHER,
    USER,
    at,
    each_version,
    ids_of,
    levels_with,
    named,
    ours,
    refused,
    said,
    status_of,
)

# Joining and leaving.


@each_version
async def test_make_join_offers_the_room_only_to_who_speaks_its_version(tmp_path, version):
    """Mistake 34; without ``ver`` a server speaks version 1."""
    async with server_with_peer(tmp_path, version) as house:
        target = f"{V1}/make_join/{at(house.room.room_id, OTHER)}"
        other = "?ver=1&ver=9&ver=13" if version != "9" else "?ver=8"
        for query in ("", "?ver=1", other, "?ver=") if version != "1" else ("?ver=2", "?ver="):
            answer = await refused(house, 400, "M_INCOMPATIBLE_ROOM_VERSION", "GET", target + query)
            assert answer["room_version"] == version
        status, answer = await house.ask("GET", f"{target}?ver=1&ver={version}")
        assert (status, answer["room_version"]) == (200, version)
        event = answer["event"]
        assert (event["type"], event["sender"], event["state_key"]) == ("m.room.member", OTHER, OTHER)
        assert event["content"] == {"membership": "join"}
        assert event["room_id"] == house.room.room_id
        cited = {house.room.state[key] for key in (("m.room.join_rules", ""), ("m.room.power_levels", ""))}
        create = house.room.state["m.room.create", ""]
        assert set(named(event["auth_events"])) == cited | ({create} if version != "12" else set())


async def test_make_join_refuses(tmp_path):
    async with server_with_peer(tmp_path) as house:
        room = house.room.room_id
        make, ver = f"{V1}/make_join", "?ver=12"
        await refused(house, 404, "M_NOT_FOUND", "GET", f"{make}/{at('!nothing', OTHER)}{ver}")
        await refused(house, 403, "M_FORBIDDEN", "GET", f"{make}/{at(room, '@n:elsewhere')}{ver}")
        await refused(house, 403, "M_FORBIDDEN", "GET", f"{make}/{at(room, 'n')}{ver}")
        await ours(house, "m.room.member", OTHER, {"membership": "ban"})
        await refused(house, 403, "M_FORBIDDEN", "GET", f"{make}/{at(room, OTHER)}{ver}")
        await ours(house, "m.room.join_rules", "", {"join_rule": "invite"})
        await refused(house, 403, "M_FORBIDDEN", "GET", f"{make}/{at(room, f'@o:{THEIRS}')}{ver}")


@each_version
async def test_send_join_takes_only_the_join_that_the_path_names(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        room = house.room.room_id
        _, template = await house.ask("GET", f"{V1}/make_join/{at(room, OTHER)}?ver={version}")
        join = house.forger.joining(template, "n")
        send = f"{V2}/send_join"
        right = at(room, join.event_id)
        await refused(house, 400, "M_INVALID_PARAM", "PUT", f"{send}/{at(room, '$other')}", join.raw)
        await refused(house, 404, "M_NOT_FOUND", "PUT", f"{send}/{at('!no', join.event_id)}", join.raw)
        other = at(house.other.room_id, join.event_id)
        await refused(house, 400, "M_INVALID_PARAM", "PUT", f"{send}/{other}", join.raw)
        unsigned = {**join.raw, "signatures": {}}
        await refused(house, 403, "M_FORBIDDEN", "PUT", f"{send}/{right}", unsigned)
        leave = house.forger.draft(house.room, "m.room.member", {"membership": "leave"}, USER)
        raw = house.forger.finish(house.room, leave)
        path = at(room, event_id(raw, house.room.version))
        await refused(house, 400, "M_INVALID_PARAM", "PUT", f"{send}/{path}", raw)
        status, answer = await house.ask("PUT", f"{send}/{right}", join.raw)
        assert status == 200
        assert answer["event"] == join.raw
        assert answer["members_omitted"] is False
        assert set(answer["servers_in_room"]) == {OURS, THEIRS}
        state = {(e["type"], e["state_key"]): e for e in answer["state"]}
        assert ("m.room.member", OTHER) not in state  # the state before the join
        chain = set(ids_of(house, answer["auth_chain"]))
        assert join.event_id not in chain
        assert chain >= {a for e in answer["state"] for a in named(e["auth_events"])}
        # Dendrite looks for it there; Synapse takes no second one.
        assert [e["type"] for e in answer["auth_chain"]].count("m.room.create") == 1
        assert len(chain) == len(answer["auth_chain"])
        again, _ = await house.ask("PUT", f"{send}/{right}", join.raw)
        assert again == 200


@each_version
async def test_leaving_by_the_handshake(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        room = house.room.room_id
        assert (await house.ask("GET", f"{V1}/state_ids/{at(room)}?event_id={next(iter(house.room.tips))}"))[
            0
        ] == 200
        status, template = await house.ask("GET", f"{V1}/make_leave/{at(room, USER)}")
        assert (status, template["room_version"]) == (200, version)
        assert template["event"]["content"] == {"membership": "leave"}
        await refused(house, 403, "M_FORBIDDEN", "GET", f"{V1}/make_leave/{at(room, OTHER)}")  # never there
        draft = {k: v for k, v in template["event"].items() if k != "origin"}
        if house.room.version.server_made_event_ids:
            draft["event_id"] = f"$left:{THEIRS}"
        raw = house.forger.finish(house.room, draft)
        leave = event_id(raw, house.room.version)
        join = house.forger.finish(house.room, {**draft, "content": {"membership": "join"}})
        path = f"{V2}/send_leave/{at(room, event_id(join, house.room.version))}"
        await refused(house, 400, "M_INVALID_PARAM", "PUT", path, join)
        assert await house.ask("PUT", f"{V2}/send_leave/{at(room, leave)}", raw) == (200, {})
        assert await status_of(house, raw) == "accepted"
        # Nobody of that server is in the room any more.
        for target in (
            f"state_ids/{at(room)}?event_id={at(leave)}",
            f"event/{at(leave)}",
            f"backfill/{at(room)}?v=x",
        ):
            await refused(house, 403, "M_FORBIDDEN", "GET", f"{V1}/{target}")
        await refused(
            house, 403, "M_FORBIDDEN", "POST", f"{V1}/get_missing_events/{at(room)}",
            {"latest_events": [], "earliest_events": []},
        )  # fmt: skip


# History and state.


async def test_backfill_is_newest_first_and_bounded(tmp_path):
    async with server_with_peer(tmp_path) as house:
        said_ = await said(house, 5)
        elsewhere = next(iter(house.other.tips))
        target = f"{V1}/backfill/{at(house.room.room_id)}"
        _, answer = await house.ask("GET", f"{target}?v={at(said_[3])}&limit=3")
        assert ids_of(house, answer["pdus"]) == [said_[3], said_[2], said_[1]]
        _, answer = await house.ask("GET", f"{target}?v={at(said_[4])}&limit=1000000")
        found = ids_of(house, answer["pdus"])
        assert found[:5] == said_[::-1]
        assert found[-1] == house.room.state["m.room.create", ""]
        assert len(found) == len(set(found))
        fork = [house.forger.message(house.room, text) for text in ("left", "right")]
        for raw in fork:
            assert await house.fate(raw) == "accepted"
        tips = "&".join(f"v={at(name)}" for name in ids_of(house, fork))
        for limit in (1, 2, 3):
            _, answer = await house.ask("GET", f"{target}?{tips}&limit={limit}")
            assert len(answer["pdus"]) == limit
        assert set(ids_of(house, answer["pdus"])) == {*ids_of(house, fork), said_[4]}
        for nothing in (elsewhere, "$unknown", ""):
            _, answer = await house.ask("GET", f"{target}?v={at(nothing)}&limit=5")
            assert answer["pdus"] == []
        await refused(house, 404, "M_NOT_FOUND", "GET", f"{V1}/backfill/{at('!no')}?v=x&limit=1")


async def test_missing_events_are_oldest_first_and_at_most_20(tmp_path):
    """Mistake 27."""
    async with server_with_peer(tmp_path) as house:
        names = await said(house, 25)
        target = f"{V1}/get_missing_events/{at(house.room.room_id)}"

        async def missing(earliest: list[str], latest: list[str], **more: Any) -> list[str]:
            body = {"earliest_events": earliest, "latest_events": latest, **more}
            status, answer = await house.ask("POST", target, body)
            assert status == 200, answer
            return ids_of(house, answer["events"])

        assert await missing([names[2]], [names[6]]) == names[3:6]
        assert await missing(names[:1], [names[24]]) == names[14:24]  # 10 where nobody says
        assert await missing(names[:1], [names[24]], limit=4) == names[20:24]
        assert await missing(names[:1], [names[24]], limit=10_000) == names[4:24]
        for odd in (0, -1, "5", 1.5, None, True):
            assert len(await missing(names[:1], [names[24]], limit=odd)) == 10
        assert await missing([], ["$unknown"]) == []
        assert await missing([], [next(iter(house.other.tips))]) == []  # of another room
        for odd in (
            {},
            {"earliest_events": [], "latest_events": None},
            {"earliest_events": [1], "latest_events": []},
        ):
            await refused(house, 400, "M_BAD_JSON", "POST", target, odd)
        for name, other in (("earliest_events", "latest_events"), ("latest_events", "earliest_events")):
            assert (await house.ask("POST", target, {name: ["$x"] * 100, other: []}))[0] == 200
            await refused(house, 400, "M_BAD_JSON", "POST", target, {name: ["$x"] * 101, other: []})


@each_version
async def test_the_state_before_an_event_and_its_auth_chain(tmp_path, version):
    """Mistake 18: an auth chain is without the event."""
    async with server_with_peer(tmp_path, version) as house:
        await ours(house, "m.room.topic", "", {"topic": "t"})
        room = house.matrix.get_room(house.room.room_id)
        topic = (await room.state())["m.room.topic", ""]
        where = f"{at(house.room.room_id)}?event_id={at(topic)}"
        _, named = await house.ask("GET", f"{V1}/state_ids/{where}")
        _, whole = await house.ask("GET", f"{V1}/state/{where}")
        assert sorted(ids_of(house, whole["pdus"])) == sorted(named["pdu_ids"])
        assert sorted(ids_of(house, whole["auth_chain"])) == sorted(named["auth_chain_ids"])
        assert topic not in named["pdu_ids"]
        assert set(house.room.state.values()) == set(named["pdu_ids"])
        _, chain = await house.ask("GET", f"{V1}/event_auth/{at(house.room.room_id, topic)}")
        found = set(ids_of(house, chain["auth_chain"]))
        assert topic not in found
        assert found <= set(named["pdu_ids"]) | set(named["auth_chain_ids"])
        for given in (chain["auth_chain"], whole["auth_chain"]):
            assert [e["type"] for e in given].count("m.room.create") == 1
        create = house.room.state["m.room.create", ""]
        assert create in found
        assert named["auth_chain_ids"].count(create) == 1
        _, chain = await house.ask("GET", f"{V1}/event_auth/{at(house.room.room_id, create)}")
        assert chain == {"auth_chain": []}
        elsewhere = next(iter(house.other.tips))
        for kind in ("state", "state_ids"):
            for event in (elsewhere, "$unknown", ""):
                target = f"{V1}/{kind}/{at(house.room.room_id)}?event_id={at(event)}"
                await refused(house, 404, "M_NOT_FOUND", "GET", target)
        for event in (elsewhere, "$unknown"):
            await refused(
                house, 404, "M_NOT_FOUND", "GET", f"{V1}/event_auth/{at(house.room.room_id, event)}"
            )
        await refused(house, 404, "M_NOT_FOUND", "GET", f"{V1}/event/{at('$unknown')}")


# Queries.


async def test_queries(tmp_path):
    async with server_with_peer(tmp_path) as house:
        bot = house.matrix.bridge_user
        _, found = await house.ask("GET", f"{V1}/query/directory?room_alias={at(f'#one:{OURS}')}")
        assert found == {"room_id": house.room.room_id, "servers": [OURS, THEIRS]}
        for alias in (f"#none:{OURS}", f"#one:{THEIRS}", "one", ""):
            await refused(house, 404, "M_NOT_FOUND", "GET", f"{V1}/query/directory?room_alias={at(alias)}")
        status, profile = await house.ask("GET", f"{V1}/query/profile?user_id={at(bot)}")
        assert status == 200
        _, name = await house.ask("GET", f"{V1}/query/profile?user_id={at(bot)}&field=displayname")
        assert name == profile
        _, avatar = await house.ask("GET", f"{V1}/query/profile?user_id={at(bot)}&field=avatar_url")
        assert avatar == {}
        for user in (f"@nobody:{OURS}", USER, "nobody", ""):
            await refused(house, 404, "M_NOT_FOUND", "GET", f"{V1}/query/profile?user_id={at(user)}")
        _, devices = await house.ask("GET", f"{V1}/user/devices/{at(bot)}")
        assert devices == {"user_id": bot, "stream_id": 0, "devices": []}
        await refused(house, 404, "M_NOT_FOUND", "GET", f"{V1}/user/devices/{at(USER)}")
        _, keys = await house.ask("POST", f"{V1}/user/keys/query", {"device_keys": {bot: []}})
        assert keys == {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}}
        await refused(house, 400, "M_BAD_JSON", "POST", f"{V1}/user/keys/query", {})
        claimed = {"one_time_keys": {bot: {"D": "signed_curve25519"}}}
        _, keys = await house.ask("POST", f"{V1}/user/keys/claim", claimed)
        assert keys == {"one_time_keys": {}}
        await refused(house, 400, "M_BAD_JSON", "POST", f"{V1}/user/keys/claim", {})
        await refused(house, 404, "M_UNRECOGNIZED", "GET", f"{V1}/nothing")
        await refused(house, 405, "M_UNRECOGNIZED", "PUT", f"{V1}/user/keys/query", {})
        await refused(house, 404, "M_NOT_FOUND", "GET", "/.well-known/matrix/server")


# What is sent: the checks on receipt.


@each_version
async def test_what_the_checks_on_receipt_make_of_an_event(tmp_path, version):
    async with server_with_peer(tmp_path, version) as house:
        forger, room = house.forger, house.room
        good = forger.message(room, "good")
        assert await house.fate(good) == "accepted"
        before = dict(room.tips)
        # An event of another content is another event, which up to version 2 its name has to say.
        anew = {"event_id": f"$anew:{THEIRS}"} if room.version.server_made_event_ids else {}
        # Checks 1 and 2 drop.
        for dropped in (
            {**forger.message(room, "x"), "depth": 2**53},
            forger.message(room, "x", prev_events=[f"${n}" for n in range(21)]),
            forger.finish(room, forger.draft(room, "x", {"a": "b"}), key=forger.secret),
            forger.finish(room, forger.draft(room, "x", {}, sender=f"@u:{OURS}")),
            {**good, "content": {"body": "x"}, "depth": 7, **anew},
        ):
            assert await house.fate(dropped) == "dropped"
        # Check 3 redacts.
        wrong = forger.finish(room, forger.draft(room, "x", {"a": "b"}), hashes={"sha256": "AAAA"})
        assert await house.fate(wrong) == "accepted"
        _, answer = await house.ask("GET", f"{V1}/event/{at(event_id(wrong, room.version))}")
        assert answer["pdus"] == [redact_event(wrong, room.version)]
        # Check 4 rejects: an auth event that is not selected; and check 5: what the levels forbid.
        extra = [*forger.draft(room, "x", {})["auth_events"], event_id(good, room.version)]
        for rejected in (
            forger.message(room, "x", auth_events=extra),
            forger.message(room, "x", auth_events=[]),
            forger.finish(room, forger.draft(room, "m.room.avatar", {"url": "mxc://x/y"}, "")),
        ):
            assert await house.fate(rejected) == "rejected"
            assert await status_of(house, rejected) == "rejected"
        # Check 6 soft-fails what the state of its own place permits and that of now does not.
        await levels_with(house, events_default=50)
        late = forger.message(room, "late", prev_events=list(before))
        assert await house.fate(late) == "soft_failed"
        assert await status_of(house, late) == "soft_failed"
        here = house.matrix.get_room(room.room_id)
        assert event_id(late, room.version) not in here.head.extremities
        assert await status_of(house, good) == "accepted"


async def test_events_of_another_room_that_a_gap_is_filled_with_are_not_taken(tmp_path):
    """Mistake 26."""
    async with server_with_peer(tmp_path) as house:
        forger, room = house.forger, house.room
        foreign = forger.message(house.other, "foreign")
        hidden = forger.message(room, "hidden")
        unsigned = forger.finish(room, forger.draft(room, "x", {"n": 1}), key=forger.secret)
        name = event_id(hidden, room.version)
        late = forger.message(room, "late", prev_events=[name], depth=hidden["depth"] + 1)

        def answer(request):
            if "/get_missing_events/" in request.target:
                return 200, {"events": [foreign, unsigned, None, {"room_id": 7}, hidden]}
            return None

        house.peer.answer = answer
        assert (await house.send(late))[0] == 200
        assert await status_of(house, late) == await status_of(house, hidden) == "accepted"
        store = house.matrix.store
        for raw in (foreign, unsigned):
            assert await store.get("pdu", (event_id(raw, room.version),)) is None


async def test_an_event_that_follows_an_unknown_one_of_another_room_gets_no_place(tmp_path):
    async with server_with_peer(tmp_path) as house:
        forger, room = house.forger, house.room
        foreign = forger.message(house.other, "foreign")
        name = event_id(foreign, room.version)
        late = forger.message(room, "late", prev_events=[name], depth=foreign["depth"] + 1)
        state = list(room.state.values())
        asked = []

        def answer(request):
            asked.append(request.target)
            if "/get_missing_events/" in request.target:
                return 200, {"events": [foreign]}
            if "/state_ids/" in request.target:
                return 200, {"pdu_ids": state, "auth_chain_ids": state}
            return (200, {"pdus": [foreign]}) if "/event/" in request.target else None

        house.peer.answer = answer
        assert (await house.send(late))[0] == 200
        await until(lambda: any("/event/" in target for target in asked))
        assert await house.fate(forger.message(room, "meanwhile")) == "accepted"
        rows = await house.matrix.store.get_many("pdu", [(name,), (event_id(late, room.version),)])
        assert rows == {}


async def test_a_transaction_is_answered_once(tmp_path):
    """T-3."""
    async with server_with_peer(tmp_path) as house:
        raw = house.forger.message(house.room, "once")
        name = event_id(raw, house.room.version)
        first = await house.ask("PUT", f"{V1}/send/t1", {"pdus": [raw]})
        assert first == (200, {"pdus": {name: {}}})
        assert await house.ask("PUT", f"{V1}/send/t1", {"pdus": []}) == first
        assert await house.ask("PUT", f"{V1}/send/t2", {"pdus": []}) == (200, {"pdus": {}})
        too_many = {"pdus": [{}] * 51}
        await refused(house, 400, "M_TOO_LARGE", "PUT", f"{V1}/send/t3", too_many)
        edus = {"pdus": [], "edus": [{"edu_type": "x", "content": {"a": 1.5}}] * 100}
        assert await house.ask("PUT", f"{V1}/send/t4", edus) == (200, {"pdus": {}})
        other = {"origin": "elsewhere", "pdus": []}
        await refused(house, 400, "M_INVALID_PARAM", "PUT", f"{V1}/send/t5", other)
        create = house.forger.created[house.room.room_id]
        assert await house.ask("PUT", f"{V1}/send/t6", {"pdus": [create]}) == (200, {"pdus": {}})


async def test_r7_an_event_that_was_fetched_as_an_authority_counts_when_it_arrives(tmp_path):
    async with server_with_peer(tmp_path) as house:
        forger, room = house.forger, house.room
        named = {"membership": "join", "displayname": "new name"}
        member = forger.finish(room, forger.draft(room, "m.room.member", named, USER))
        name, key = event_id(member, room.version), ("m.room.member", USER)
        draft = forger.draft(room, "m.room.message", {"body": "cites it"})
        cited = [name if one == room.state[key] else one for one in draft["auth_events"]]
        message = forger.finish(room, {**draft, "auth_events": cited})

        def answer(request):
            if "/event_auth/" in request.target:
                return 200, {"auth_chain": [member]}
            return (200, {"pdus": [member]}) if "/event/" in request.target else None

        house.peer.answer = answer
        assert (await house.send(message))[0] == 200
        assert await status_of(house, message) == "accepted"
        assert await status_of(house, member) == "outlier"
        here = house.matrix.get_room(room.room_id)
        assert (await here.state())[key] == room.state[key]
        assert (await house.send(member))[0] == 200
        async with asyncio.timeout(5):
            while await status_of(house, member) != "accepted":
                await asyncio.sleep(0)
        assert (await here.state())[key] == name


# Who asks.


async def test_requests_that_are_not_signed_as_they_must_be(tmp_path):
    async with server_with_peer(tmp_path) as house:
        target = f"{V1}/user/devices/{at(house.matrix.bridge_user)}"
        assert (await house.ask("GET", target))[0] == 200
        for how in (
            {"key": house.forger.secret},  # published by nobody
            {"key": house.forger.retired},  # an old key signs events alone
            {"origin": "a b"},
        ):
            status, answer = await house.ask("GET", target, **how)
            assert (status, answer["errcode"]) == (401, "M_UNAUTHORIZED"), how
        right = house.forger.signed

        def spoilt(*spoil: tuple[str, str]):
            def signed(*args: Any, **more: Any) -> str:
                header = right(*args, **more)
                for old, new in spoil:
                    assert old in header
                    header = header.replace(old, new)
                return header

            return signed

        for spoil, status in (
            ((f',destination="{OURS}"', ""), 200),  # it may be missing
            ((f'destination="{OURS}"', f'destination="{OURS}0"'), 401),
            ((f'destination="{OURS}"', 'destination=""'), 401),
            (('sig="', 'sig="A'), 401),
            (("X-Matrix ", "Bearer "), 401),
            (("X-Matrix ", "x-matrix   "), 200),
            (('key="ed25519:now"', 'key="ed25519:none"'), 401),
        ):
            house.forger.signed = spoilt(spoil)
            assert (await house.ask("GET", target))[0] == status, spoil
        house.forger.signed = lambda *_, **__: ""
        assert (await house.ask("GET", target))[0] == 401


async def test_what_is_signed_is_the_target_and_the_body_as_they_came(tmp_path):
    """A-1, A-3; mistake 6."""
    async with server_with_peer(tmp_path) as house:
        right = house.forger.signed
        for method, target, signed_target, body, signed_body, status in (
            ("GET", f"{V1}/event/%24a%2Fb", f"{V1}/event/%24a%2Fb", None, None, 404),
            ("GET", f"{V1}/event/%24a%2Fb", f"{V1}/event/$a%2Fb", None, None, 401),
            ("GET", f"{V1}/event/%24a%2Fb", f"{V1}/event/%24a%2fb", None, None, 401),
            ("GET", f"{V1}/event/%24a?x=1", f"{V1}/event/%24a", None, None, 401),
            ("PUT", f"{V1}/send/s1", f"{V1}/send/s1", {"pdus": []}, b'{"pdus":[]}', 200),
            ("PUT", f"{V1}/send/s2", f"{V1}/send/s2", {"pdus": []}, b'{"pdus":[1]}', 401),
            ("PUT", f"{V1}/send/s3", f"{V1}/send/s3", {"pdus": []}, None, 401),
        ):
            house.forger.signed = lambda *_, _t=signed_target, _b=signed_body, _m=method, **__: right(
                _m, OURS, _t, _b
            )
            assert (await house.ask(method, target, body))[0] == status, (target, signed_target)


async def test_a_delegated_server_says_where_it_is(tmp_path):
    async with server_with_peer(tmp_path, well_known_server="hansa.example:443") as house:
        status, answer = await house.ask("GET", "/.well-known/matrix/server")
        assert (status, answer) == (200, {"m.server": "hansa.example:443"})


async def test_our_keys_are_published_and_signed(tmp_path):
    """K-2, K-3."""
    async with server_with_peer(tmp_path) as house:
        now = house.app.contexts["matrix"].clock.now()
        for target in ("/_matrix/key/v2/server", "/_matrix/key/v2/server/ed25519:a"):
            status, doc = await house.ask("GET", target)
            assert status == 200
            found = check_key_document(doc, OURS, verify_signature, now)
            assert found.keys() == {"ed25519:a"}
            assert now + 3_600_000 < found["ed25519:a"].valid_until <= now + 7 * DAY
