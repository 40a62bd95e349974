"""Everything that others can make this server store: who, how much of one, how much in all, how long, and where
an operator sees it. A collection that is not in the table fails a test; so does a bound, a metric or a proof that
the table names and that is not there.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hansa_xmpp.occupant_store as xmpp
import pytest
from hansa import Collection
from hansa.bus.schema import SCHEMA as CORE
from hansa.media.schema import SCHEMA as MEDIA
from hansa_matrix.config import Config
from hansa_matrix.retention import COUNTED
from hansa_matrix.rooms.redactions import PendingRedaction, PendingRedactions
from hansa_matrix.schema import SCHEMA
from hansa_matrix.server_api import send
from hansa_matrix.users import devices
from matrix.server_with_peer import THEIRS, V1, ServerWithPeer, server_with_peer
from matrix.test_devices import US, known

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """``peer``, ``in_all`` and ``age`` are numbers of the code, ``module:NAME``, or options, ``option NAME``;
    of what has no bound of its own ``within`` says what bounds it. ``flood`` is the test that really does it.
    """

    who: str
    peer: str = ""
    in_all: str = ""
    age: str = ""
    within: str = ""
    metric: str = ""
    flood: str = ""


def ours(why: str) -> Kept:
    """Nobody but an operator, or this server itself, makes more of it."""
    return Kept(who="", within=why)


def history(why: str) -> Kept:
    """It grows with the events of rooms that people here are in, which a room's own rules let happen."""
    return Kept(who="members of rooms that we are in", within=why, metric="matrix_pdus")


_EVENT = "each event has at most 64 KiB, and passes the rules and policies of its room"
_OF_USER = "rows of people with an account, each by an act that the client rate limits"

