"""``PUT /send``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import Request

from hansa_matrix.federation.edus import Edus
from hansa_matrix.federation.server import Answerer, error
from hansa_matrix.proto.transactions import parse_transaction
from hansa_matrix.room.ingest import Ingest

_LONGEST_TXN = 255


class Transactions:
    """Transactions of other servers."""

    def __init__(self, ingest: Ingest, edus: Edus) -> None:
        self._ingest = ingest
        self._edus = edus

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
        await self._edus.take(origin, edus)
        return answer
