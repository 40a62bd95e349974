"""The part of a submission's way that lies outside the room's turn: stages 4 and 5, and the I/O that a turn
must not do.

Every policy is asked about the way in and each way out; the authority makes ready what must exist.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from hansa.api.contracts import Authority, Countersign, KnowsServers, LateAuthority, Missing, Network
from hansa.bus.policy_engine import PolicyEngine
from hansa.bus.rooms import Room
from hansa.model.content import Content, Member, Membership
from hansa.model.crossing import EventIn, EventOut
from hansa.model.errors import Busy
from hansa.model.events import (
    OTHER_NETWORKS,
    Event,
    Link,
    NativeFacts,
    Refusal,
    RefusalCode,
    Submission,
    SubmitResult,
)
from hansa.model.ref import NativeId
from hansa.model.verdict import ALLOW, Action, Verdict, strictest
from hansa.store.base import Insert, Write
from hansa.store.faults import StoreFault

_FETCHES = 3
#: The weight of finding the strings of an event: for each of them, and the share of its bytes.
_STRING, _BYTES = 4, 16


class NetworkLookup(Protocol):
    """The open networks."""

    def network(self, network: str) -> Network | None:
        """The open network of an id."""
        ...

    def authority(self, network: str) -> Authority | None:
        """The open network of an id, if it is one that can be a room's authority."""
        ...

    def late_authority(self, network: str) -> LateAuthority | None:
        """The open network of an id, if it is one whose rooms decide by reflecting."""
        ...

    async def refusal_of_invite(self, room: Room, inbound: Submission) -> Refusal | None:
        """Why the person that a submission invites cannot be invited, if their network says so."""
        ...

    def is_command(self, sender: NativeId, content: Content) -> bool:
        """True if a person writes a command to the bridge, and their network can answer it. Raises ``Busy``
        while that network is not running.
        """
        ...


@dataclass(frozen=True, slots=True)
class Reflected:
    """The ``native`` of a submission that the room's late authority has reflected: the ``Delivery.key`` of
    its draft, and the native ids that it has there.
    """

    key: str
    natives: tuple[str, ...]


@dataclass(slots=True, eq=False)
class PendingSubmission:
    """One ``Submission`` on its way. ``writes`` are the rows of its decisions, ``withheld`` the links it may
    not pass with their decision ids; ``ready`` refuses it at its turn; ``fetches`` counts the turns it left.
    ``generation`` is that of the policies that judged it. ``receipt`` is written with it, if what came
    ``before`` it is durable by then. One that ``stays`` never leaves its turn: it fails instead.
    ``event_id`` is the id that its event will have, if that is known.
    """

    inbound: Submission
    link: Link
    done: asyncio.Future[SubmitResult]
    fetches: int = 0
    judged: bool = False
    generation: int = 0
    verdict: Verdict = ALLOW
    writes: list[Write] = field(default_factory=list)
    withheld: list[tuple[str, str]] = field(default_factory=list)
    ready: Refusal | None = None
    receipt: Insert | None = None
    event_id: str = ""
    before: tuple[PendingSubmission, ...] = ()
    stays: bool = False
    #: True for a command to the bridge, of a person whose network does not decide in the room: no event.
    consumed: bool = False

    @property
    def immutable(self) -> bool:
        """True if the event already stands in the native history of the room's authority."""
        if isinstance(self.inbound.native, Reflected):
            return True
        return self.link.authority and self.inbound.native is not None and not self.inbound.local

    def confine_as(self, target: Event) -> None:
        """Confines what is said about a confined event: it would tell other networks of it."""
        if target.is_confined and (OTHER_NETWORKS, "") not in self.withheld:
            self.withheld.append((OTHER_NETWORKS, ""))

    @property
    def taken(self) -> bool:
        """True if the submission has an outcome, which is durable."""
        return self.done.done() and not self.done.cancelled() and self.done.exception() is None


