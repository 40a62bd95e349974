"""``PUT /send``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import NetworkContext, Request

from hansa_matrix.federation.answers.entitled import Entitled
from hansa_matrix.federation.server import Answerer, error
from hansa_matrix.proto.transactions import parse_transaction
from hansa_matrix.room.ingest import Ingest
from hansa_matrix.room.signals import RoomSignals

_LONGEST_TXN = 255


class Transactions:
    """Transactions of other servers."""

    def __init__(self, entitled: Entitled, ingest: Ingest, signals: RoomSignals) -> None:
        self._ctx: NetworkContext = entitled.own.ctx
        self._ingest = ingest
        self._signals = signals

    def table(self) -> Mapping[tuple[str, str], Answerer]:
        """See ``server.Answers.table``."""
        return {
            ("PUT", "/v1/send/{txn}"): self.send,
        }

    async def send(self, origin: str, request: Request, _body: Any) -> Any:
        """``PUT /send/{txnId}``: durable, with its answer, before the 200."""
        txn = request.path["txn"]
        if len(txn) > _LONGEST_TXN:  # cut short it could be another's
            raise error(400, "M_INVALID_PARAM", f"the transaction id has over {_LONGEST_TXN} characters")
        pdus, edus = parse_transaction(request.body, origin)
        answer = await self._ingest.take(origin, txn, pdus)
        try:
            await self._signals.take(origin, edus)
        except Exception:  # T-5: for what is not stored nobody should send it all again
            self._ctx.count("matrix_edus_failed")
            self._ctx.log.exception("the EDUs of %s", origin)
        return answer
