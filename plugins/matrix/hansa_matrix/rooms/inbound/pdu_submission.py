"""From a PDU to the core: as a submission, sent until the core takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hansa import (
    Busy,
    Delete,
    LocalProtocolError,
    NativeId,
    NetworkContext,
    RefusalCode,
    Submission,
    SubmitResult,
    Write,
)

from hansa_matrix.conversion.from_matrix import names_events
from hansa_matrix.proto.event import Pdu
from hansa_matrix.rooms.content_in_room import content_of_pdu
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.native_events import ReceivedPdu


class PduSubmitter:
    """Submits PDUs of other servers, and looks after the rows of those that were staged."""

    def __init__(self, own: LocalServer) -> None:
        self._own = own
        self._ctx: NetworkContext = own.ctx
        self._listeners = own.rooms.listeners
        #: Staged rows whose events could not be judged: they are tried again at the next start.
        self.kept_rows: set[int] = set()

    async def build_submission(
        self,
        pdu: Pdu,
        origin: str,
        staged: tuple[str, int] | None = None,
        *,
        handshake: bool = False,
        unwanted: str = "",
    ) -> Submission:
        """Returns the submission of a PDU to the core."""
        if not pdu.room_id:
            raise LocalProtocolError(f"{pdu.event_id} has no room")
        content = await content_of_pdu(self._own, pdu)
        return Submission(
            origin=NativeId(self._ctx.id, pdu.event_id),
            room=NativeId(self._ctx.id, pdu.room_id),
            sender=NativeId(self._ctx.id, pdu.sender),
            content=content,
            ts=pdu.origin_server_ts,
            native=ReceivedPdu(
                pdu=pdu,
                origin=origin,
                staged_row=staged,
                via_handshake=handshake,
                policy_server_refusal=unwanted,
            ),
            native_targets=names_events(content),
        )

    async def submit(self, items: Sequence[Submission]) -> None:
        """Submits to the core and repeats it under load: an acknowledged event is not given up."""
        while True:
            try:
                outcomes = await self._ctx.submit(items)
            except Busy as busy:
                await asyncio.sleep(busy.after)
            except LocalProtocolError as error:
                if len(items) == 1:
                    self.log_failure(items[0].origin.id, error)
                    native = items[0].native
                    self.kept_rows.update(
                        native.staged_row[1:] if isinstance(native, ReceivedPdu) and native.staged_row else ()
                    )
                    return
                for item in items:
                    await self.submit([item])
                return
            else:
                await self.remove_staged(items, outcomes)
                return

    async def remove_staged(self, items: Sequence[Submission], outcomes: Sequence[SubmitResult]) -> None:
        """Remove the staged rows that no turn removed; say what was refused."""
        stale: list[Write] = []
        for item, outcome in zip(items, outcomes, strict=True):
            if outcome.refusal is not None:
                self._ctx.count("matrix_pdus", status="refused")
                self._ctx.log.info("refused %s: %s", item.origin.id, outcome.refusal.text)
            if isinstance(item.native, ReceivedPdu) and outcome.event is not None and not outcome.duplicate:
                self._listeners.notify_accepted(item.native.pdu)
            staged = item.native.staged_row if isinstance(item.native, ReceivedPdu) else None
            if staged and (outcome.duplicate or _is_permanent(outcome)):
                stale.append(Delete("staged", staged))
            elif staged and outcome.refusal is not None:
                self.kept_rows.add(staged[1])
        if stale:
            await self._ctx.store.commit(stale)

    def log_failure(self, event_id: str, error: Exception) -> None:
        """Logs a bug of this server: the event's row stays, and is tried again at the next start."""
        self._ctx.count("matrix_pdus", status="failed")
        self._ctx.log.error("%s could not be judged", event_id, exc_info=error)


def _is_permanent(outcome: SubmitResult) -> bool:
    """True for a refusal that will be the same at the next start."""
    return outcome.refusal is not None and outcome.refusal.code is not RefusalCode.UNREACHABLE
