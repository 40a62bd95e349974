"""What was said on another network before the link, in the archive of a room and in the history of a join."""

from __future__ import annotations

from typing import Any

import pytest
from hansa import EarlierEvent, EarlierPage, Edit, Membership, Message
from hansa_xmpp import archive
from xmpp.test_archive import Answer, heard, query, settled
from xmpp.xmpp_server import XmppServer, mx, xmpp_server

JULIET, EVE = "juliet@x.example/a", "eve@x.example/c"


class Past:
    """What the other network has. ``away``: other servers, which alone have it, give nothing now."""

    def __init__(self, *events: EarlierEvent) -> None:
        self.events = list(events)
        self.away = False
        self.asked: list[bool] = []

    async def fetch_before(
        self, link: Any, before: str, *, limit: int, ask_others: bool
    ) -> EarlierPage | None:
        del link
        self.asked.append(ask_others)
        if self.away:
            return EarlierPage(before=before)
        names = [event.native for event in self.events]
        if before and before not in names:
            return None
        end = names.index(before) if before else len(names)
        start = max(0, end - limit)
        return EarlierPage(events=self.events[start:end], before=names[start] if start else None)


def earlier(number: int, visibility: str = "shared", content: Any = None) -> EarlierEvent:
    said = content or Message(text=f"old {number}")
    return EarlierEvent(
        native=f"${number}",
        sender=mx("alice"),
        content=said,
        ts=1000 * number,
        visibility=visibility,
        target_sender=mx("alice"),
    )


async def before_the_link(h: XmppServer, *events: EarlierEvent) -> Past:
    """A room with a past, and three messages in its log."""
    past = Past(*events)
    h.other.fetch_before = past.fetch_before  # type: ignore[attr-defined]
    await h.other.member(mx("alice"), Membership.JOIN, name="Alice")
    await h.enter(JULIET, "Jule")
    await h.other.say("alice", "new 1", "new 2", "new 3")
    await heard(h, "new 3")
    await settled(h)
    return past


async def scroll_back(h: XmppServer, full: str, size: int, **fields: Any) -> list[Answer]:
    """The pages from the newest to the oldest."""
    pages, before = list[Answer](), ""
    for _ in range(100):
        page = await query(h, full, page=f"<max>{size}</max><before>{before}</before>", **fields)
        pages.append(page)
        if page.complete:
            return pages
        before = page.end("first")
    raise AssertionError("there is no end")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
async def test_who_scrolls_back_comes_to_what_was_said_before(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_PERSON_RATE", 0.0)
    async with xmpp_server() as h:
        edit = Edit(target="$1", message=Message(text="corrected"))
        await before_the_link(
            h, earlier(1), earlier(2, "joined"), *(earlier(n) for n in range(3, 9)), earlier(9, content=edit)
        )
        pages = await scroll_back(h, JULIET, size)
        read = [text for page in reversed(pages) for text in page.bodies]
        old = [f"old {n}" for n in (1, 3, 4, 5, 6, 7, 8)]
        assert read == [*old, "corrected", "new 1", "new 2", "new 3"]
        messages = [m for page in reversed(pages) for m in page.messages]
        replaced = messages[7].find("{urn:xmpp:message-correct:0}replace")
        assert replaced is not None
        assert replaced.get("id") == messages[0].get("id")
        stamp = pages[-1].results[0].find(".//{urn:xmpp:delay}delay")
        assert stamp is not None
        assert (stamp.get("stamp") or "").startswith("1970-01-01T00:00:0")


async def test_a_page_of_the_log_waits_for_no_server_and_nothing_else_reads_the_past() -> None:
    async with xmpp_server() as h:
        past = await before_the_link(h, earlier(1), earlier(2))
        past.asked.clear()
        assert (await query(h, JULIET)).bodies == ["new 1", "new 2", "new 3"]
        assert past.asked == []  # forward, the archive begins with the log
        page = await query(h, JULIET, page="<before/>")
        assert (page.bodies, page.complete) == (["old 1", "old 2", "new 1", "new 2", "new 3"], True)
        assert past.asked == [False]
        first = page.ids[0]
        last = page.ids[-1]
        for refused in ({"after_id": first}, {"ids": [first]}, {"before_id": first}):
            assert (await query(h, JULIET, **refused)).error == "item-not-found"
        both = await query(h, JULIET, page=f"<before>{first}</before>", after_id=last)
        assert both.error == "item-not-found"
        none = await query(h, JULIET, page=f"<max>0</max><before>{first}</before>")
        assert (none.error, none.results) == ("", [])
        assert (await query(h, JULIET, page=f"<after>{first}</after>")).error == "item-not-found"
        assert (await query(h, JULIET, page="<before>~unknown</before>")).error == "item-not-found"
        past.away = True
        page = await query(h, JULIET, page="<before/>")
        assert (page.bodies, page.complete) == (["new 1", "new 2", "new 3"], False)
        past.asked.clear()
        page = await query(h, JULIET, page=f"<before>{page.end('first')}</before>")
        assert (page.bodies, page.complete, past.asked) == ([], False, [True])
        past.away = False
        page = await query(h, JULIET, page=f"<before>{first}</before>")
        assert (page.bodies, page.complete) == ([], True)


async def test_filters_hold_before_the_log_too() -> None:
    async with xmpp_server() as h:
        await before_the_link(h, *(earlier(n) for n in range(1, 6)))
        found = await query(
            h, JULIET, page="<before/>", start="1970-01-01T00:00:02Z", end="1970-01-01T00:00:03Z"
        )
        assert (found.bodies, found.complete) == (["old 2", "old 3"], True)
        assert (await query(h, JULIET, page="<before/>", with_="juliet@x.example")).bodies == []


async def test_who_enters_gets_what_is_here() -> None:
    async with xmpp_server() as h:
        edit = Edit(target="$2", message=Message(text="corrected"))
        past = await before_the_link(
            h, earlier(1, "joined"), earlier(2), earlier(3, "world_readable"), earlier(4, content=edit)
        )
        past.asked.clear()
        await h.enter(EVE, "Eve")
        assert set(past.asked) == {False}
        assert h.link.bodies(EVE) == ["corrected", "old 3", "new 1", "new 2", "new 3"]


async def test_a_catch_up_that_begins_within_the_log_reads_nothing_before_it() -> None:
    async with xmpp_server() as h:
        past = await before_the_link(h, earlier(1), earlier(2))
        past.asked.clear()
        begin = "2030-01-01T00:00:00Z"
        page = await query(h, JULIET, page="<before/>", start=begin)
        assert (page.bodies, page.complete) == ([], True)
        assert past.asked == []
