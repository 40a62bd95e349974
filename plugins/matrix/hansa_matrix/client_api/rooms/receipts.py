"""Typing, receipts and read markers. SPEC: client-server API, "Typing notifications", "Receipts", "Fully read
markers".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa import NetworkContext, Request

from hansa_matrix.client_api.account.account_data import FULLY_READ
from hansa_matrix.client_api.account.accounts import Requester
from hansa_matrix.client_api.client_services import UserSettings
from hansa_matrix.client_api.http import Handler, RateLimited, get_string
from hansa_matrix.client_api.rooms.local_sender import LocalSender
from hansa_matrix.client_api.rooms.threads import is_in_thread
from hansa_matrix.errors import matrix_error
from hansa_matrix.proto import ids
from hansa_matrix.proto.edus import ReceiptEdu
from hansa_matrix.rooms.local_server import LocalServer
from hansa_matrix.rooms.typing_and_receipts import PRIVATE, TypingAndReceipts

_MARKS = {"m.fully_read": "", "m.read": "m.read", "m.read.private": "m.read.private"}


class ReceiptEndpoints:
    """The endpoints of a user's typing notifications, receipts and read markers."""

    def __init__(
        self, own: LocalServer, sender: LocalSender, ephemeral: TypingAndReceipts, settings: UserSettings
    ) -> None:
        self._ctx: NetworkContext = own.ctx
        self._voice = sender
        self._signals = ephemeral
        self._data = settings.data
        self._unread = settings.unread

    def routes(self) -> Mapping[tuple[str, str], Handler | RateLimited]:
        """See ``http.EndpointGroup.routes``."""
        return {
            ("PUT", "/v3/rooms/{room}/typing/{user}"): self.set_typing,
            ("POST", "/v3/rooms/{room}/receipt/{kind}/{event}"): self.send_receipt,
            ("POST", "/v3/rooms/{room}/read_markers"): self.set_read_markers,
        }

    async def set_typing(self, caller: Requester, request: Request, body: Any) -> Any:
        """``PUT /typing/{userId}``."""
        if request.path["user"] != caller.user:
            raise matrix_error(403, "M_FORBIDDEN", "you can only set your own typing status")
        on, timeout = body.get("typing"), body.get("timeout", 30_000)
        if not isinstance(on, bool) or type(timeout) is not int or timeout < 0:
            raise matrix_error(
                400, "M_BAD_JSON", "typing must be true or false, and timeout a number of milliseconds"
            )
        room = self._voice.require_joined(caller.user, request.path["room"])
        await self._signals.type(caller.user, room, typing=on, seconds=timeout / 1000)
        return {}

    async def send_receipt(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /receipt/{receiptType}/{eventId}``."""
        kind, thread = request.path["kind"], body.get("thread_id", "")
        if kind not in _MARKS:
            raise matrix_error(400, "M_INVALID_PARAM", "the receipt type is not supported")
        if not isinstance(thread, str) or (
            "thread_id" in body and (not thread or not ids.fits_255_bytes(thread))
        ):
            raise matrix_error(400, "M_INVALID_PARAM", "thread_id must be main or an event ID")
        if thread and kind == "m.fully_read":
            raise matrix_error(400, "M_INVALID_PARAM", "m.fully_read cannot be set for a thread")
        await self._set_receipts(caller, request.path["room"], {kind: request.path["event"]}, thread)
        return {}

    async def set_read_markers(self, caller: Requester, request: Request, body: Any) -> Any:
        """``POST /read_markers``."""
        marks = {kind: get_string(body, kind) for kind in _MARKS if kind in body}
        await self._set_receipts(caller, request.path["room"], marks, "")
        return {}

    async def _set_receipts(
        self, caller: Requester, room_id: str, marks: Mapping[str, str], thread: str
    ) -> None:
        room = self._voice.require_joined(caller.user, room_id)
        if not all(map(ids.is_valid_event_id, marks.values())):
            raise matrix_error(400, "M_INVALID_PARAM", "this is not an event ID")
        for kind, event_id in marks.items():
            if kind == "m.fully_read":
                await self._data.put(caller.user, room_id, FULLY_READ, {"event_id": event_id})
                continue
            event = (await room.events.load([event_id], room.version)).get(event_id) if thread else None
            if event is not None and not await is_in_thread(room, event, thread):
                raise matrix_error(400, "M_INVALID_PARAM", "that event is not in the thread")
            kept = PRIVATE + thread if kind == "m.read.private" else thread
            if await self._unread.is_behind(caller.user, room_id, kept, event_id):
                continue  # another device of the user has read further
            now = self._ctx.clock.now()
            read = ReceiptEdu(room_id=room_id, user=caller.user, event_id=event_id, ts=now, thread=thread)
            await self._signals.read(read, private=kind == "m.read.private")
