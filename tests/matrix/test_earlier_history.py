"""What was said in a room of another server before this one joined it, for people of other networks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hansa import EarlierPage, Edit, Message, NativeId
from hansa_matrix.client_api.rooms import pagination
from hansa_matrix.rooms.inbound.missing_events import MissingEvents
from matrix.server_with_peer import THEIRS, server_with_peer
from matrix.test_backfill import Past


class Reader:
    """Asks the network as the core does."""

    def __init__(self, past: Past) -> None:
        self.past, self.house = past, past.house

    async def page(self, before: str = "", limit: int = 50, *, ask: bool = True) -> EarlierPage | None:
        link = self.house.app.rooms.link(NativeId("matrix", self.past.room.room_id))
        network: Any = self.house.app.network("matrix")
        return await network.fetch_before(link, before, limit=limit, ask_others=ask)

    async def all(self, limit: int) -> list[str]:
        """The native ids of every page, in order."""
        found, before = list[str](), ""
        for _ in range(500):
            page = await self.page(before, limit)
            assert page is not None
            assert len(page.events) <= limit
            found = [*(event.native for event in page.events), *found]
            if page.before is None:
                return found
            assert page.before != before
            before = page.before
        raise AssertionError("there is no end")


@pytest.mark.parametrize("limit", [1, 7, 60])
async def test_others_are_asked_and_every_message_comes_once(tmp_path, limit):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        said = [past.say(f"m{number}") for number in range(120)]
        await past.entered()
        reader = Reader(past)
        before, here = "", await reader.page(ask=False)
        while here is not None and here.before != before:  # our own join comes first
            assert here.events == []
            assert here.before
            before, here = here.before, await reader.page(here.before, ask=False)
        assert past.pages == []
        assert await reader.all(limit) == said
        asked = len(past.pages)
        here = await reader.page(limit=50, ask=False)
        assert here is not None
        assert [event.native for event in here.events] == said[-50:]
        assert len(past.pages) == asked  # what was fetched once is here
        event = here.events[0]
        assert (event.content, event.visibility) == (Message(text="m70"), "shared")
        assert event.sender == NativeId("matrix", f"@m:{THEIRS}")
        assert await reader.page(before="$unknown") is None
        assert await reader.page(before=past.order[0]) is not None


async def test_each_has_the_visibility_of_its_time_and_what_was_redacted_is_gone(tmp_path):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        secret, first = past.say("a secret"), past.say("first")
        past.sent("m.room.history_visibility", {"history_visibility": "joined"}, "")
        closed = past.say("closed")
        past.sent("m.room.history_visibility", {"history_visibility": "world_readable"}, "")
        opened = past.say("open")
        correction = past.sent("m.room.topic", {"topic": "no message"}, "")
        draft = house.forger.draft(past.room, "m.room.redaction", {"redacts": secret})
        past.had(house.forger.finish(past.room, draft))
        edit = {
            "msgtype": "m.text",
            "body": "* second",
            "m.new_content": {"msgtype": "m.text", "body": "second"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": first},
        }
        edited = past.had(
            house.forger.finish(past.room, house.forger.draft(past.room, "m.room.message", edit))
        )
        await past.entered()
        page = await Reader(past).page()
        assert page is not None
        assert [(event.native, event.visibility) for event in page.events] == [
            (first, "shared"), (closed, "joined"), (opened, "world_readable"), (edited, "world_readable"),
        ]  # fmt: skip
        assert page.events[-1].content == Edit(target=first, message=Message(text="second"))
        assert page.events[-1].target_sender == page.events[0].sender
        assert correction not in [event.native for event in page.events]


async def test_a_redaction_that_comes_after_the_link_holds(tmp_path):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        secret = past.say("a secret")
        await past.entered()
        reader = Reader(past)
        assert await reader.all(10) == [secret]
        draft = house.forger.draft(past.room, "m.room.redaction", {"redacts": secret})
        assert await house.fate(house.forger.finish(past.room, draft)) == "accepted"
        assert await reader.all(10) == []


async def test_an_edit_of_what_was_redacted_has_no_message_any_more(tmp_path):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        secret = past.say("a secret")
        edit = {
            "msgtype": "m.text",
            "body": "* also secret",
            "m.new_content": {"msgtype": "m.text", "body": "also secret"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": secret},
        }
        past.had(house.forger.finish(past.room, house.forger.draft(past.room, "m.room.message", edit)))
        redaction = house.forger.draft(past.room, "m.room.redaction", {"redacts": secret})
        past.had(house.forger.finish(past.room, redaction))
        await past.entered()
        page = await Reader(past).page()
        assert page is not None
        assert [event.target_sender for event in page.events] == [None]


async def test_a_server_that_is_silent_leaves_time_for_the_others_and_is_asked_last(tmp_path, monkeypatch):
    monkeypatch.setattr(pagination, "_FETCH_TIMEOUT_S", 2.0)
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        said = [past.say(f"m{number}") for number in range(150)]
        await past.entered()
        answer, silent, asked = house.peer.request, "127.0.0.3:3", list[str]()

        async def request(sent: Any) -> Any:
            if "/backfill/" in sent.target:
                asked.append(sent.host_header)
                if sent.host_header == silent:
                    await asyncio.Event().wait()
            return await answer(sent)

        monkeypatch.setattr(house.peer, "request", request)
        monkeypatch.setattr(MissingEvents, "candidate_servers", lambda *_: [silent, THEIRS])
        assert await Reader(past).all(50) == said
        assert asked[:2] == [silent, THEIRS]
        assert asked.count(silent) == 1


@pytest.mark.parametrize("lacking", ["the state", "the event"])
async def test_an_event_whose_visibility_is_not_known_is_read_by_nobody(tmp_path, monkeypatch, lacking):
    async with server_with_peer(tmp_path) as house:
        past = Past(house)
        past.sent("m.room.history_visibility", {"history_visibility": "joined"}, "")
        past.say("closed")
        await past.entered()
        reader = Reader(past)
        page = await reader.page()
        assert page is not None
        assert [event.visibility for event in page.events] == ["joined"]
        room = house.matrix.get_room(past.room.room_id)
        events_of = room.events_of

        async def without_state(_group: int) -> Any:
            return {}

        async def without_event(state: Any, keys: Any) -> Any:
            found = await events_of(state, keys)
            return {key: event for key, event in found.items() if key[0] != "m.room.history_visibility"}

        if lacking == "the state":
            monkeypatch.setattr(room.groups, "load", without_state)
        else:
            monkeypatch.setattr(type(room), "events_of", lambda _, state, keys: without_event(state, keys))
        page = await reader.page()
        assert page is not None
        assert [event.visibility for event in page.events] == [""]


async def test_a_room_of_this_server_has_nothing_before_its_log(tmp_path):
    async with server_with_peer(tmp_path) as house:
        link = house.app.rooms.link(NativeId("matrix", house.room.room_id))
        network: Any = house.app.network("matrix")
        assert await network.fetch_before(link, "", limit=5, ask_others=True) == EarlierPage()