MATRIX: dict[str, Kept] = {
    # Other servers.
    "invite": Kept(
        who="other servers; people here who knock",
        peer="hansa_matrix.rooms.membership.pending_invites:MAX_OF_PEER",
        in_all="hansa_matrix.rooms.membership.pending_invites:MAX_IN_ALL",
        age="hansa_matrix.rooms.membership.pending_invites:KEPT_FOR",
        metric="matrix_invites_waiting",
        flood="clients/test_invite_floods.py::test_one_server_s_flood_is_small",
    ),
    "to_device": Kept(
        who="other servers; people here",
        peer="hansa_matrix.users.to_device_shares:MAX_BYTES_OF_PEER",
        in_all="hansa_matrix.users.to_device_shares:MAX_TOTAL_BYTES",
        age="hansa_matrix.users.to_device:MESSAGE_TTL_MS",
        metric="matrix_to_device_waiting_bytes",
        flood="matrix/test_message_floods.py::test_one_server_s_flood_is_small",
    ),
    "to_device_usage": Kept(
        who="other servers; people here",
        within="a row of each peer and device that has messages waiting, no longer than those",
        metric="matrix_to_device_waiting_bytes",
        flood="matrix/test_message_floods.py::test_what_a_device_has_or_is_gone_with_counts_no_more",
    ),
    "to_device_seen": Kept(
        who="other servers",
        peer="hansa_matrix.users.to_device:MAX_SEEN_IDS",
        within="rows of messages that a device here got",
        age="hansa_matrix.retention:_SEEN_TTL_S",
        metric="matrix_stored_rows",
        flood="matrix/test_message_floods.py::test_of_very_many_it_is_known_only_of_the_last_that_they_came",
    ),
    "txn": Kept(
        who="other servers",
        peer="hansa_matrix.server_api.send:MAX_TRANSACTIONS",
        within="servers whose requests are signed, at most so many of each, for a day",
        age="hansa_matrix.retention:_TXN_TTL_S",
        metric="matrix_stored_rows",
        flood="matrix/test_stored_by_strangers.py::test_answers_to_transactions_are_kept_of_the_last",
    ),
    "remote_devices": Kept(
        who="other servers, of people whom somebody here asked for",
        peer="hansa_matrix.users.remote_devices:MAX_BYTES_OF_SERVER",
        in_all="hansa_matrix.users.remote_devices:MAX_BYTES",
        within="people who are in a room with us; the others' go when they are swept",
        metric="matrix_device_lists_bytes",
        flood="matrix/test_news_floods.py::test_lists_of_one_server_are_bounded",
    ),
    "remote_devices_usage": Kept(
        who="other servers",
        within="a row of each server of which there are lists, no longer than those",
        metric="matrix_device_lists_bytes",
        flood="matrix/test_news_floods.py::test_lists_of_who_is_in_no_room_with_us_go",
    ),
    "receipt": Kept(
        who="members of rooms that we are in",
        peer="hansa_matrix.rooms.typing_and_receipts:MAX_THREADS",
        within="members of rooms, each so many threads",
        metric="matrix_stored_rows",
        flood="matrix/test_edus.py::test_of_a_person_with_receipts_in_very_many_threads_the_oldest_goes",
    ),
    "key_document": Kept(
        who="other servers",
        peer="hansa_matrix.federation.key_store:MAX_KEYS",
        in_all="hansa_matrix.federation.key_store:MAX_BYTES",
        within="servers, of which those fetched longest ago go first",
        metric="matrix_known_servers_bytes",
        flood="matrix/test_strangers.py::test_the_servers_fetched_longest_ago_go_when_there_are_too_many",
    ),
    "key": Kept(
        who="other servers",
        within="the keys of the servers whose documents are kept",
        metric="matrix_known_servers",
        flood="matrix/test_strangers.py::test_one_server_has_so_many_keys_and_a_small_document",
    ),
    "staged": Kept(
        who="members of rooms that we are in",
        peer="option max_staged_pdus_per_room",
        in_all="option max_staged_pdus",
        within="half of each for one server, and the memory of `backlog`, until they are judged",
        metric="matrix_waiting",
        flood="matrix/test_shares.py::test_a_server_that_fills_a_line_is_refused_and_others_are_not",
    ),
    "hole": Kept(
        who="members of rooms that we are in",
        peer="hansa_matrix.rooms.state.holes:MAX_HOLES_OF_ONE",
        in_all="hansa_matrix.rooms.state.holes:MAX_HOLES",
        metric="matrix_holes_open",
        flood="matrix/test_holes.py::test_the_holes_of_a_room_are_bounded_and_the_greediest_gives_way",
    ),
    "redaction": Kept(
        who="members of rooms that we are in",
        peer="hansa_matrix.rooms.redactions:_MAX_OF_SERVER",
        in_all="hansa_matrix.rooms.redactions:_MAX_PENDING",
        metric="matrix_stored_rows",
        flood="matrix/test_stored_by_strangers.py::test_redactions_that_wait_are_bounded",
    ),
    "destination": Kept(
        who="other servers that join rooms of ours",
        age="hansa_matrix.federation.sender:UNUSED_FOR",
        within="a row of each server that something is for, and that long after it",
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_servers_that_nothing_is_for_any_more_are_forgotten",
    ),
    "recipients": Kept(
        who="other servers that join rooms of ours",
        age="hansa_matrix.federation.sender:UNUSED_FOR",
        within="a row of each set of servers that an event of ours is known of, and that long after it",
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_servers_that_nothing_is_for_any_more_are_forgotten",
    ),
    # Files.
    "media": Kept(
        who="people here; other servers, whose files people here look at",
        peer="option media_quota_per_server",
        in_all="option media_quota_remote",
        age="option remote_media_ttl",
        metric="matrix_media_copies_bytes",
        flood="clients/test_uploads.py::test_copies_of_a_server_s_files_give_way_to_its_own_only",
    ),
    "media_usage": Kept(
        who="people here; other servers",
        within="a row of each person and server that has files here",
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_of_who_has_no_files_no_row_is_kept",
    ),
    "media_going": Kept(
        who="people here; other servers, whose files are let go of",
        age="hansa_matrix.media.repository:ORPHAN_TTL_MS",
        within="a row of each file whose bytes are removed at this moment, or were as a crash came",
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_bytes_whose_removal_a_crash_cut_off_go_too",
    ),
    "media_reserved": Kept(
        who="people here",
        peer="hansa_matrix.media.repository:MAX_PENDING_OF_USER",
        in_all="hansa_matrix.media.repository:MAX_PENDING",
        age="hansa_matrix.client_api.media:_PENDING_TTL_MS",
        metric="matrix_media_reserved",
        flood="clients/test_uploads.py::test_addresses_that_wait_are_bounded",
    ),
    # People here.
    "device": Kept(
        who="people here",
        peer="hansa_matrix.proto.devices:MAX_DEVICES",
        within=_OF_USER,
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_devices_and_tokens_are_bounded",
    ),
    "last_seen": Kept(
        who="people here",
        peer="hansa_matrix.proto.devices:MAX_DEVICES",
        within="a row of each device, written once a minute at the most",
        metric="matrix_stored_rows",
    ),
    "left": Kept(
        who="other servers, whose invites are taken back; people here who decline",
        peer="hansa_matrix.rooms.membership.ended_invites:MAX_OF_USER",
        in_all="hansa_matrix.rooms.membership.ended_invites:MAX_IN_ALL",
        age="hansa_matrix.rooms.membership.ended_invites:KEPT_FOR",
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_the_ends_of_invites_are_bounded",
    ),
    "device_list": ours("a number of each person with an account"),
    "one_time_key": Kept(
        who="people here",
        peer="hansa_matrix.users.devices:MAX_ONE_TIME_KEYS_OF_USER",
        within=_OF_USER,
        metric="matrix_stored_rows",
        flood="clients/test_keeping.py::test_keys_are_bounded",
    ),
    "fallback_key": Kept(
        who="people here",
        peer="hansa_matrix.users.devices:MAX_FALLBACK_KEYS",
        within=_OF_USER,
        metric="matrix_stored_rows",
        flood="clients/test_keeping.py::test_keys_are_bounded",
    ),
    "cross_signing_key": Kept(
        who="people here",
        peer="hansa_matrix.proto.devices:MAX_KEYS_SIZE",
        within="three keys of each person",
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_cross_signing_keys_are_bounded",
    ),
    "vouched": Kept(
        who="people here",
        peer="hansa_matrix.users.devices:MAX_USER_SIGNATURES",
        within=_OF_USER,
        metric="matrix_stored_rows",
        flood="matrix/test_stored_by_strangers.py::test_signatures_on_the_keys_of_others_are_bounded",
    ),
    "profile": Kept(
        who="people here",
        peer="hansa_matrix.users.profiles:MAX_PROFILE",
        within="one of each person",
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_a_profile_is_bounded",
    ),
    "openid": Kept(
        who="people here",
        peer="hansa_matrix.users.openid:MAX_TOKENS_OF_USER",
        within=_OF_USER,
        metric="matrix_stored_rows",
        flood="clients/test_keeping.py::test_tokens_for_others_take_the_place_of_the_first",
    ),
    "account_data": Kept(
        who="people here",
        peer="hansa_matrix.client_api.account.account_data:MAX_BYTES_OF_USER",
        within=_OF_USER,
        metric="matrix_stored_rows",
        flood="clients/test_keeping.py::test_account_data_is_bounded_in_bytes",
    ),
    "account_data_usage": ours("a number of each person with an account"),
    "filter": Kept(
        who="people here",
        peer="hansa_matrix.client_api.sync.stored_filters:MAX_FILTERS_OF_USER",
        within=_OF_USER,
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_filters_give_way_by_their_last_use_and_never_in_use",
    ),
    "key_backup": Kept(
        who="people here",
        peer="hansa_matrix.users.key_backups:MAX_BACKUPS",
        within=_OF_USER,
        metric="matrix_stored_rows",
        flood="clients/test_key_backup.py::test_backups_are_bounded",
    ),
    "key_backup_key": Kept(
        who="people here",
        peer="hansa_matrix.users.key_backups:MAX_BACKUP_BYTES",
        within=_OF_USER,
        metric="matrix_stored_rows",
        flood="clients/test_key_backup.py::test_backups_are_bounded",
    ),
    "report": Kept(
        who="people here",
        peer="hansa_matrix.client_api.rooms.reports:MAX_REPORTS_OF_USER",
        in_all="hansa_matrix.client_api.rooms.reports:MAX_REPORTS",
        age="hansa_matrix.retention:_REPORTS_TTL_S",
        metric="matrix_stored_rows",
        flood="clients/test_keeping.py::test_reports_take_the_place_of_the_first",
    ),
    "room_alias": Kept(
        who="people here",
        peer="hansa_matrix.client_api.rooms.aliases:MAX_ALIASES_OF_ROOM",
        within=_OF_USER,
        metric="matrix_stored_rows",
        flood="clients/test_keeping.py::test_a_room_has_so_many_names",
    ),
    "published": Kept(
        who="people here",
        in_all="hansa_matrix.rooms.directory.public_rooms:MAX_PUBLISHED",
        within="one of each room here",
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_published_rooms_are_bounded",
    ),
    "account": Kept(
        who="who registers",
        peer="option client_rate",
        within="as the operator lets register; of one address at a hundredth of what clients may",
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_accounts_of_one_address_are_made_slowly",
    ),
    "access_token": Kept(
        who="people here",
        peer="hansa_matrix.proto.devices:MAX_DEVICES",
        within="one of each device",
        metric="matrix_stored_rows",
        flood="clients/test_floods.py::test_devices_and_tokens_are_bounded",
    ),
    "registration_token": ours("an operator gives them out"),
    "blocked": ours("an operator blocks rooms"),
    # Rooms.
    "room": history("a row of each room that somebody here is in"),
    "pdu": history(_EVENT),
    "state_group": history(_EVENT),
    "upgrade": history("a row of each room that is being replaced, until it is"),
    "original": history("redacted events, for redacted_event_ttl seconds"),
    "relation": history(_EVENT),
    "related": history(_EVENT),
    "redacted_by": history(_EVENT),
    "stay": history(
        "a row of each person here and room; of rooms that they were only asked into five hundred"
    ),
    "news": history("a row of each event; of receipts and devices one of each person"),
    "out": ours("what people here say, until servers have it and delivery_status_ttl seconds more"),
    "out_mark": ours("one of each hour of that"),
    "lasting_edu": ours(
        "what people here send to devices elsewhere, and changes of theirs, until it is sent"
    ),
}

