"""The contexts that plugins are given, bound to the running whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from hansa.api.contracts import (
    CannotOpenRoom,
    KnowsPeople,
    LinksRooms,
    MakesGhosts,
    NetworkStatus,
    PersonMatch,
    RoomMatch,
)
from hansa.api.logins import AccountLogin
from hansa.api.media import MediaService
from hansa.environment import Clock, Http, Random
from hansa.media.network_media import NetworkMedia
from hansa.model.content import Kind
from hansa.model.crossing import Crossing, DirectoryQuery
from hansa.model.ephemeral import EphemeralEvent, PersonPresence
from hansa.model.errors import LocalProtocolError
from hansa.model.events import (
    Direction,
    EarlierHistory,
    Event,
    HistoryPage,
    Link,
    Refusal,
    RefusalCode,
    Submission,
    SubmitResult,
    refusal_by,
)
from hansa.model.ref import NativeId
from hansa.model.verdict import Verdict
from hansa.model.view import RoomView, ViewDelta, without_ranks
from hansa.pacing.store_retry import Work
from hansa.store.base import Insert, Row, Schema, ScopedStore
from hansa.store.blobs import ScopedBlobs
from hansa.store.conflict_retry import again_on_conflict

if TYPE_CHECKING:
    from hansa.host.plugin_host import PluginHost
    from hansa.host.supervisor import NetworkSupervisor

#: Seconds that a network has to search for people.
_SEARCH_TIMEOUT_S = 5.0
#: People of other networks whose names here are remembered.
_MAX_GHOSTS = 20_000


class BaseContext:
    """The context of every plugin: see ``hansa.PluginContext``. ``scope`` is where the store keeps its
    rows.
    """

    def __init__(self, app: PluginHost, plugin_id: str, config: Any, *, scope: str = "") -> None:
        self._app = app
        self.id = plugin_id
        self.config = config
        self.log = logging.getLogger(f"hansa.plugin.{plugin_id}")
        self.clock: Clock = app.seams.clock
        self.random: Random = app.seams.random
        self.http: Http = app.http
        self.store = ScopedStore(app.store, scope or plugin_id)
        self.blobs = ScopedBlobs(app.setup.blobs, scope or plugin_id)
        self.schemas: list[Schema] = []

    def declare(self, schema: Schema) -> None:
        """See ``hansa.PluginContext.declare``."""
        self.schemas.append(schema)

    def spawn(self, work: Work, name: str) -> asyncio.Task[None]:
        """See ``hansa.PluginContext.spawn``."""
        return self._app.spawn(work, f"{self.id}: {name}")

    def count(self, name: str, **labels: str) -> None:
        """See ``hansa.PluginContext.count``."""
        self._app.count(name, plugin=self.id, **labels)

    def set_gauge(self, name: str, value: float, **labels: str) -> None:
        """See ``hansa.PluginContext.set_gauge``."""
        self._app.gauges[name, tuple(sorted({"plugin": self.id, **labels}.items()))] = value

    def report_progress(self, work: str, done: int, total: int = 0) -> None:
        """See ``hansa.PluginContext.report_progress``."""
        self._app.work.pop((self.id, work), None)
        if not total or done < total:
            self._app.work[self.id, work] = (done, total)


class NetworkContextImpl(BaseContext):
    """The context of a network: see ``hansa.NetworkContext``."""

    def __init__(self, app: PluginHost, runner: NetworkSupervisor, config: Any) -> None:
        super().__init__(app, runner.id, config)
        self.media: MediaService = NetworkMedia(app.media, runner.id)
        self._runner = runner
        self._ghosts: dict[str, NativeId] = {}
        self._known: dict[NativeId, str] = {}

    def _to_native_id(self, native: str) -> NativeId:
        return NativeId(self.id, native)

    def spawn(self, work: Work, name: str) -> asyncio.Task[None]:
        """See ``hansa.PluginContext.spawn``."""
        return self._runner.spawn(work, name)

    async def submit(
        self, items: Sequence[Submission], *, receipt: Insert | None = None
    ) -> list[SubmitResult]:
        """See ``hansa.NetworkContext.submit``."""
        owned = self.store.with_scope(receipt) if receipt is not None else None
        assert owned is None or isinstance(owned, Insert)
        return await self._app.pipeline.submit(self.id, items, owned)

    async def check(self, crossing: Crossing) -> Verdict:
        """See ``hansa.NetworkContext.check``."""
        return await self._app.decisions.judge_and_store(crossing)

    @property
    def has_policies(self) -> bool:
        """See ``hansa.NetworkContext.has_policies``."""
        return bool(self._app.decisions.policies)

    @property
    def policy_generation(self) -> int:
        """See ``hansa.NetworkContext.policy_generation``."""
        return self._app.decisions.generation

    def get_link(self, native: str) -> Link | None:
        """See ``hansa.NetworkContext.get_link``."""
        return self._app.rooms.link(self._to_native_id(native))

    def list_links(self) -> Sequence[Link]:
        """See ``hansa.NetworkContext.list_links``."""
        return self._app.rooms.links(self.id)

    async def open_link(
        self,
        native: str,
        *,
        hosted: bool = False,
        authority: bool = False,
        direction: Direction = Direction.BOTH,
        view: ViewDelta | None = None,
    ) -> Link:
        """See ``hansa.NetworkContext.open_link``."""
        link = await self._app.rooms.open_link(
            self._to_native_id(native), hosted=hosted, authority=authority, direction=direction, view=view
        )
        await self._app.start_consumer(link)
        return link

    async def supersede_room(self, native: str, by: str, view: ViewDelta) -> None:
        """See ``hansa.NetworkContext.supersede_room``."""
        await self._app.rooms.supersede(self._to_native_id(native), self._to_native_id(by), view)

    async def close_link(self, native: str) -> None:
        """See ``hansa.NetworkContext.close_link``."""
        await self._app.stop_consuming(self._to_native_id(native))
        await self._app.rooms.close_link(self._to_native_id(native))

    def get_view(self, native: str) -> RoomView | None:
        """See ``hansa.NetworkContext.get_view``."""
        link = self.get_link(native)
        return self._app.rooms.room_of(link.native).view if link else None

    async def get_judged_view(self, native: str) -> RoomView | None:
        """See ``hansa.NetworkContext.get_judged_view``."""
        link = self.get_link(native)
        if link is None:
            return None
        room = self._app.rooms.room_of(link.native)
        await self._app.present.settle(room)
        return room.view

    def set_suspected_servers(self, native: str, servers: frozenset[str]) -> None:
        """See ``hansa.NetworkContext.set_suspected_servers``."""
        if (view := self.get_view(native)) is not None:
            view.suspect(self.id, servers)

    async def reconcile_view(self, native: str, change: ViewDelta) -> None:
        """See ``hansa.NetworkContext.reconcile_view``."""
        room = self._app.rooms.room_of(self._to_native_id(native))

        async def judged() -> ViewDelta:
            authority = room.authority
            is_guest = authority is not None and authority.native.network != self.id
            return without_ranks(change, room.view) if is_guest else change

        await self._app.pipeline.correct(room.id, judged)

    async def read_history(
        self, native: str, *, limit: int, since: int = 0, upto_seq: int | None = None
    ) -> list[Event]:
        """See ``hansa.NetworkContext.read_history``."""
        found: list[Event] = []
        while len(found) < limit:
            page = await self._read_page(
                native, None, limit=limit - len(found), since=since, upto_seq=upto_seq
            )
            found = [*page.events, *found]
            if page.next_seq is None:
                break
            upto_seq = page.next_seq
        return found

    async def read_history_for(
        self,
        native: str,
        user: NativeId,
        *,
        limit: int,
        since: int = 0,
        until: int | None = None,
        after_seq: int | None = None,
        upto_seq: int | None = None,
    ) -> HistoryPage:
        """See ``hansa.NetworkContext.read_history_for``."""
        return await self._read_page(
            native, user, limit=limit, since=since, until=until, after_seq=after_seq, upto_seq=upto_seq
        )

    async def _read_page(self, native: str, user: NativeId | None, **bounds: Any) -> HistoryPage:
        room = self._app.rooms.room_of(self._to_native_id(native))
        link = room.links[str(self._to_native_id(native))]
        return await self._app.history.read(room, link, user, **bounds)

    async def read_earlier_for(
        self, native: str, user: NativeId, before: str = "", *, limit: int, ask_others: bool = True
    ) -> EarlierHistory | None:
        """See ``hansa.NetworkContext.read_earlier_for``."""
        room = self._app.rooms.room_of(self._to_native_id(native))
        link = room.links[str(self._to_native_id(native))]
        return await self._app.earlier.read(room, link, user, before, limit=limit, ask_others=ask_others)

    async def was_joined(self, native: str, user: NativeId, seq: int) -> bool:
        """See ``hansa.NetworkContext.was_joined``."""
        room = self._app.rooms.room_of(self._to_native_id(native))
        return await self._app.history.log.was_joined(room, user, seq)

    def delivered_seq(self, native: str) -> int:
        """See ``hansa.NetworkContext.delivered_seq``."""
        consumer = self._app.consumers.get(str(self._to_native_id(native)))
        return consumer.position if consumer else 0

    def confirm_sent(self, native: str, seq: int) -> None:
        """See ``hansa.NetworkContext.confirm_sent``."""
        consumer = self._app.consumers.get(str(self._to_native_id(native)))
        if consumer is not None:
            consumer.confirm_sent(seq)

    async def open_address(self, network: str, address: str, native: str) -> Link:
        """See ``hansa.NetworkContext.open_address``."""
        other = self._app.runners.get(network)
        instance = other.network if other else None
        if not isinstance(instance, LinksRooms):
            refusal = Refusal(code=RefusalCode.NOT_FOUND, text=f"no network {network} to look on")
            raise CannotOpenRoom(refusal)
        server = self._app.pipeline.server_of(network, address)
        asked = DirectoryQuery(network=network, server=server, address=address, outbound=True)
        verdict = await self.check(asked)
        if not verdict.allowed:
            raise CannotOpenRoom(refusal_by(verdict))
        opened = await instance.open_room(address, create=False)
        link = await self._app.link_opened(opened, None)
        made = await self._app.rooms.open_link(self._to_native_id(native), room=link.room, hosted=True)
        await self._app.start_consumer(made)
        return made

    async def answer_command(self, user: str, text: str) -> str | None:
        """See ``hansa.NetworkContext.answer_command``."""
        return await self._app.commands.answer_direct(self._to_native_id(user), text)

    async def list_logins(self) -> list[AccountLogin]:
        """See ``hansa.NetworkContext.list_logins``."""
        return await self._app.logins.list_logins(self.id)

    async def end_login(self, person: NativeId, reason: str) -> None:
        """See ``hansa.NetworkContext.end_login``."""
        await self._app.logins.end_refused(self.id, person, reason)

    async def end_logins_of(self, user: str) -> None:
        """See ``hansa.NetworkContext.end_logins_of``."""
        await self._app.logins.end_all(self._to_native_id(user))

    async def find_people(self, text: str, *, limit: int) -> list[PersonMatch]:
        """See ``hansa.NetworkContext.find_people``."""
        return await self._app.searches.find_people(text, limit=limit, but=self.id)

    async def find_rooms(self, text: str, *, limit: int) -> list[RoomMatch]:
        """See ``hansa.NetworkContext.find_rooms``."""
        return await self._app.searches.find_rooms(text, limit=limit, but=self.id)

    async def require_direct_chat(self, native: str, user: NativeId, other: str) -> None:
        """See ``hansa.NetworkContext.require_direct_chat``."""
        await self._app.direct_chats.require(user, self._to_native_id(other), room=self._to_native_id(native))

    async def connect_direct_chat(self, native: str, user: NativeId, other: str) -> Link:
        """See ``hansa.NetworkContext.connect_direct_chat``."""
        room = self._app.rooms.room_of(self._to_native_id(native))
        return await self._app.direct_chats.connect_or_decline(room, user, self._to_native_id(other))

    async def open_direct_chat(self, native: str, user: str, other: NativeId) -> Link:
        """See ``hansa.NetworkContext.open_direct_chat``."""
        mine = self._to_native_id(user)
        return await self._app.direct_chats.open(self._to_native_id(native), mine, other)

    async def get_ghost_id(self, user: NativeId) -> str:
        """See ``hansa.NetworkContext.get_ghost_id``."""
        if user.network == self.id:
            return user.id
        known = self._known.get(user)
        if known is not None:
            return known
        instance = self._runner.network
        if not isinstance(instance, MakesGhosts):
            raise LocalProtocolError(f"network {self.id} has no accounts for people of other networks")
        native = instance.ghost_id(user)
        await again_on_conflict(partial(self._store_ghost, native, user))
        self._cache_home(native, user)
        return native

    async def _store_ghost(self, native: str, user: NativeId) -> None:
        """Gives a ghost to a person, who is its only owner. Raises ``Conflict`` if it was given to another
        one just now.
        """
        row = await self._app.core.get("ghost", (self.id, native))
        if row is None:
            fields = {"home_network": user.network, "home_id": user.id}
            await self._app.core.commit([Insert("ghost", (self.id, native), b"", fields)])
        elif _home_of_row(row) != user:
            raise LocalProtocolError(f"{native} stands for {_home_of_row(row)} already, not for {user}")

    async def home_of(self, native_user: str) -> NativeId:
        """See ``hansa.NetworkContext.home_of``."""
        known = self._ghosts.get(native_user)
        if known is not None:
            return known
        row = await self._app.core.get("ghost", (self.id, native_user))
        home = _home_of_row(row) if row else self._to_native_id(native_user)
        if row is not None:
            self._cache_home(native_user, home)
        return home

    def _cache_home(self, native: str, home: NativeId) -> None:
        """The oldest is read from the store again where it is asked for."""
        if native not in self._ghosts and len(self._ghosts) >= _MAX_GHOSTS:
            oldest = next(iter(self._ghosts))
            self._known.pop(self._ghosts.pop(oldest), None)
        self._ghosts[native] = home
        self._known[home] = native

    async def is_nonexistent_user(self, user: NativeId) -> bool:
        """See ``hansa.NetworkContext.is_nonexistent_user``."""
        if user.network not in self._app.runners:
            return True
        instance = self._app.network(user.network)
        return isinstance(instance, KnowsPeople) and await instance.is_nonexistent_user(user.id)

    async def check_password(self, native_user: str, password: str) -> bool | None:
        """See ``hansa.NetworkContext.check_password``."""
        return await self._app.check_password(native_user, password)

    async def native_id(self, event: Event) -> str | None:
        """See ``hansa.NetworkContext.native_id``."""
        return next(iter(await self.native_ids(event)), None)

    async def native_ids(self, event: Event) -> list[str]:
        """See ``hansa.NetworkContext.native_ids``."""
        return await self._app.names.native_ids(event, self.id)

    async def event_by(self, native_id: str) -> Event | None:
        """See ``hansa.NetworkContext.event_by``."""
        return await self._app.names.find(self._to_native_id(native_id))

    async def event_with_id(self, native: str, event_id: str) -> Event | None:
        """See ``hansa.NetworkContext.event_with_id``."""
        room = self._app.rooms.room_of(self._to_native_id(native))
        link = room.links[str(self._to_native_id(native))]
        event = await self._app.names.find_in_room(room, event_id)
        own = event is not None and event.origin.network == self.id
        if event is None or own or await self._app.rejudging.may_show(room, link, event):
            return event
        return None

    async def event_by_chosen_id(self, native: str, sender: NativeId, chosen: str) -> Event | None:
        """See ``hansa.NetworkContext.event_by_chosen_id``."""
        room = self._app.rooms.room_of(self._to_native_id(native))
        return await self._app.names.find_chosen(room.id, sender, chosen)

    def related(
        self, event: Event, kind: Kind, sender: NativeId | None = None, *, newest_first: bool = False
    ) -> AsyncIterator[Event]:
        """See ``hansa.NetworkContext.related``."""
        return self._app.names.related(event, kind, sender, newest_first=newest_first)

    async def send_ephemeral(self, native: str, signal: EphemeralEvent) -> bool:
        """See ``hansa.NetworkContext.send_ephemeral``."""
        if signal.user.network != self.id:
            raise LocalProtocolError(f"{self.id} may not speak for {signal.user}")
        return await self._app.signals.relay(self._to_native_id(native), signal)

    async def send_presence(self, presence: PersonPresence, native: str = "") -> bool:
        """See ``hansa.NetworkContext.send_presence``."""
        if presence.user.network != self.id:
            raise LocalProtocolError(f"{self.id} may not speak for {presence.user}")
        if native:
            return await self._app.presence.relay(self._to_native_id(native), presence)
        return self._app.presence.relay_everywhere(presence)

    def report_status(self, state: NetworkStatus, text: str = "") -> None:
        """See ``hansa.NetworkContext.report_status``."""
        self._runner.report_status(NetworkStatus(state).value, text)


def _home_of_row(row: Row) -> NativeId:
    return NativeId(str(row.fields["home_network"]), str(row.fields["home_id"]))
