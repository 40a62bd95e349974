"""Everything a plugin may use. There is no other access to the core."""

from __future__ import annotations

import logging
from asyncio import Task
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from hansa.api.contracts import NetworkStatus, PersonMatch, RoomMatch
from hansa.api.logins import AccountLogin
from hansa.api.media import MediaService
from hansa.environment import Clock, Http, Random
from hansa.model.content import Kind
from hansa.model.crossing import Crossing
from hansa.model.ephemeral import EphemeralEvent, PersonPresence
from hansa.model.events import Direction, EarlierHistory, Event, HistoryPage, Link, Submission, SubmitResult
from hansa.model.ref import NativeId
from hansa.model.verdict import Verdict
from hansa.model.view import RoomView, ViewDelta
from hansa.pacing.store_retry import Work
from hansa.store.base import Insert, ScopedStore
from hansa.store.blobs import ScopedBlobs


class PluginContext(Protocol):
    """The part of the context that every plugin gets.

    ``id`` is the name of the plugin's table (network id, policy name); ``config`` its validated ``Config``.
    ``store`` and ``blobs`` are scoped to ``id``: declare collections in ``open_*``, they are made before
    ``start``; ``blobs`` are files.
    """

    id: str
    config: Any
    log: logging.Logger
    clock: Clock
    random: Random
    http: Http
    store: ScopedStore
    blobs: ScopedBlobs

    def declare(self, schema: Any) -> None:
        """Name what the plugin keeps (``hansa.Schema``); made and migrated before ``start``."""
        ...

    def spawn(self, work: Work, name: str) -> Task[None]:
        """Run a task that ends with the plugin. One that raises restarts the plugin's network. Work that
        reads or writes ``store`` is given as a function, which is called again, from its beginning, while the
        database fails (``StoreFault``); a coroutine cannot be begun again.
        """
        ...

    def count(self, name: str, **labels: str) -> None:
        """Add one to the counter ``hansa_<name>_total``; labels are few and bounded."""
        ...

    def set_gauge(self, name: str, value: float, **labels: str) -> None:
        """Set the gauge ``hansa_<name>``; labels are few and bounded."""
        ...

    def report_progress(self, work: str, done: int, total: int = 0) -> None:
        """Reports the progress of long work to the terminal that waits for it. ``total`` is 0 while it is not
        known; ``done`` equal to a ``total`` above 0 ends it.
        """
        ...