OTHERS: dict[str, Kept] = {
    "core/decision": Kept(who="everybody", flood="core/test_decision_log.py::test_old_decisions_are_let_go"),
    "core/stranger": Kept(
        who="everybody",
        flood="core/test_decision_log.py::test_eight_thousand_strangers_do_not_fill_the_log",
    ),
    **{
        f"core/{name}": history("as the events of rooms")
        for name in ("room", "link", "person", "event", "alias", "cursor", "dead", "ghost")
    },
    "core/relation": history("one of each edit, reaction, vote and report"),
    "core/chosen": history("eight of each event of the last ninety days at most"),
    "core/command": Kept(
        who="everybody", flood="core/test_chat_commands.py::test_commands_of_yesterday_are_forgotten"
    ),
    "core/draft": Kept(
        who="everybody", flood="core/test_late_authority.py::test_drafts_are_forgotten_after_a_day"
    ),
    "core/told": history("one of each person, room and kind of content that a network rejects"),
    **{
        f"core/{name}": history(
            "one of each person with an account of their own, as many as its network takes"
        )
        for name in ("login", "logged_in")
    },
    "core/unshown": ours("one of each link at most"),
    "core/entering": ours("the people of an opened room or of a view, removed as they are submitted"),
    "core/membership_log": history("one of each change of a membership"),
    "core/visibility_log": history("one of each change of who may read a room's history"),
    "core/observed": ours("a position of each room and durable observer"),
    "core/people_change": history("people of one change of a room, until it is done; left over, an hour"),
    "core/generation": ours("a number"),
    **{
        f"media/{name}": history("as many files as the quotas of a sender and of a server allow")
        for name in ("file", "reference", "usage", "removal")
    },
    "media/name_key": ours("one"),
    "media/link_key": ours("one, and one more each time that an operator revokes links"),
    "xmpp/occupant": history("as many as the rooms let in"),
    "xmpp/absence": history("one of each member without a connection, for member_idle_days"),
    "xmpp/secret": ours("one"),
    "xmpp/uptime": ours("one"),
    "xmpp/foreign_room": ours("one of each linked room of another service"),
    "xmpp/foreign_puppet": history("one of each person who spoke in a linked room of another service"),
    "xmpp/reflected": history("one of each message to a room of another service, for seven days"),
}


