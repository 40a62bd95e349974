"""A client of matrix-nio, with its own encryption, on any server."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Self

from nio import (
    AsyncClient,
    AsyncClientConfig,
    Event,
    JoinResponse,
    LoginResponse,
    MegolmEvent,
    RoomCreateResponse,
    RoomInviteResponse,
    RoomMessageText,
    RoomPreset,
    RoomSendResponse,
    SyncResponse,
)

from peers.waiting import until


class NioUser:
    """One logged-in user, who syncs when the test asks for something."""

    def __init__(self, folder: Path, url: str, user: str, ca: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True)
        context = ssl.create_default_context(cafile=str(ca))
        self.client = AsyncClient(url, user, store_path=str(folder), config=config, ssl=context)  # type: ignore[arg-type]
        self.id = user
        #: ``(room, sender, text, encrypted)`` of what was said, in the order in which it came.
        self.said: list[tuple[str, str, str, bool]] = []
        self.events: list[Event] = []
        self.undecipherable: list[MegolmEvent] = []
        self.client.add_event_callback(self._text, RoomMessageText)
        self.client.add_event_callback(self.undecipherable_came, MegolmEvent)
        self.client.add_event_callback(self._any, Event)

    async def _text(self, room: Any, event: RoomMessageText) -> None:
        self.said.append((room.room_id, event.sender, event.body, event.decrypted))

    async def undecipherable_came(self, _room: Any, event: MegolmEvent) -> None:
        self.undecipherable.append(event)

    async def _any(self, _room: Any, event: Event) -> None:
        self.events.append(event)

    async def login(self, password: str) -> Self:
        answer = await self.client.login(password, device_name="nio")
        assert isinstance(answer, LoginResponse), answer
        await self.sync()
        return self

    async def encrypted_with(self, guest: NioUser, **more: Any) -> str:
        """A private encrypted room that both are in; ``more`` is for ``room_create``."""
        encrypted = {
            "type": "m.room.encryption",
            "state_key": "",
            "content": {"algorithm": "m.megolm.v1.aes-sha2"},
        }
        made = await self.client.room_create(
            preset=RoomPreset.private_chat, initial_state=[encrypted], **more
        )
        assert isinstance(made, RoomCreateResponse), made
        room = made.room_id
        asked = await self.client.room_invite(room, guest.id)
        assert isinstance(asked, RoomInviteResponse), asked
        await guest.until("the invite", lambda: room in guest.client.invited_rooms)
        joined = await guest.client.join(room)
        assert isinstance(joined, JoinResponse), joined
        return str(room)

    async def sync(self, timeout: int = 0) -> SyncResponse:
        """One sync, and what a client does with what it brings: keys are uploaded, asked for and shared."""
        answer = await self.client.sync(timeout=timeout)
        assert isinstance(answer, SyncResponse), answer
        await self.client.send_to_device_messages()
        if self.client.should_upload_keys:
            await self.client.keys_upload()
        if self.client.should_query_keys:
            await self.client.keys_query()
        if self.client.should_claim_keys:
            await self.client.keys_claim(self.client.get_users_for_key_claiming())
        return answer

    async def say(self, room: str, text: str) -> str:
        """A message, encrypted where the room is."""
        content = {"msgtype": "m.text", "body": text}
        answer = await self.client.room_send(room, "m.room.message", content, ignore_unverified_devices=True)
        assert isinstance(answer, RoomSendResponse), answer
        return str(answer.event_id)

    def bodies(self, room: str, sender: str = "") -> list[str]:
        """Returns the messages in a room, of all users or of one."""
        return [text for r, who, text, _ in self.said if r == room and sender in {"", who}]

    async def until(self, what: str, condition: Any, seconds: float = 60.0) -> Any:
        """Sync until a condition gives something."""

        async def there() -> Any:
            found = condition()
            if not found:
                await self.sync(timeout=500)
            return found

        return await until(what, there, seconds)

    async def close(self) -> None:
        await self.client.close()
