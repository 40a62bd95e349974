"""One sync request, as its parts read it. SPEC: client-server API, "Syncing".

A token is a position of the store's one sequence, the count of changes of typing users, the position of the
last message to the device, and the device of that message: ``s12_3_9_5f0c21aa``. A client with the token has
got everything up to there. A token of another device says nothing about the messages to this one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from hansa_matrix.client_api.account.account_data import IGNORED
from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.sync.filters import SyncFilter
from hansa_matrix.errors import matrix_error
from hansa_matrix.local.client_stream import DEVICES, RECEIPTS, StreamItem
from hansa_matrix.local.memberships import LocalMembership

_TOKEN = re.compile(
    r"s(?P<position>[0-9]{1,18})(?:_(?P<typing>[0-9]{1,18}))?(?:_(?P<device>[0-9]{1,18}))?"
    r"(?:_(?P<whose>[0-9a-f]{8}))?",
    re.ASCII,
)

#: News of one room, and of devices, that are looked at one by one; where there are more they are the last.
MAX_ITEMS = 10_000


@dataclass(frozen=True, slots=True)
class SyncToken:
    """How far a client is; ``position`` is -1 for one that knows nothing. ``device``: it has the messages to
    its device up to there, which may be less, as those come some at a time.
    """

    position: int = -1
    typing: int = 0
    device: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncRequest:
    """One sync: who asks, what they want, and what happened between two positions."""

    caller: Requester
    since: SyncToken
    upto: int
    filter: SyncFilter
    full_state: bool
    use_state_after: bool
    ignored: frozenset[str]
    items: Mapping[str, Sequence[StreamItem]] = field(default_factory=dict)
    #: All account data by room, where it is all wanted.
    data: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def is_initial(self) -> bool:
        """True if the answer contains the full state."""
        return self.full_state or self.since.position < 0

    @property
    def membership_changes(self) -> set[str]:
        """The rooms to which the person stands otherwise than before."""
        return {item.ref for item in self.items.get(self.caller.user, ()) if item.ref.startswith("!")}

    @property
    def ignores_others(self) -> bool:
        """True if the list of ignored users changed."""
        return any(item.ref == f"data  {IGNORED}" for item in self.items.get(self.caller.user, ()))


class UserTopics:
    """The topics that one person is told of: themselves, devices, and the rooms that they are in."""

    def __init__(self, user: str, stays: Mapping[str, LocalMembership]) -> None:
        self._user, self._stays = user, stays

    def __contains__(self, topic: str) -> bool:
        if topic in {self._user, DEVICES}:
            return True
        stay = self._stays.get(topic.removeprefix(RECEIPTS))
        return stay is not None and stay.membership == "join"

    def __iter__(self) -> Iterator[str]:
        yield self._user
        yield DEVICES
        for stay in self._stays.values():
            if stay.membership == "join":
                yield stay.room_id
                yield RECEIPTS + stay.room_id

    def __len__(self) -> int:
        return 2 + 2 * len(self._stays)


def format_sync_token(position: int, typing: int, device: int, caller: Requester) -> str:
    """How far a client is; see ``parse_sync_token``."""
    return f"s{position}_{typing}_{device}_{_device_mark(caller)}"


def parse_sync_token(token: str, caller: Requester) -> SyncToken:
    """Parses a token. Raises the error answer if it is not one of this server. A token of another device, or
    of another endpoint, confirms no message to this device: all of them are sent.
    """
    if not token:
        return SyncToken()
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise matrix_error(400, "M_INVALID_PARAM", "this token was not issued by this server")
    mine = match["whose"] == _device_mark(caller)
    device = int(match["device"] or 0) if mine else 0
    return SyncToken(int(match["position"]), int(match["typing"] or 0), device)


def _device_mark(caller: Requester) -> str:
    return blake2b(f"{caller.user}\0{caller.device}".encode(), digest_size=4).hexdigest()
