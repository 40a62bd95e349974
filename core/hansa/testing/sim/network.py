"""A network in memory, under the ``hansa.Http`` seam: requests take time, get lost, come twice, overtake."""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import Task
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hansa.environment import Failure, HttpError, HttpRequest, HttpResponse
from hansa.model.srv import SrvRecord
from hansa.testing.http import BufferedHttp
from hansa.testing.sim.seeded import SeededRandom
from hansa.testing.sim.trace import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConditions:
    """The faults of the network for a request. Probabilities are per request; times in seconds.

    ``latency`` is the range of one way. A stalled request waits a time out of ``stall_for`` before it
    arrives, so later ones overtake it. A duplicate arrives again after such a time, its answer goes nowhere.
    Losses show to the sender as a broken connection or as silence until its time-out, half each.
    """

    latency: tuple[float, float] = (0.005, 0.05)
    lose_request: float = 0.0
    lose_answer: float = 0.0
    duplicate: float = 0.0
    stall: float = 0.0
    stall_for: tuple[float, float] = (0.5, 15.0)


CALM = NetworkConditions()
STORM = NetworkConditions(latency=(0.005, 0.4), lose_request=0.1, lose_answer=0.1, duplicate=0.1, stall=0.1)


class Peer(Protocol):
    """A server that answers at an address."""

    name: str
    #: Names that its certificate carries.
    names: frozenset[str]

    @property
    def listening(self) -> bool:
        """True while others can connect."""
        ...

    def accept(self, request: HttpRequest, source: str) -> Task[HttpResponse]:
        """Serve a request in a task of the peer's own, which is cancelled if the peer crashes."""
        ...