class Admission:
    """Judges submissions and makes them ready for their turn."""

    def __init__(self, decisions: PolicyEngine, networks: NetworkLookup) -> None:
        self._decisions = decisions
        self._networks = networks
        self._log = logging.getLogger("hansa.pipeline")

    async def admit(self, room: Room, items: Sequence[PendingSubmission]) -> None:
        """Judges submissions and prepares them: in parallel where there is something to wait for, since a
        task per event is expensive.
        """
        link = room.authority
        authority = self._networks.authority(link.native.network) if link else None
        if self._decisions.policies:
            await asyncio.gather(*(self._admit_item(room, authority, item) for item in items))
            return
        for item in items:
            await self._admit_item(room, authority, item)

    async def _admit_item(self, room: Room, authority: Authority | None, item: PendingSubmission) -> None:
        """Stage 4 and 5: the policies' word on every way, and the authority's preparations."""
        item.writes, item.withheld, item.verdict, item.ready = [], [], ALLOW, None
        item.generation = self._decisions.generation
        arrived, link = item.link, room.authority
        immutable = item.immutable
        inside = link is not None and link.native.network == arrived.native.network
        try:
            is_command = self._networks.is_command(item.inbound.sender, item.inbound.content)
        except Busy as busy:  # its words would cross as those of a message
            if not item.done.done():
                item.done.set_exception(busy)
            return
        if is_command:
            item.consumed = not inside
            item.inbound = replace(item.inbound, confined=True)
        inbound = item.inbound
        if inbound.confined:
            item.withheld.append((OTHER_NETWORKS, ""))
        if self._decisions.policies:
            await self._ask_policies(room, item, immutable=immutable)
        if not arrived.direction.inward and not immutable:
            item.ready = Refusal(code=RefusalCode.FORBIDDEN, text="this link is for listening only")
        elif item.consumed:
            pass
        elif inbound.confined and link is not None and not inside:
            text = f"{link.native.network} decides in this room and gets every event of it"
            item.ready = Refusal(code=RefusalCode.UNSUPPORTED, text=text)
        elif immutable and authority is not None:
            pass  # nothing is to prepare for what stands in the history of a network that runs
        elif item.verdict.allowed and (link is not None or isinstance(inbound.content, Member)):
            await self._make_ready(room, link, authority, item)
        item.judged = True

    async def _make_ready(
        self, room: Room, link: Link | None, authority: Authority | None, item: PendingSubmission
    ) -> None:
        inbound = item.inbound
        immutable = item.immutable
        late = link is not None and authority is None and self._networks.late_authority(link.native.network)
        if link is not None and authority is None and not late:
            # It is being started again: nothing that was acknowledged is judged now.
            raise Busy("the room's network is not running", after=1.0)
        if not immutable and isinstance(inbound.content, Member):
            item.ready = await self._networks.refusal_of_invite(room, inbound)
        if not immutable and item.ready is None and link is not None and authority is not None:
            item.ready = await authority.before_turn(link, inbound)

    async def _ask_policies(self, room: Room, item: PendingSubmission, *, immutable: bool) -> None:
        """Ask about the way in and every way out. The speaker's own link is one of them where it is for us to
        say whether the event happens: its people get the words too.
        """
        inbound, arrived = item.inbound, item.link
        await self._decisions.budget.enter()
        facts = self._policy_facts(inbound)
        self._decisions.budget.spend(len(facts.texts) * _STRING + facts.size // _BYTES)
        if not facts.act and not facts.automatic:
            facts = replace(facts, act=str(inbound.origin))
        if reached := self._invited_servers(inbound):
            facts = replace(facts, room_servers=facts.room_servers | reached)
        way_in = EventIn(
            link=arrived,
            sender=inbound.sender,
            content=inbound.content,
            view=room.view,
            facts=facts,
            immutable=immutable,
        )
        asked = [await self._decisions.judge(way_in)]
        ours = not immutable and (inbound.local or arrived.hosted or arrived.authority)
        for link in list(room.links.values()):
            if not link.direction.outward or (link.id == arrived.id and not ours):
                continue
            if inbound.confined and link.native.network != arrived.native.network:
                continue
            out = EventOut(
                link=link, sender=inbound.sender, content=inbound.content, view=room.view, facts=facts
            )
            judged = await self._decisions.judge(out)
            if link.authority or link.id == arrived.id:
                asked.append(judged)
            else:
                item.writes += judged.writes
                if not judged.verdict.allowed:
                    item.withheld.append((link.id, judged.verdict.decision))
        for judged in asked:
            item.writes += judged.writes
        item.verdict = _merge_verdicts([j.verdict for j in asked], immutable=immutable)

    def _invited_servers(self, inbound: Submission) -> frozenset[str]:
        """Returns the server that gets the event besides those in the room: the server of an invited user."""
        content = inbound.content
        if not isinstance(content, Member) or content.membership is not Membership.INVITE:
            return frozenset()
        return frozenset({self.server_of(content.user.network, content.user.id)})

    def _policy_facts(self, inbound: Submission) -> NativeFacts:
        network = self._networks.network(inbound.sender.network)
        if isinstance(network, KnowsServers):
            return network.policy_facts(inbound)
        return NativeFacts(sender_server=inbound.sender.network)

    def server_of(self, network_id: str, user: str) -> str:
        """The server of a user, by the network's own rule."""
        network = self._networks.network(network_id)
        return network.server_of(user) if isinstance(network, KnowsServers) else network_id

    async def fetch_or_countersign(
        self, room: Room, item: PendingSubmission, needed: Missing | Countersign
    ) -> None:
        """Do the I/O that a preparation asked for; if it failed the event is refused at its next turn."""
        authority = room.authority
        network = self._networks.authority(authority.native.network) if authority else None
        item.fetches += 1
        try:
            if authority is None or network is None or item.fetches > _FETCHES:
                item.ready = _unavailable_refusal()
            elif isinstance(needed, Missing):
                item.ready = (
                    None if await network.fetch_missing(authority, needed.refs) else _unavailable_refusal()
                )
            else:
                signed = await network.countersign(authority, needed.draft)
                if isinstance(signed, Refusal):
                    item.ready = signed
                else:
                    item.inbound = replace(item.inbound, native=signed)
        except (Busy, StoreFault):  # for now: who submitted tries again
            raise
        except Exception:  # noqa: BLE001  # a network's bug must be an answer to who submitted
            self._log.exception("%s could not be completed", item.inbound.origin)
            item.ready = _unavailable_refusal()


def _unavailable_refusal() -> Refusal:
    text = "the events that this event cites could not be fetched"
    return Refusal(code=RefusalCode.UNREACHABLE, text=text, retry_after=5.0)


def _merge_verdicts(verdicts: Sequence[Verdict], *, immutable: bool) -> Verdict:
    """The strictest; an event that stands in native history can only be withheld."""
    merged = strictest(verdicts)
    if merged.allowed:
        return merged
    decision = next((v.decision for v in verdicts if v.action is merged.action), "")
    action = Action.WITHHOLD if immutable else Action.DENY
    return replace(merged, action=action, decision=decision)