def collections() -> Iterator[tuple[str, Collection, Kept | None]]:
    for collection in SCHEMA.collections:
        yield collection.name, collection, MATRIX.get(collection.name)
    for owner, schema in (("core", CORE), ("media", MEDIA), ("xmpp", xmpp.SCHEMA)):
        for collection in schema.collections:
            name = f"{owner}/{collection.name}"
            yield name, collection, OTHERS.get(name)


def test_every_collection_is_in_the_table():
    names = {name for name, _, _ in collections()}
    assert names == {*MATRIX, *OTHERS}


SOURCES = "\n".join(
    path.read_text() for folder in ("core", "plugins") for path in sorted((ROOT / folder).rglob("*.py"))
)


def number(named: str) -> Any:
    """Returns the value of a limit of the table."""
    if named.startswith("option "):
        return Config.model_fields[named.removeprefix("option ")].default
    module, _, name = named.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("name", "kept"), [(name, kept) for name, _, kept in collections() if kept])
def test_what_the_table_says_is_there(name, kept):
    for bound in filter(None, (kept.peer, kept.in_all, kept.age)):
        assert number(bound) > 0, bound
    if kept.metric:
        assert f'"{kept.metric}"' in SOURCES
    if kept.metric == "matrix_stored_rows":
        assert name in COUNTED
    assert kept.within or kept.flood
    if not kept.within:
        assert kept.who
    if kept.flood:
        file, _, test = kept.flood.partition("::")
        text = (ROOT / "tests" / file).read_text()
        assert re.search(rf"def {test}\(", text), kept.flood


