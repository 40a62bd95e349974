"""The question whether an XMPP user exists, as far as their server answers it."""

from __future__ import annotations

import asyncio

import pytest
from hansa import Action, ProfileQuery, Reason, Verdict
from hansa.store.memory import MemoryDisk
from hansa_xmpp import user_existence
from xmpp.xmpp_server import GW, xmpp_server

ASKED = "{http://jabber.org/protocol/disco#info}query"


def _asked(home) -> list[str]:
    return [e.get("to") for e in home.link.sent if e.find(ASKED) is not None and e.get("type") == "get"]


@pytest.mark.parametrize(
    ("user", "absent", "asked"),
    [
        ("juliet@x.example", False, True),
        ("ghost@x.example", True, True),
        ("silent@x.example", False, True),
        ("x.example", True, False),  # a server
        ("juliet@x.example/balcony", True, False),  # no bare JID
        ("Juliet@X.example", True, False),  # the same person, written otherwise
        ("", True, False),
        ("a@b@c", True, False),
        (f"alice%y@{GW}", True, False),  # one of our puppets
    ],
)
async def test_who_is_nobody(user, absent, asked, monkeypatch):
    monkeypatch.setattr(user_existence, "QUERY_TIMEOUT_S", 0.05)
    async with xmpp_server(MemoryDisk()) as home:
        home.link.absent, home.link.silent = {"ghost@x.example"}, {"silent@x.example"}
        network = home.networks[-1]
        assert await network.is_nonexistent_user(user) is absent
        assert await network.is_nonexistent_user(user) is absent
        assert _asked(home) == ([user] if asked else [])  # and remembered


async def test_an_answer_of_somebody_else_is_none(monkeypatch):
    monkeypatch.setattr(user_existence, "QUERY_TIMEOUT_S", 0.2)
    async with xmpp_server(MemoryDisk()) as home:
        home.link.silent = {"juliet@x.example"}
        network = home.networks[-1]
        task = asyncio.ensure_future(network.is_nonexistent_user("juliet@x.example"))
        await home.link.until(lambda: _asked(home))
        (question,) = [e for e in home.link.sent if e.find(ASKED) is not None]
        for sender in ("mallory@x.example", "juliet@evil.example", "juliet@x.example/phone", "x.example"):
            home.link.receive(
                f"<iq from='{sender}' to='{GW}' id='{question.get('id')}' type='error'><error type='cancel'>"
                "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
            )
        assert await task is False


async def test_few_are_asked_at_a_time(monkeypatch):
    monkeypatch.setattr(user_existence, "QUERY_TIMEOUT_S", 0.05)
    async with xmpp_server(MemoryDisk()) as home:
        people = [f"p{number}@x.example" for number in range(20)]
        home.link.silent = set(people)
        assert not any(await asyncio.gather(*(home.networks[-1].is_nonexistent_user(one) for one in people)))
        assert len(_asked(home)) == user_existence.MAX_QUERIES_OF_DOMAIN
        assert not home.networks[-1]._ingress.service.existence_queries._of_domain


async def test_a_server_that_may_not_be_asked_is_not():
    class Policy:
        async def check(self, crossing):
            if isinstance(crossing, ProfileQuery):
                return Verdict(Action.DENY, (Reason(code="NO", policy="p", rule="r", text="no"),))
            return None

    async with xmpp_server(MemoryDisk(), policy=Policy()) as home:
        home.link.absent = {"ghost@x.example"}
        assert await home.networks[-1].is_nonexistent_user("ghost@x.example") is False
        assert _asked(home) == []