class NetworkContext(PluginContext, Protocol):
    """The context of a network: a plugin's context and the core bus. Native ids are strings of this network;
    the context adds its id. ``media`` stores, opens and links files for all networks.
    """

    media: MediaService

    async def submit(
        self, items: Sequence[Submission], *, receipt: Insert | None = None
    ) -> list[SubmitResult]:
        """Tell the core what happened, in order per room. Returns when each is durable or refused. Raises
        ``Busy`` where the room's queue is full, and LocalProtocolError for a room without a link or a
        sender of a network that is not ours to speak for.

        ``receipt`` is a row of the network's own that says that all of them were taken. It is written with
        the last one, in the same commit, and not at all if one of them fails. Raises Conflict where the
        row is there already, and ``Busy`` where one of them could only be judged after others were asked.
        """
        ...

    async def check(self, crossing: Crossing) -> Verdict:
        """Ask the policies; the verdict is merged, narrowed to what the crossing can do, and kept under
        its decision id if it is not ALLOW.
        """
        ...

    @property
    def has_policies(self) -> bool:
        """True if there is a policy to ask. Without one, a plugin may leave out what only policies read."""
        ...

    @property
    def policy_generation(self) -> int:
        """The number of the policies that judge now; it rises with every change of them. A verdict is kept
        with it, and what was judged under another one is judged again before it is shown, sent or told:
        ``check(EventIn(..., immutable=True))`` with facts whose ``act`` is empty costs nobody's rate.
        """
        ...

    def get_link(self, native: str) -> Link | None:
        """The link of a native room, None where there is none."""
        ...

    def list_links(self) -> Sequence[Link]:
        """All links of this network."""
        ...

    async def open_link(
        self,
        native: str,
        *,
        hosted: bool = False,
        authority: bool = False,
        direction: Direction = Direction.BOTH,
        view: ViewDelta | None = None,
    ) -> Link:
        """Make a native room known: a core room of its own if it has none yet. Known: the same link.
        ``get_view`` becomes the room's whole present if it is the authority's.
        """
        ...

    async def supersede_room(self, native: str, by: str, view: ViewDelta) -> None:
        """Another native room takes a native room's place: the links of the one become links of the other,
        whose whole present is ``get_view``. The one left goes on alone.
        """
        ...

    async def close_link(self, native: str) -> None:
        """We are out of the native room for good; the core room and its log stay."""
        ...

    def get_view(self, native: str) -> RoomView | None:
        """The present of the core room behind a native room."""
        ...

    async def get_judged_view(self, native: str) -> RoomView | None:
        """As ``get_view``, for who reads it to people: returns when what it says was judged by the policies
        of now. Not within the room's turn.
        """
        ...

    def set_suspected_servers(self, native: str, servers: frozenset[str]) -> None:
        """Names servers of this network that may be in a room although its state does not say so, all of them
        each time: events of these servers stand in its history that cannot be verified. Policies treat them
        as servers of the room. The list is kept in memory: repeat it after a start.
        """
        ...

    async def reconcile_view(self, native: str, change: ViewDelta) -> None:
        """Correct the room's present, in the room's turn, after the native state was found to differ. Where
        the rules of another network decide in the room, ranks, voice and the facts of the room stay.
        """
        ...

    async def read_history(
        self, native: str, *, limit: int, since: int = 0, upto_seq: int | None = None
    ) -> list[Event]:
        """The newest ``limit`` events with ``received >= since`` (ms) that may pass this link, in order."""
        ...

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
        """The history of a room as ``user`` may read it, by the room's history visibility and their
        membership at each event: events with ``since <= received < until`` (ms) that may pass this link.
        The first ``limit`` after ``after_seq``, if it is given; else the last up to ``upto_seq``. The seq of
        an id is that of ``event_with_id``. At most 1,000, found among the next 5,000 that ``user`` may read.
        """
        ...

    async def read_earlier_for(
        self, native: str, user: NativeId, before: str = "", *, limit: int, ask_others: bool = True
    ) -> EarlierHistory | None:
        """What was said before the room was linked, from the network that has it (``FetchesHistory``), as
        ``user`` may read it: nobody of another network was there, so they read what was ``world_readable``,
        and what was ``shared`` if they were ever joined. The last ``limit`` events, 100 at most, before a
        place: the beginning of the log, an ``Event.id`` or ``EarlierHistory.before``. None for an id that is
        not known. ``ask_others``: other servers may be asked, for 20 s.
        """
        ...

    async def was_joined(self, native: str, user: NativeId, seq: int) -> bool:
        """True if ``user`` was joined in a room after the event of ``seq``."""
        ...

    def delivered_seq(self, native: str) -> int:
        """The ``seq`` up to which this link's consumer has sent; later events come by ``send``."""
        ...

    def confirm_sent(self, native: str, seq: int) -> None:
        """The peer has every event of this link up to ``seq`` (``Delivery.event.seq``) that was sent. For a
        network that ``Confirms``; what the peer has got from an earlier connection is not confirmed by a
        later one.
        """
        ...

    async def open_address(self, network: str, address: str, native: str) -> Link:
        """Open the room at another network's ``address`` and link our hosted room ``native`` to it.
        Raises ``CannotOpenRoom``.
        """
        ...

    async def answer_command(self, user: str, text: str) -> str | None:
        """The answer to what a person of this network wrote to the bridge itself, as ``help`` or ``!hansa
        help``, for a network on which the bridge can be written to. None where commands are off, a policy
        denies the text or the person goes on too fast: the network then does as it does without commands. A
        notice is never a command.
        """
        ...

    async def list_logins(self) -> list[AccountLogin]:
        """The logins of people of other networks with accounts of this one, with their secrets: those that
        the policies of now allow. For a network that ``LogsIn``, at its start.
        """
        ...

    async def end_login(self, person: NativeId, reason: str) -> None:
        """Ends the login of a person, whose account the server refuses now: row and secret are removed,
        ``LogsIn.drop_login`` is called, and the person is told ``reason``, which names no secret.
        """
        ...

    async def end_logins_of(self, user: str) -> None:
        """Ends the logins that a person of this network has on others, for instance with their account."""
        ...

    async def find_people(self, text: str, *, limit: int) -> list[PersonMatch]:
        """People of other networks that a user searches for by ``text``: see ``hansa.LooksUp``. At most
        ``limit``, without those whose ``ProfileQuery`` a policy denies.
        """
        ...

    async def find_rooms(self, text: str, *, limit: int) -> list[RoomMatch]:
        """Rooms of other networks that match ``text``: see ``hansa.LooksUpRooms``. At most ``limit``, without
        those whose ``DirectoryQuery`` a policy denies.
        """
        ...

    async def require_direct_chat(self, native: str, user: NativeId, other: str) -> None:
        """Raises ``CannotOpenRoom`` where ``other``, a person of this network, cannot have a direct chat with
        ``user``, of another network, in the room ``native``: that network or a policy says no.
        """
        ...

    async def connect_direct_chat(self, native: str, user: NativeId, other: str) -> Link:
        """Makes the linked room ``native``, to which ``other`` invited ``user`` of another network, their
        direct chat; the link on ``user``'s network. An invite in a room of this network needs no call: the
        core sees it. Raises ``CannotOpenRoom``; ``user`` has left the room then, with the reason.
        """
        ...

    async def open_direct_chat(self, native: str, user: str, other: NativeId) -> Link:
        """The link of ``native``, the chat of ``user``, a person of this network, with ``other`` of another
        one, who is invited where they are not in it. Raises ``CannotOpenRoom``.
        """
        ...

    async def get_ghost_id(self, user: NativeId) -> str:
        """The id under which a person of another network appears on this one; made once, then kept."""
        ...

    async def home_of(self, native_user: str) -> NativeId:
        """The person behind an id of this network: themselves, or the one whose ghost it is."""
        ...

    async def is_nonexistent_user(self, user: NativeId) -> bool:
        """True if it is known that a user of another network does not exist: see ``hansa.KnowsPeople``. A
        network that is not configured has no users.
        """
        ...

    async def check_password(self, native_user: str, password: str) -> bool | None:
        """Asks the plugins about a password (the hook ``check_password``). Returns None if no plugin
        decides.
        """
        ...

    async def native_id(self, event: Event) -> str | None:
        """The id of an event on this network, None if it has none."""
        ...

    async def native_ids(self, event: Event) -> Sequence[str]:
        """All ids of an event on this network, the one of ``native_id`` first."""
        ...

    async def event_by(self, native_id: str) -> Event | None:
        """The event with this id on this network, None if unknown."""
        ...

    async def event_with_id(self, native: str, event_id: str) -> Event | None:
        """The event of the room behind a native room with this id of the core, None if the room has none, or
        if its people did not get it.
        """
        ...

    async def event_by_chosen_id(self, native: str, sender: NativeId, chosen: str) -> Event | None:
        """The latest event of ``sender`` in the room behind a native room to which they gave this id
        (``Submission.chosen_ids``), None if there is none.
        """
        ...

    def related(
        self, event: Event, kind: Kind, sender: NativeId | None = None, *, newest_first: bool = False
    ) -> AsyncIterator[Event]:
        """The edits of an event, its reactions or what else of a kind concerns it, in order; those of
        ``sender`` alone, if one is given. Retracted ones are left out, and a thousand are read. About 50 are
        in memory at a time: one may have 64 KiB of text, and as much payload.
        """
        ...

    async def send_ephemeral(self, native: str, send_ephemeral: EphemeralEvent) -> bool:
        """Tells the other networks of a room that a user types or has read. The latest signal wins, nothing
        is stored, and under load it is dropped first. True if the policies and the link let it into the
        room: then a network whose room is hosted shows it to its own people.
        """
        ...

    async def send_presence(self, presence: PersonPresence, native: str = "") -> bool:
        """Tells the other networks that a user of this one is here, away, busy or offline: in the room of
        ``native``, or where it is empty in every room of this network in which the user is joined. Raises
        LocalProtocolError for a user of another network.

        True if the policies and the link let it into the room ``native``: then a network that hosts the room
        shows it to its own people. Without ``native`` it is always True: the policies are asked later.

        Nothing is stored. The other networks are told a little later, the latest presence of a person in a
        room alone. Rooms with more members than the setting ``presence_members`` of either network are left
        out.
        """
        ...

    def report_status(self, state: NetworkStatus, text: str = "") -> None:
        """Report ``state``, with what an operator should do. Deliveries wait while it is not ``UP``; a
        change to it wakes them. Raises ValueError for any other word.
        """
        ...
