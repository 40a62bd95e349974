"""Ten random partitions between a real Synapse and a Hansa: both go on alone, and agree once they meet again.

``HANSA_SEED`` (default 1) is the first of the ten seeds; a failure names its own and what was done.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

import pytest
from e2e.three_servers import wait_matrix_member
from hansa import Member, Membership, NativeId, SubmitResult
from peers.scripted_hansa import ScriptedHansa
from peers.synapse import MatrixUser, Refusal, Synapse
from peers.tcp_cutter import TcpCutter
from peers.waiting import until

pytestmark = pytest.mark.e2e

FIRST = int(os.environ.get("HANSA_SEED") or 1)
SEEDS = range(FIRST, FIRST + 10)
JULIET, ROMEO, MERCUTIO = "juliet@capulet", "romeo@montague", "mercutio@verona"
Act = Callable[[], Coroutine[Any, Any, bool]]


class Schedule:
    """The acts of one seed in one room. Alice and Juliet are there all the time, and both sides see all their
    messages; the others come, go, and are removed.
    """

    def __init__(self, seed: int, hansa: ScriptedHansa, alice: MatrixUser, bob: MatrixUser) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.hansa, self.alice, self.bob = hansa, alice, bob
        self.version = self.random.choice(["9", "10", "11", "12"])
        self.here = self.random.random() < 0.5
        self.name = f"verona{seed}"
        self.room = ""
        self.done: list[str] = []
        self.words: dict[str, list[str]] = {"alice": [], "juliet": []}

    def __str__(self) -> str:
        side = "here" if self.here else "there"
        return f"HANSA_SEED={self.seed}: version {self.version}, hosted {side}; {' '.join(self.done)}"

    async def open(self) -> None:
        """Opens a room with Alice, Bob and the three local users."""
        hansa, name = self.hansa, self.name
        if self.here:
            made = await hansa.run("matrix", "rooms", "create", f"#{name}", "--version", self.version)
            self.room = made["room"]
            await hansa.run("rooms", "create", f"matrix:#{name}", f"stage:{name}")
        else:
            self.room = await self.alice.create_room(self.version, room_alias_name=name)
            server = self.alice.id.partition(":")[2]
            await hansa.run("rooms", "create", f"matrix:#{name}:{server}", f"stage:{name}")
        for person in (JULIET, ROMEO, MERCUTIO):
            outcome = await hansa.actor.join(name, person, person.partition("@")[0].title())
            assert outcome.refusal is None, outcome
        juliet = hansa.ghost(JULIET)
        if self.here:
            await self.alice.join(self.room, via=hansa.name)
            await hansa.run("matrix", "rooms", "level", self.room, self.alice.id, "60")
            await hansa.run("matrix", "rooms", "level", self.room, juliet, "60")
        else:
            levels = (await self.alice.state(self.room))["m.room.power_levels", ""]["content"]
            users = {**levels["users"], juliet: 60}
            await self.alice.set_state(self.room, "m.room.power_levels", {**levels, "users": users})
        await self.bob.join(self.room)
        await wait_matrix_member(self.alice, self.room, "Juliet")
        await until("both have power", self._equal)

    async def _equal(self) -> bool:
        levels = (await self.alice.state(self.room))["m.room.power_levels", ""]["content"]
        return bool(levels["users"].get(self.hansa.ghost(JULIET)) == 60)

    async def act(self, steps: int) -> None:
        """So many steps, of either side; one that is refused is one of nobody."""
        for _ in range(steps):
            mark, step = self.random.choice(self._steps())
            self.done.append(mark + ("" if await step() else "-"))

    def _steps(self) -> list[tuple[str, Act]]:
        ours = self.random.choice([ROMEO, MERCUTIO])
        ghost, who = self.hansa.ghost(ours), ours[0]
        return [
            ("A:say", self._alice_says),
            ("A:topic", lambda: self._state("m.room.topic", {"topic": self._word()})),
            ("A:name", lambda: self._state("m.room.name", {"name": self._word()})),
            (f"A:kick-{who}", lambda: self._call("kick", {"user_id": ghost})),
            (f"A:ban-{who}", lambda: self._call("ban", {"user_id": ghost})),
            (f"A:unban-{who}", lambda: self._call("unban", {"user_id": ghost})),
            (f"A:level-{who}", lambda: self._level(ghost)),
            ("B:join", lambda: _allowed(self.bob.join(self.room))),
            ("B:leave", lambda: _allowed(self.bob.leave(self.room))),
            ("B:say", lambda: _allowed(self.bob.say(self.room, self._word()))),
            ("J:say", self._juliet_says),
            ("J:say", self._juliet_says),
            ("J:topic", lambda: self._ours(self.hansa.actor.set_topic(self.name, JULIET, self._word()))),
            ("J:name", lambda: self._ours(self.hansa.actor.set_name(self.name, JULIET, self._word()))),
            ("J:kick-B", lambda: self._put_out(Membership.LEAVE)),
            ("J:ban-B", lambda: self._put_out(Membership.BAN)),
            (f"{who}:join", lambda: self._ours(self.hansa.actor.join(self.name, ours, who))),
            (f"{who}:leave", lambda: self._ours(self.hansa.actor.leave(self.name, ours))),
            (f"{who}:say", lambda: self._ours(self.hansa.actor.say(self.name, ours, self._word()))),
        ]

    def _word(self) -> str:
        return f"word {self.random.getrandbits(40):x}"

    async def _alice_says(self) -> bool:
        word = self._word()
        await self.alice.say(self.room, word)
        self.words["alice"].append(word)
        return True

    async def _juliet_says(self) -> bool:
        word = self._word()
        assert await self._ours(self.hansa.actor.say(self.name, JULIET, word))
        self.words["juliet"].append(word)
        return True

    async def _state(self, kind: str, content: Any) -> bool:
        return await _allowed(self.alice.set_state(self.room, kind, content))

    async def _level(self, ghost: str) -> bool:
        levels = (await self.alice.state(self.room))["m.room.power_levels", ""]["content"]
        users = {**levels["users"], ghost: self.random.choice([0, 10, 40])}
        return await self._state("m.room.power_levels", {**levels, "users": users})

    async def _call(self, action: str, body: Any) -> bool:
        return await _allowed(self.alice.call("POST", f"/rooms/{quote(self.room, safe='')}/{action}", body))

    async def _put_out(self, membership: Membership) -> bool:
        content = Member(user=NativeId("matrix", self.bob.id), membership=membership)
        return await self._ours(self.hansa.actor.do(self.name, JULIET, content))

    @staticmethod
    async def _ours(doing: Coroutine[Any, Any, SubmitResult]) -> bool:
        return (await doing).refusal is None

    async def agree(self, synapse: Synapse) -> None:
        """Both have the same state, and everything that Alice and Juliet said, each once."""
        await self._juliet_says()
        heard = self.words["juliet"][-1]
        await until("Alice hears Juliet", lambda: _says(self.alice, self.room, heard), 60)
        ours, theirs = synapse.signer(), self.hansa.hansa.signer()

        async def one_state() -> bool:
            word = self._word()
            last = await self.alice.say(self.room, word)
            self.words["alice"].append(word)
            await self.hansa.actor.until_shown(
                self.name, lambda _: word in self.hansa.actor.texts(self.name), 60
            )
            mine = await ours.state_ids(self.hansa.name, self.room, last)
            return mine == await theirs.state_ids(synapse.name, self.room, last)

        await until("both have one state", one_state, 60)
        there = Counter(await self.alice.bodies(self.room))
        here = Counter(self.hansa.actor.texts(self.name))
        assert [w for w in self.words["juliet"] if there[w] != 1] == []
        assert [w for w in self.words["alice"] if here[w] != 1] == []
        state = await self.alice.state(self.room)
        shown = await self.hansa.run("rooms", "show", f"matrix:{self.room}")
        for kind, what in (("m.room.topic", "topic"), ("m.room.name", "name")):
            said = state.get((kind, ""))
            assert (shown[what] or "") == (said["content"][what] if said else "")
        listed = {p["user"]: p["membership"] for p in shown["people"]}
        for user, home in (
            (self.alice.id, f"matrix:{self.alice.id}"),
            (self.bob.id, f"matrix:{self.bob.id}"),
            *((self.hansa.ghost(p), f"stage:{p}") for p in (JULIET, ROMEO, MERCUTIO)),
        ):
            membership = state["m.room.member", user]["content"]["membership"]
            assert listed.get(home, "leave") == membership, user


async def _allowed(doing: Coroutine[Any, Any, Any]) -> bool:
    try:
        await doing
    except Refusal:
        return False
    return True


async def _says(user: MatrixUser, room: str, text: str) -> bool:
    return text in await user.bodies(room)


async def test_ten_random_partitions_heal(ca, tmp_path, stage, local_user):
    to_synapse, to_hansa = TcpCutter(), TcpCutter()
    synapse = Synapse(tmp_path / "synapse", ca, seen_at=to_synapse.port)
    try:
        await synapse.start()
        await to_synapse.lay(synapse.fed_port)
        hansa = await stage(seen_at=to_hansa.port)
        await to_hansa.lay(hansa.hansa.port)
        alice, bob = await local_user(synapse, "alice"), await local_user(synapse, "bob")
        refused = done = 0
        for seed in SEEDS:
            schedule = Schedule(seed, hansa, alice, bob)
            try:
                await schedule.open()
                await schedule.act(4)
                for cable in (to_synapse, to_hansa):
                    await cable.cut()
                schedule.done.append("|")
                await schedule.act(14)
                for cable in (to_synapse, to_hansa):
                    await cable.mend()
                schedule.done.append("|")
                await schedule.agree(synapse)
            except BaseException as error:
                error.add_note(str(schedule))
                raise
            print(schedule)
            refused += sum(one.endswith("-") for one in schedule.done)
            done += sum(not one.endswith(("-", "|")) for one in schedule.done)
        assert done > refused
    finally:
        synapse.stop()
        for cable in (to_synapse, to_hansa):
            await cable.cut()
