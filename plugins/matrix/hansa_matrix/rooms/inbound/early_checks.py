"""Signatures of a large answer's events, looked at while it is still read: what nobody signed is not held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hansa import RemoteProtocolError

from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto import ids
from hansa_matrix.proto.event import Pdu
from hansa_matrix.proto.room_versions import RoomVersion
from hansa_matrix.rooms.inbound import outliers
from hansa_matrix.rooms.inbound.outliers import SignatureResult

#: Events that are held without having been verified: some 10 MB. So many again may wait for their keys.
MAX_UNVERIFIED = 1000
#: So many events, and four times as many as those that are signed, may be by servers without keys: in an old
#: room most people may be of servers that are gone.
MAX_LOST, _LOST_TO_GOOD = 5000, 4


class PduReader(Protocol):
    """The reader of an answer."""

    #: The bytes that were read since the last check.
    fresh: list[Pdu]

    def drop_events(self, pdus: Sequence[Pdu]) -> None:
        """Let go of events that nobody vouches for."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedPdus(SignatureResult):
    """``good`` are all of the answer, ``bad`` those that were looked at last; ``lost`` counts all that are
    not good.
    """

    lost: int


class EarlyChecks:
    """The checks 2 and 3 of everything that one reader takes, each event once."""

    def __init__(self, reader: PduReader, version: RoomVersion, keyring: Keyring) -> None:
        self._reader = reader
        self._version = version
        self._keyring = keyring
        self._lookups = outliers.KeyLookups(keyring)
        self._good: list[Pdu] = []
        self._waiting: list[Pdu] = []
        self._lost = 0

    async def between(self) -> None:
        """Between two pieces of the answer. Raises RemoteProtocolError once most of it is by nobody."""
        if len(self._reader.fresh) >= MAX_UNVERIFIED:
            fresh, self._reader.fresh = self._reader.fresh, []
            await self._check_signatures(fresh)

    async def finished(self) -> CheckedPdus:
        """Returns the result once the answer is complete; a second call checks again the events whose keys
        were not available.
        """
        fresh, self._reader.fresh = [*self._waiting, *self._reader.fresh], []
        self._waiting = []
        seen = await self._check_signatures(fresh)
        lost = self._lost + len(self._waiting)
        return CheckedPdus(good=self._good, bad=seen.bad, awaited=seen.awaited, lost=lost)

    async def _check_signatures(self, pdus: Sequence[Pdu]) -> SignatureResult:
        seen = await outliers.verify_signatures(pdus, self._version, self._keyring, self._lookups)
        self._good += seen.good
        awaited = frozenset(seen.awaited)
        waiting = [p for p in seen.bad if ids.domain_of(p.sender) in awaited]
        self._waiting += waiting[: MAX_UNVERIFIED - len(self._waiting)]
        kept = {id(p) for p in self._waiting}
        lost = [p for p in seen.bad if id(p) not in kept]
        self._reader.drop_events(lost)
        self._lost += len(lost)
        if self._lost > MAX_LOST + _LOST_TO_GOOD * len(self._good):
            raise RemoteProtocolError("most of the answer's events are unsigned")
        return seen
