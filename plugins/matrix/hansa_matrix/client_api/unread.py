"""How much of a room somebody has not read. SPEC: client-server API, "Receiving notifications"."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hansa import Membership, NetworkContext

from hansa_matrix.client_api.data import UserData
from hansa_matrix.client_api.push import PushRules
from hansa_matrix.client_api.visibility import without
from hansa_matrix.generations import Generations
from hansa_matrix.proto.push_rules import Situation, judge
from hansa_matrix.proto.state_keys import CREATE_KEY, MEMBER, POWER_LEVELS_KEY
from hansa_matrix.room.events import Stored
from hansa_matrix.room.news import News
from hansa_matrix.room.room import MatrixRoom
from hansa_matrix.room.signals import PRIVATE, RoomSignals

_REMEMBERED = 20_000
#: More is not counted: a client shows "99+" long before.
_MOST = 500


@dataclass(frozen=True, slots=True)
class Counts:
    """Events up to ``upto`` that are after the one read last."""

    read: int = 0
    upto: int = 0
    notifications: int = 0
    highlights: int = 0

    def shown(self) -> dict[str, int]:
        """As a sync has it."""
        return {"notification_count": self.notifications, "highlight_count": self.highlights}


class Unread:
    """Counted on from where it was counted last."""

    def __init__(
        self, ctx: NetworkContext, news: News, data: UserData, rules: PushRules, signals: RoomSignals
    ) -> None:
        self._ctx = ctx
        self._news = news
        self._data = data
        self._rules = rules
        self._signals = signals
        self._positions: Generations[str, int] = Generations(_REMEMBERED)
        self._counts: Generations[tuple[str, str], Counts] = Generations(_REMEMBERED)

    def forget(self, user: str) -> None:
        """Somebody has other rules now, or ignores others."""
        self._counts.revoke(user)

    async def of(self, user: str, room: MatrixRoom, upto: int) -> Counts:
        """What somebody in a room has not read."""
        key, began = (user, room.room_id), self._counts.began()
        read = await self._read(user, room.room_id)
        known = self._counts.get(key) or Counts()
        if known.read != read or known.upto > upto:
            known = Counts(read=read, upto=max(read, await self._entered(user, room)))
        items = await self._news.last(room.room_id, upto + 1, _MOST, since=known.upto)
        if items and known.notifications < _MOST:
            loaded = await room.readable([item.ref for item in items])
            events = [loaded[item.ref] for item in items if item.ref in loaded]
            known = await self._counted(user, room, events, known)
        known = replace(known, upto=max(known.upto, items[-1].position if items else known.upto))
        self._counts.put(key, user, known, began)
        return known

    async def _read(self, user: str, room_id: str) -> int:
        """The position of what was read last."""
        best = 0
        for (_, thread), (event_id, _) in (await self._signals.receipts(room_id, user)).items():
            if thread.removeprefix(PRIVATE) in {"", "main"}:
                best = max(best, await self._position(room_id, event_id))
        return best

    async def _position(self, room_id: str, event_id: str) -> int:
        """Where an event is in the stream, which it keeps."""
        known, began = self._positions.get(event_id), self._positions.began()
        if known is None:
            known = await self._news.of(room_id, event_id)
            if known:
                self._positions.put(event_id, room_id, known, began)
        return known

    async def _entered(self, user: str, room: MatrixRoom) -> int:
        """Nobody has to read what was there before them."""
        state = await room.state()
        event_id = state.get((MEMBER, user))
        return await self._position(room.room_id, event_id) if event_id is not None else 0

    async def _counted(self, user: str, room: MatrixRoom, events: list[Stored], known: Counts) -> Counts:
        rules = await self._rules.of(user)
        state = await room.events_of(await room.state(), [POWER_LEVELS_KEY, (MEMBER, user)])
        member, view = state.get((MEMBER, user)), self._ctx.view(room.room_id)
        name = member.content.get("displayname") if member is not None else None
        situation = Situation(
            user=user,
            name=name if isinstance(name, str) else "",
            members=sum(1 for p in view.people.values() if p.membership is Membership.JOIN) if view else 0,
            levels=room.levels(state[CREATE_KEY], state.get(POWER_LEVELS_KEY), room.version),
        )
        notify = highlight = 0
        for one in without(events, await self._data.ignored(user)):
            if one.pdu.sender == user or not one.shown:
                continue
            verdict = judge(rules, one.pdu, situation)
            notify += verdict.notify
            highlight += verdict.highlight
        return replace(
            known, notifications=known.notifications + notify, highlights=known.highlights + highlight
        )
