"""``PUT /send``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from hansa import NetworkContext, Request

from hansa_matrix.bounds.bounded_rows import TrimmedRows
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.streaming.transactions import parse_transaction
from hansa_matrix.rooms.inbound.pdu_intake import PduIntake
from hansa_matrix.server_api.auth import FederationHandler
from hansa_matrix.server_api.edus import EduDispatcher

_LONGEST_TXN = 255
#: Transactions of one server of which the answer is known.
MAX_TRANSACTIONS, _TRIM_EVERY = 10_000, 500
#: Bytes of a transaction that is parsed on the loop: reading a larger one by its parts takes over 20 ms.
_READ_AT_ONCE = 256 * 1024


class TransactionEndpoint:
    """Transactions of other servers."""

    def __init__(self, ctx: NetworkContext, intake: PduIntake, edus: EduDispatcher) -> None:
        self._ctx = ctx
        self._intake = intake
        self._edus = edus
        self._known = TrimmedRows(ctx, "txn", MAX_TRANSACTIONS, _TRIM_EVERY)

    def routes(self) -> Mapping[tuple[str, str], FederationHandler]:
        """See ``auth.FederationEndpoints.routes``."""
        return {
            ("PUT", "/v1/send/{txn}"): self.send,
        }

    async def send(self, origin: str, request: Request, _body: Any) -> Any:
        """``PUT /send/{txnId}``: durable, with its answer, before the 200."""
        txn = request.path["txn"]
        if len(txn) > _LONGEST_TXN:  # cut short it could be another's
            raise matrix_error(
                400, "M_INVALID_PARAM", f"the transaction id has over {_LONGEST_TXN} characters"
            )
        if len(request.body) <= _READ_AT_ONCE:
            pdus, edus = parse_transaction(request.body, origin)
        else:
            loop = asyncio.get_running_loop()
            pdus, edus = await loop.run_in_executor(None, parse_transaction, request.body, origin)
        unread = sum(one is None for one in (*pdus, *edus))
        for _ in range(unread):
            self._ctx.count("matrix_transaction_items_unread")
        if unread:
            self._ctx.log.info(
                "%d PDUs and EDUs of %s cannot be read, or are too many values", unread, origin
            )
        answer = await self._intake.stage_transaction(origin, txn, pdus)
        await self._edus.handle_edus(origin, edus)
        await self._known.added(origin, 1)
        return answer
