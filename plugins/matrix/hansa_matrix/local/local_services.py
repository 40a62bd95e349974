"""The services of local users, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from hansa_matrix.local.client_notifier import ClientNotifier
from hansa_matrix.local.client_stream import ClientStream
from hansa_matrix.local.memberships import LocalMemberships
from hansa_matrix.local.transaction_ids import TransactionIds


@dataclass(frozen=True, slots=True)
class Local:
    """Rooms of local users, the stream that their clients follow, the transactions that they sent, and what
    wakes their clients.
    """

    memberships: LocalMemberships
    stream: ClientStream
    transaction_ids: TransactionIds
    notifier: ClientNotifier
