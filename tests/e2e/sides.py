"""Servers of one room during a partition, and the check that they agree afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from peers.signed import Signer
from peers.synapse import MatrixUser
from peers.waiting import until


@dataclass(frozen=True)
class Side:
    """One server: who has power there, two more of its people, and how to ask as it."""

    name: str
    mighty: MatrixUser
    first: MatrixUser
    second: MatrixUser
    signer: Signer


@dataclass
class Room:
    """A room in which the mighty of every side may do everything."""

    version: str
    host: Side
    id: str = ""

    def __str__(self) -> str:
        return f"version {self.version} on {self.host.name}"

    async def open(self, sides: list[Side]) -> None:
        self.id = await self.host.mighty.create_room(self.version)
        for side in sides:
            for user in (side.mighty, side.first):
                if user is not self.host.mighty:
                    await user.join(self.id, via=self.host.name)
        # Who is made mighty after the join has a join that cites older power levels than all later acts do.
        mighty = {s.mighty.id: 100 for s in sides if s is not self.host or self.version != "12"}
        await self.levels(self.host.mighty, mighty)

    async def levels(self, by: MatrixUser, users: dict[str, int]) -> None:
        levels = (await by.state(self.id))["m.room.power_levels", ""]["content"]
        content = {**levels, "users": {**levels["users"], **users}}
        await by.set_state(self.id, "m.room.power_levels", content)

    async def act(self, sides: list[Side], turn: int) -> None:
        """Runs the acts of all three sides during a partition. Another side has the earliest clock in each
        turn.
        """
        one, two, three = (sides[(turn + i) % 3] for i in range(3))
        await self.levels(one.mighty, {one.first.id: 10})
        await self.levels(two.mighty, {two.first.id: 20})
        await self.levels(three.mighty, {three.first.id: 30, two.first.id: 40})
        for number, side in enumerate((three, one, two)):
            await side.mighty.set_state(self.id, "m.room.topic", {"topic": f"{side.name} {number}"})
        await two.mighty.ban(self.id, one.first.id)
        await one.first.leave(self.id)
        await one.first.join(self.id)
        await three.mighty.kick(self.id, two.first.id)
        for side in sides:
            await side.second.join(self.id)
        if two is not self.host or self.version != "12":  # the maker of such a room has no level
            await self.levels(two.mighty, {two.mighty.id: 60})
        await self.levels(three.mighty, {one.first.id: 50})
        await one.mighty.set_state(self.id, "m.room.join_rules", {"join_rule": "invite"})
        await two.mighty.set_state(self.id, "m.room.name", {"name": "two"})

    async def agreed(self, sides: list[Side]) -> bool:
        """True if all sides have one state, both now and before a message that they all have."""
        last = await self.host.mighty.say(self.id, "is it over?")
        for side in sides:
            await until(f"{side.name} hears", lambda side=side: _hears(side.mighty, self.id, last), 90)
        states = [await side.mighty.state(self.id) for side in sides]
        now = [{key: event["event_id"] for key, event in state.items()} for state in states]
        before = [
            await sides[number - 1].signer.state_ids(side.name, self.id, last)
            for number, side in enumerate(sides)
        ]
        return all(state == now[0] for state in now) and all(ids == before[0] for ids in before)

    async def agree(self, sides: list[Side]) -> None:
        for side in sides:
            await side.mighty.say(self.id, f"{side.name} is back")
        try:
            await until(f"one state of {self}", lambda: self.agreed(sides), 120)
        except TimeoutError as error:
            states = [await side.mighty.state(self.id) for side in sides]
            error.add_note(f"{self}, of {[side.name for side in sides]}")
            for key in sorted({key for state in states for key in state}):
                said = [state.get(key, {}).get("event_id") for state in states]
                if len(set(said)) > 1:
                    error.add_note(f"{key}: {said}")
            raise


async def _hears(user: MatrixUser, room: str, event_id: str) -> bool:
    got = await user.call("GET", f"/rooms/{quote(room, safe='')}/messages?dir=b&limit=30")
    return any(event["event_id"] == event_id for event in got["chunk"])


async def mighty(room: Room, sides: list[Side]) -> bool:
    """True if each side knows that its own users may act, and which users the others have."""
    for side in sides:
        state = await side.mighty.state(room.id)
        users = state["m.room.power_levels", ""]["content"]["users"]
        there = [state.get(("m.room.member", s.first.id), {}).get("content", {}) for s in sides]
        if sum(users.get(s.mighty.id) == 100 for s in sides) < 2:
            return False
        if any(content.get("membership") != "join" for content in there):
            return False
    return True
