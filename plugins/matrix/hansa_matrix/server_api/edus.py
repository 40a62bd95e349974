"""The EDUs of a transaction, each to who takes its kind. SPEC: server-server API, "EDUs"; T-5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hansa import Busy, NetworkContext, StoreError

from hansa_matrix.errors import matrix_error
from hansa_matrix.proto.devices import DEVICE_LIST, SIGNING_KEYS, TO_DEVICE
from hansa_matrix.users.edu_handler import EduHandler

#: EDUs that the peer must send again if they could not be stored.
DURABLE_EDUS = frozenset({DEVICE_LIST, SIGNING_KEYS, TO_DEVICE})


class EduDispatcher:
    """Passes each EDU to its handler. A fault of one EDU affects neither the others nor the events."""

    def __init__(self, ctx: NetworkContext, takers: Mapping[str, EduHandler]) -> None:
        self._ctx = ctx
        self._takers = takers

    async def handle_edus(self, origin: str, edus: Sequence[Any]) -> None:
        """All of a transaction. Raises RemoteProtocolError (503) if what may not be lost was not stored, and
        ``Busy`` where that comes too fast.
        """
        by_kind: dict[str, list[Mapping[str, Any]]] = {}
        ignored = 0
        for edu in edus:
            kind = edu.get("edu_type") if isinstance(edu, dict) else None
            content = edu.get("content") if isinstance(edu, dict) else None
            if isinstance(content, dict) and isinstance(kind, str) and kind in self._takers:
                by_kind.setdefault(kind, []).append(content)
            else:
                ignored += 1
        unstored = False
        for kind, contents in by_kind.items():
            try:
                ignored += await self._takers[kind](origin, contents)
            except Busy:  # it comes too fast: all of it is to come again, and what is known by then is known
                raise
            except StoreError as problem:
                unstored |= kind in DURABLE_EDUS
                self._ctx.count("matrix_edus_failed")
                self._ctx.log.info("the %s of %s was not stored: %s", kind, origin, problem)
            except Exception:  # ours: the peer may repeat what it cannot mend
                self._ctx.count("matrix_edus_failed")
                self._ctx.log.exception("the %s of %s", kind, origin)
        for _ in range(ignored):
            self._ctx.count("matrix_edus_ignored")
        if unstored:
            raise matrix_error(503, "M_UNKNOWN", "what this transaction says of devices could not be stored")