@dataclass(slots=True)
class VirtualNetwork:
    """Everybody's way to everybody. Peers are reached by ``(host, port)``."""

    seed: int
    trace: Trace
    weather: NetworkConditions = CALM
    peers: dict[tuple[str, int], Peer] = field(default_factory=dict)
    #: DNS: SRV records by name.
    srv: dict[str, list[SrvRecord]] = field(default_factory=dict)
    #: How many times slower the ways from and to a machine are.
    slow: dict[str, float] = field(default_factory=dict)
    requests: int = 0
    #: Machines whose process has ended, and what such a process said nevertheless: a fault of the run.
    ended: set[str] = field(default_factory=set)
    late: list[str] = field(default_factory=list)
    #: ``(source, target)`` of machines that the other does not reach.
    cuts: set[tuple[str, str]] = field(default_factory=set)
    _side: dict[str, int] = field(default_factory=dict)
    _chances: dict[tuple[str, str], SeededRandom] = field(default_factory=dict)

    def partition(self, *sides: Iterable[str]) -> None:
        """Cut the network: a machine reaches only those of its own side; one not named is alone."""
        self._side = {name: number for number, side in enumerate(sides) for name in side}
        shown = sorted(f"{number}:{name}" for name, number in self._side.items())
        self.trace.note("network", f"partition {shown}")

    def cut(self, source: str, target: str) -> None:
        """The requests of one machine do not reach another until ``heal``; those of the other do."""
        self.cuts.add((source, target))
        self.trace.note("network", f"cut {source} > {target}")

    def heal(self) -> None:
        """No partition, no loss, nobody slow."""
        self._side = {}
        self.cuts.clear()
        self.slow = {}
        self.weather = CALM
        self.trace.note("network", "healed")

    def parted(self, left: str, right: str) -> bool:
        """True if requests of ``left`` do not reach ``right``."""
        if (left, right) in self.cuts:
            return True
        return bool(self._side) and self._side.get(left, left) != self._side.get(right, right)

    async def exchange(self, source: str, request: HttpRequest) -> HttpResponse:
        """One request of the machine ``source`` and its answer. Raises ``HttpError``."""
        self.requests += 1
        if source in self.ended:
            self.late.append(f"{source} asks {request.host}{request.target} although it has ended")
        where = f"{request.host}:{request.port}"
        self.trace.note(source, f"{request.method} {where}{request.target}", request.body or b"")
        try:
            # On its way, a request no longer depends on who sent it.
            work = self._there_and_back(source, where, request)
            way = asyncio.get_running_loop().create_task(work, context=contextvars.Context())
            way.add_done_callback(_ignore_error)
            async with asyncio.timeout(request.timeout):
                answer = await asyncio.shield(way)
        except TimeoutError:
            self.trace.note(source, f"time-out {where}{request.target}")
            raise HttpError(f"no answer from {where} in {request.timeout:g} s", Failure.TIMED_OUT) from None
        except HttpError as error:
            self.trace.note(source, f"{request.target}: {error.detail}")
            raise
        self.trace.note(source, f"{answer.status} {where}{request.target}", answer.body)
        if len(answer.body) > request.max_body:
            raise HttpError(f"the answer is over {request.max_body} bytes", Failure.TOO_LARGE)
        return answer

    async def _there_and_back(self, source: str, where: str, request: HttpRequest) -> HttpResponse:
        peer = self.peers.get((request.host, request.port))
        if peer is None:
            await asyncio.sleep(self.weather.latency[1])
            raise HttpError(f"{where} refused the connection")
        chance = self._chance_of(source, peer.name)
        weather = self.weather
        stalled = chance.happens(weather.stall)
        lost, answer_lost = chance.happens(weather.lose_request), chance.happens(weather.lose_answer)
        twice, silent = chance.happens(weather.duplicate), chance.happens(0.5)
        wait = chance.between(*weather.stall_for)
        await self._travel(source, peer.name, chance)
        if stalled:
            await asyncio.sleep(wait)
        if lost or self.parted(source, peer.name):
            await self._stay_silent(where, request.timeout if silent else 0.0)
        if not peer.listening:
            raise HttpError(f"{where} refused the connection")
        name = request.tls_name.rpartition(":")[0] or request.tls_name
        if request.tls_name and name not in peer.names:
            raise HttpError(f"the certificate of {where} is not for {request.tls_name}", Failure.CERTIFICATE)
        serving = peer.accept(request, source)
        if twice:
            asyncio.get_running_loop().call_later(wait, self._repeat_request, peer, request, source)
        await asyncio.wait({serving})
        if serving.cancelled():
            raise HttpError(f"{where} broke the connection", Failure.PROTOCOL)
        await self._travel(peer.name, source, chance)
        if answer_lost or self.parted(source, peer.name):
            await self._stay_silent(where, request.timeout if silent else 0.0)
        return serving.result()

    def _repeat_request(self, peer: Peer, request: HttpRequest, source: str) -> None:
        if peer.listening and not self.parted(source, peer.name):
            self.trace.note(source, f"again {request.method} {request.target}")
            peer.accept(request, source)

    @staticmethod
    async def _stay_silent(where: str, silence: float) -> None:
        await asyncio.sleep(silence)
        raise HttpError(f"{where} broke the connection", Failure.PROTOCOL)

    async def _travel(self, source: str, target: str, chance: SeededRandom) -> None:
        factor = max(self.slow.get(source, 1.0), self.slow.get(target, 1.0))
        await asyncio.sleep(chance.between(*self.weather.latency) * factor)

    def _chance_of(self, source: str, target: str) -> SeededRandom:
        pair = (source, target)
        if pair not in self._chances:
            self._chances[pair] = SeededRandom(self.seed, f"way {source}>{target}")
        return self._chances[pair]


def _ignore_error(way: Task[HttpResponse]) -> None:
    """Marks an error as read: the caller may have gone, and then the error has no reader."""
    if not way.cancelled():
        way.exception()


class VirtualHttp(BufferedHttp):
    """See ``hansa.Http``: one machine's way into the network. A dead machine gets no answer any more."""

    def __init__(self, network: VirtualNetwork, source: str) -> None:
        self._network = network
        self._source = source

    async def request(self, request: HttpRequest) -> HttpResponse:
        """See ``hansa.Http.request``."""
        return await self._network.exchange(self._source, request)

    async def srv(self, name: str) -> Sequence[SrvRecord]:
        """See ``hansa.Http.srv``."""
        return self._network.srv.get(name, [])
