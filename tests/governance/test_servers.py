"""All servers of a room at a time."""

from __future__ import annotations

import asyncio

from hansa import Membership, NativeId, RoomMember, RoomView, ViewDelta
from hansa_governance.lists import Globs
from hansa_governance.servers import MAX_NAMED, RefusedServers, Servers

MANY = frozenset(f"s{number}.example" for number in range(5000))


async def test_those_of_no_list_and_those_that_are_denied_are_refused():
    servers = Servers(["evil.*"], ["*.example"])
    assert await servers.refused(frozenset({"a.example", "evil.example", "b.org"})) == (
        RefusedServers("b.org", ""),
        RefusedServers("evil.example", "evil.*"),
    )
    assert await Servers([], []).refused(MANY) == ()
    assert await servers.refused(frozenset({""})) == (RefusedServers("", ""),)


async def test_one_among_many_is_found_and_few_of_many_are_named():
    assert await Servers(["s4999.example"], []).refused(MANY) == (
        RefusedServers("s4999.example", "s4999.example"),
    )
    assert len(await Servers(["*"], []).refused(MANY)) == MAX_NAMED


async def test_a_set_is_judged_once_and_others_have_their_turn_meanwhile(monkeypatch):
    judged = 0
    denies = Globs.matching_glob

    def counted(self, name):
        nonlocal judged
        judged += 1
        return denies(self, name)

    monkeypatch.setattr(Globs, "matching_glob", counted)
    servers, turns = Servers(["evil.example"], []), 0
    asking = asyncio.ensure_future(servers.refused(MANY))
    while not asking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 50
    assert judged == len(MANY)
    await servers.refused(MANY)
    assert judged == len(MANY)
    await servers.refused(MANY | {"evil.example"})
    assert judged == 2 * len(MANY) + 1


def test_a_view_gives_the_same_set_of_servers_until_it_changes():
    def person(name: str, server: str, membership: Membership = Membership.JOIN) -> RoomMember:
        return RoomMember(user=NativeId("m", name), membership=membership, server=server)

    view = RoomView("r")
    view.apply(ViewDelta(upserts=(person("a", "a.example"), person("b", "b.example"))))
    assert view.servers() == {"a.example", "b.example"}
    before = view.servers()
    view.apply(ViewDelta(upserts=(person("c", "a.example"),)))
    assert view.servers() is before
    view.apply(ViewDelta(upserts=(person("d", "c.example"),)))
    assert view.servers() == {"a.example", "b.example", "c.example"}
    view.apply(ViewDelta(upserts=(person("b", "b.example", Membership.LEAVE),)))
    assert view.servers() == {"a.example", "c.example"}
    view.apply(ViewDelta(removed=(NativeId("m", "a"),)))
    assert view.servers() == {"a.example", "c.example"}
    view.apply(ViewDelta(removed=(NativeId("m", "c"), NativeId("m", "d"))))
    assert view.servers() == frozenset()