# Floods that are not in the tests of their parts.


async def test_answers_to_transactions_are_kept_of_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(send, "MAX_TRANSACTIONS", 20)
    monkeypatch.setattr(send, "_TRIM_EVERY", 10)
    async with server_with_peer(tmp_path) as house:
        for number_ in range(60):
            status, _ = await house.ask("PUT", f"{V1}/send/t{number_:03}", {"pdus": []})
            assert status == 200
        store = house.app.contexts["matrix"].store
        assert await store.count("txn", equal={"origin": THEIRS}) <= 29
        assert await store.get("txn", (THEIRS, "t059")) is not None


async def test_signatures_on_the_keys_of_others_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "MAX_USER_SIGNATURES", 3)
    async with server_with_peer(tmp_path) as house:
        answers = [await vouch(house, f"@u{number_}:x") for number_ in range(5)]
        assert answers[:3] == ["", "", ""] and all("that is enough" in one for one in answers[3:])
        assert await vouch(house, "@u0:x") == ""  # a repeated one is not new
        assert await house.app.contexts["matrix"].store.count("vouched") == 3


async def test_redactions_that_wait_are_bounded():
    awaited = PendingRedactions("!r:x")
    written = [
        bool(awaited.wait(f"$t{number_}", PendingRedaction(f"$r{number_}", f"s{number_ % 8}.example")))
        for number_ in range(2000)
    ]
    assert sum(written) == 1000 and len(awaited.by_target) == 1000
    alone = PendingRedactions("!r:x")
    assert (
        sum(bool(alone.wait(f"$t{n}", PendingRedaction(f"$r{n}", "one.example"))) for n in range(500)) == 200
    )
    assert alone.wait("$t", PendingRedaction("$r", "other.example"))


async def vouch(house: ServerWithPeer, user: str) -> str:
    key = {"user_id": user, "usage": ["master"], "keys": {"ed25519:K": "K"}}
    signed = {**key, "signatures": {US: {"ed25519:A": "x"}}}
    return str(await known(house).devices._store_user_signature(US, user, "K", signed))
