"""Logins of people with accounts of their own: in a chat, who may, what is kept, and what is never seen."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

import pytest
from core.logins_rig import ANN, BEN, KEY, ON, SECRET, People, logins_rig
from hansa import AccountLogin, Action, Login, NativeId, PeerConnect, Reason, Verdict
from hansa.bus.policy_dispatch import InstalledPolicy
from hansa.environment import Environment, SystemRandom
from hansa.logins.flows import FLOW_TTL_S, MAX_OF_SERVER, LoginFlows, LoginRefused
from hansa.logins.secret_box import SecretBox, read_or_make_key
from hansa.model.errors import ConfigError
from hansa.store.base import Conflict
from hansa.store.memory import MemoryStore
from hansa.testing import Actor, ManualClock, until


async def log_in(left: People, person: NativeId = ANN, account: str = "annette", secret: str = SECRET) -> str:
    """A person logs in by the chat with the bridge; the last answer."""
    answer = ""
    for text in ("login right", account, secret):
        answer = await left.ctx.answer_command(person.id, text) or ""
    return answer


async def test_a_person_logs_in_by_the_chat_and_out_again():
    clock = ManualClock()
    async with logins_rig(clock=clock) as (app, left, right):
        asked = await left.ctx.answer_command(ANN.id, "login right")
        assert asked == "An account of right.example. Write this here: your account."
        asked = await left.ctx.answer_command(ANN.id, "Annette")
        assert asked is not None and asked.startswith("Write this here: its password.")
        done = await left.ctx.answer_command(ANN.id, SECRET)
        assert done == "You are logged in to right as annette."
        await until(lambda: ANN in right.logins)
        assert right.logins[ANN] == AccountLogin(person=ANN, account="annette", secret=SECRET)
        clock.advance(100)
        again = await left.ctx.answer_command(ANN.id, "login right")
        assert again == "You are logged in as annette. Write !hansa logout right first."
        out = await left.ctx.answer_command(ANN.id, "logout right")
        assert out == "You are logged out of right. The password of annette is removed here."
        assert not right.logins
        assert await app.core.scan("login", limit=5) == await app.core.scan("logged_in", limit=5) == []
        out = await left.ctx.answer_command(ANN.id, "logout right")
        assert out == "You are not logged in to right."


async def test_a_wrong_password_ends_the_login():
    async with logins_rig() as (app, left, right):
        assert await log_in(left, secret="sesame") == "The account or its password is wrong."
        assert await app.core.scan("login", limit=5) == []
        assert app.logins.flows.find(ANN) is None
        assert not right.logins


async def test_an_account_has_one_person():
    async with logins_rig() as (_, left, right):
        assert await log_in(left) == "You are logged in to right as annette."
        assert await log_in(left, BEN) == "annette belongs to another person here already."
        await until(lambda: ANN in right.logins)
        assert set(right.logins) == {ANN}


async def test_two_at_once_do_not_both_get_an_account():
    async with logins_rig() as (app, left, right):
        right.gate = asyncio.Event()
        both = [asyncio.ensure_future(log_in(left, person)) for person in (ANN, BEN)]
        await until(lambda: len(right.tried) == 2)
        right.gate.set()
        answers = sorted(await asyncio.gather(*both))
        assert answers == [
            "You are logged in to right as annette.",
            "annette belongs to another person here already.",
        ]
        assert (
            len(await app.core.scan("login", limit=5)) == len(await app.core.scan("logged_in", limit=5)) == 1
        )


async def test_a_login_that_was_ended_meanwhile_is_not_stored():
    async with logins_rig() as (app, left, right):
        right.gate = asyncio.Event()
        first = asyncio.ensure_future(log_in(left))
        await until(lambda: right.tried)
        assert (
            await left.ctx.answer_command(ANN.id, "!hansa logout right") == "You are not logged in to right."
        )
        right.gate.set()
        assert (await first).startswith("The login has ended")
        assert await app.core.scan("login", limit=5) == []


async def test_a_restart_brings_the_logins_back():
    store = MemoryStore()
    async with logins_rig(store=store) as (_, left, _right):
        await log_in(left)
    async with logins_rig(store=store) as (_, left, right):
        await until(lambda: ANN in right.logins)
        assert right.logins[ANN].secret == SECRET
    # With another key, nobody speaks by an account whose secret is not known.
    async with logins_rig(store=store, login_key=KEY[::-1]) as (_, left, right):
        await until(lambda: right.ctx.delivered_seq("b") >= 0)
        assert await right.ctx.list_logins() == []
    # Where the operator allows it no more, nobody does either, and people can still remove the secret.
    async with logins_rig(store=store, commands=replace(ON, logins=frozenset({"none"}))) as (_, left, right):
        assert await right.ctx.list_logins() == []
        out = await left.ctx.answer_command(ANN.id, "logout right")
        assert out == "You are logged out of right. The password of annette is removed here."


async def test_the_end_of_a_person_ends_their_logins():
    async with logins_rig() as (app, left, right):
        await log_in(left)
        await until(lambda: ANN in right.logins)
        await left.ctx.end_logins_of(ANN.id)
        assert not right.logins
        assert await app.core.scan("login", limit=5) == await app.core.scan("logged_in", limit=5) == []


async def test_an_account_that_is_refused_later_ends_the_login_and_the_person_is_told():
    async with logins_rig() as (app, left, right):
        await left.join("a", ANN.id, "Ann")
        await log_in(left)
        await until(lambda: ANN in right.logins)
        await right.ctx.end_login(ANN, "the password was changed\n")
        assert not right.logins
        assert await app.core.scan("login", limit=5) == []
        ((user, text),) = left.told
        assert user == ANN.id
        assert text.startswith("Your login to right as annette has ended: the password was changed")


async def test_nobody_logs_in_where_the_operator_or_the_network_does_not_let_them():
    cases: list[tuple[dict[str, Any], str]] = [
        ({"login_key": b""}, "Nobody can log in to right here."),
        ({"commands": replace(ON, logins=frozenset({"left"}))}, "Nobody can log in to right here."),
    ]
    for options, text in cases:
        async with logins_rig(**options) as (_, left, _right):
            assert await left.ctx.answer_command(ANN.id, "login right") == text
    async with logins_rig() as (_, left, right):
        assert await left.ctx.answer_command(ANN.id, "login left") == "Nobody can log in to left here."
    # Who takes a name of this network would speak as the account: nothing proves who they are.
    async with logins_rig(people=Actor) as (_, left, right):
        answer = await left.ctx.answer_command(ANN.id, "login right")
        assert answer == "left does not prove who you are."
    async with logins_rig() as (_, left, _right):
        answer = await left.ctx.answer_command("nick.ann@x", "login right")
        assert answer == "left does not prove who you are."
        assert not right.tried


async def test_a_chat_that_is_not_private_gets_a_link_and_reads_no_secret():
    async with logins_rig() as (_, left, right):
        left.private = False
        answer = await left.ctx.answer_command(ANN.id, "login right")
        assert answer is not None and "https://chat.example/_hansa/login/" in answer
        answer = await left.ctx.answer_command(ANN.id, SECRET)
        assert answer == "Answer in the form that the link opens. Your text was not read."
        assert not right.tried
    async with logins_rig(media=None) as (_, left, right):
        left.private = False
        answer = await left.ctx.answer_command(ANN.id, "login right")
        assert answer is not None and "public_url is not set" in answer


async def test_a_link_is_given_in_a_room_only_to_who_is_alone_with_the_bridge():
    async with logins_rig() as (app, left, _):
        await left.join("a", ANN.id, "Ann")
        await left.say("a", ANN.id, "!hansa login right")
        await until(lambda: left.told)
        assert left.told.pop()[1] == "Write this to the bridge itself, in a chat with nobody else."
        await app.link_room(["left:alone"], create=True)
        await left.join("alone", ANN.id, "Ann")
        await left.join("alone", "bridge@x")
        await left.say("alone", ANN.id, "!hansa login right")
        await until(lambda: left.told)
        assert "https://chat.example/_hansa/login/" in left.told.pop()[1]
        await left.join("alone", BEN.id)
        await left.say("alone", ANN.id, "!hansa login right")
        await until(lambda: left.told)
        assert left.told.pop()[1] == "Write this to the bridge itself, in a chat with nobody else."


async def test_a_password_that_comes_late_is_not_read_as_anything_else():
    clock, asked = ManualClock(), []

    class Watcher:
        async def check(self, crossing: Any) -> Verdict | None:
            asked.append(crossing)
            return None

    async with logins_rig(clock=clock) as (app, left, right):
        app.decisions.replace([InstalledPolicy(name="w", policy=Watcher())])
        await left.ctx.answer_command(ANN.id, "login right")
        await left.ctx.answer_command(ANN.id, "annette")
        clock.advance(FLOW_TTL_S + 1)
        asked.clear()
        answer = await left.ctx.answer_command(ANN.id, SECRET)
        assert answer == "The login has ended. Begin again with !hansa login NETWORK."
        assert not asked and not right.tried
        answer = await left.ctx.answer_command(ANN.id, "help")
        assert answer is not None and "login right" in answer


async def test_policies_judge_a_login_and_see_no_secret():
    asked: list[Any] = []
    denied: list[type] = []

    class Judge:
        async def check(self, crossing: Any) -> Verdict | None:
            asked.append(crossing)
            if type(crossing) in denied and getattr(crossing, "account", "known"):
                return Verdict(Action.DENY, (Reason(code="NO", policy="p", rule="r", text="no logins"),))
            return None

    class Broken:
        async def check(self, crossing: Any) -> Verdict | None:
            if isinstance(crossing, Login):
                raise RuntimeError("broken")
            return None

    clock = ManualClock()
    store = MemoryStore()
    async with logins_rig(clock=clock, store=store) as (app, left, right):
        app.decisions.replace([InstalledPolicy(name="j", policy=Judge())])
        denied[:] = [PeerConnect]
        answer = await left.ctx.answer_command(ANN.id, "login right")
        assert answer is not None and "no logins" in answer
        denied[:] = [Login]  # with an account: it is asked about again once that is known
        clock.advance(100)
        assert "no logins" in await log_in(left)
        assert right.tried and await app.core.scan("login", limit=5) == []
        denied.clear()
        asked.clear()
        clock.advance(100)
        assert await log_in(left) == "You are logged in to right as annette."
        judged = [one for one in asked if isinstance(one, PeerConnect | Login)]
        assert [getattr(one, "account", None) for one in judged] == [None, "", None, "annette"]
        assert SECRET not in repr(asked)
        denied[:] = [Login]
        assert await right.ctx.list_logins() == []
        denied.clear()
        assert [one.account for one in await right.ctx.list_logins()] == ["annette"]
        app.decisions.replace([InstalledPolicy(name="b", policy=Broken())])
        assert await right.ctx.list_logins() == []
        clock.advance(100)
        answer = await left.ctx.answer_command(BEN.id, "login right")
        assert answer is not None and "account" not in answer


async def test_begun_logins_are_bounded_by_person_and_server():
    clock = ManualClock()
    async with logins_rig(clock=clock) as (_, left, _right):
        answers = []
        for _ in range(4):
            clock.advance(10)
            answers.append(await left.ctx.answer_command(ANN.id, "!hansa login right"))
        assert answers[3] == "You have begun too many logins. Try again in a few minutes."
        assert answers[2] != answers[3]
    flows = LoginFlows(Environment(clock, SystemRandom()))
    flow: Any = None
    for number in range(MAX_OF_SERVER):
        flows.add(NativeId("left", f"{number}@x"), "right", "x", flow)
    with pytest.raises(LoginRefused):
        flows.add(ANN, "right", "x", flow)
    flows.add(NativeId("left", "ann@y"), "right", "y", flow)


async def test_a_secret_is_in_no_row_no_log_no_repr_and_no_metric(caplog):
    caplog.set_level(logging.DEBUG)
    async with logins_rig() as (app, left, right):
        await left.join("a", ANN.id, "Ann")
        await log_in(left)
        await until(lambda: ANN in right.logins)
        failed = await log_in(left, BEN, "broken")
        assert (
            failed == "The login failed by a fault of this server. Its operator finds the reason in the log."
        )
        rows = [
            row
            for name in ("login", "logged_in", "event", "decision", "command", "told")
            for row in await app.core.scan(name, limit=1000)
        ]
        assert rows
        for text in (
            repr(rows),
            caplog.text,
            repr(right.logins),
            repr(app.counters),
            repr(app.setup),
            repr(KEY),
        ):
            assert SECRET not in text
            assert SECRET.encode().hex() not in text
        assert all(SECRET.encode() not in row.body for row in rows)
        assert "RuntimeError" in caplog.text
        opened = app.logins.flows.add(BEN, "right", "x", right.begin_login(BEN))
        opened.answers["password"] = SECRET
        app.logins.flows.make_token(opened)
        assert SECRET not in repr(opened)
        assert opened.form_key not in repr(opened)


def test_a_secret_opens_with_its_key_and_in_its_row_alone():
    box = SecretBox(KEY, SystemRandom())
    sealed = box.encrypt(SECRET, "right", "annette", "left", "ann@x")
    assert box.decrypt(sealed, "right", "annette", "left", "ann@x") == SECRET
    assert box.decrypt(sealed, "right", "annette", "left", "ben@x") is None
    assert box.decrypt(sealed[:-1], "right", "annette", "left", "ann@x") is None
    assert box.decrypt(b"", "right", "annette", "left", "ann@x") is None
    other = SecretBox(KEY[::-1], SystemRandom())
    assert other.decrypt(sealed, "right", "annette", "left", "ann@x") is None
    assert box.encrypt(SECRET, "a") != box.encrypt(SECRET, "a")


def test_the_key_is_made_once_and_for_its_owner_alone(tmp_path):
    path = tmp_path / "logins.key"
    key = read_or_make_key(path, SystemRandom())
    assert len(key) == 32 and path.stat().st_mode & 0o777 == 0o600
    assert read_or_make_key(path, SystemRandom()) == key
    path.write_text("short\n")
    with pytest.raises(ConfigError, match="not a key"):
        read_or_make_key(path, SystemRandom())


async def test_a_row_of_a_login_meets_another_writer():
    async with logins_rig() as (app, left, _):
        await log_in(left)
        rows = app.logins.rows
        with pytest.raises(Conflict):
            await rows.insert("right", AccountLogin(person=BEN, account="annette"))
        with pytest.raises(Conflict):
            await rows.insert("right", AccountLogin(person=ANN, account="other"))
