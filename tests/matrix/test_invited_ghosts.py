"""Invites of another server for the ghosts of people of other networks, as its requests have them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from hansa import CannotOpenRoom, NativeId, Refusal, RefusalCode, hookimpl
from hansa.testing import Actor, until
from hansa.testing.actor import Config, module
from hansa_matrix.local.ghosts import escape_localpart
from hansa_matrix.proto.hashing import event_id
from hansa_matrix.proto.pdu import pdu_from_raw
from hansa_matrix.rooms.membership.direct_chats import INVITES
from hansa_matrix.rooms.membership.remote_membership import JOINS
from matrix.server_with_peer import OURS, THEIRS, V2, server_with_peer
from matrix.test_invites import foreign_room
from matrix.test_joining import Resident
from matrix.two_servers import at


class Chat(Actor):
    """A network with direct chats, whose users' names begin with ``ann``."""

    async def is_nonexistent_user(self, user: str) -> bool:
        return not user.startswith("ann")

    async def require_direct_chat(self, user: str, other: NativeId) -> None:
        del other
        if user.startswith("annoyed"):
            raise CannotOpenRoom(Refusal(code=RefusalCode.FORBIDDEN, text=f"{user} takes no messages"))

    async def open_direct_chat(self, user: str, other: NativeId) -> Any:
        raise NotImplementedError(user, other)


def chat_network() -> tuple[Any, Config]:
    plugin = module({})

    @hookimpl
    def open_network(ctx: Any) -> Chat:
        return Chat(ctx)

    plugin.open_network = open_network
    return plugin, Config()


ENCRYPTED = {"type": "m.room.encryption", "state_key": "", "content": {}, "sender": "@m:127.0.0.2:2"}

SPACE = {**ENCRYPTED, "type": "m.room.create", "content": {"type": "m.space"}}


def open_by(rule: str) -> dict[str, Any]:
    return {**ENCRYPTED, "type": "m.room.join_rules", "content": {"join_rule": rule}}


@pytest.mark.parametrize(
    ("person", "direct", "state", "status", "text"),
    [
        ("ann@x", True, [], 200, ""),
        ("ann@x", False, [], 403, "only a direct chat"),
        ("ann@x", True, [ENCRYPTED], 403, "cannot read encrypted"),
        ("ann@x", True, [open_by("invite")], 200, ""),
        ("ann@x", True, [open_by("public")], 403, "only a chat of two"),
        ("ann@x", True, [open_by("restricted")], 403, "only a chat of two"),
        ("ann@x", True, [open_by("knock_restricted")], 403, "only a chat of two"),
        ("ann@x", True, [open_by(["public"])], 200, ""),
        ("ann@x", True, [SPACE], 403, "only a chat of two"),
        ("annoyed@x", True, [], 403, "takes no messages"),
        ("nobody@x", True, [], 404, "there is no"),
    ],
)
async def test_an_invite_for_a_ghost_is_answered_in_words(tmp_path, person, direct, state, status, text):
    async with server_with_peer(tmp_path, "11", beside={"chat": chat_network()}) as house:
        room = foreign_room(house, "11")
        ghost = f"@_chat_{escape_localpart(person)}:{OURS}"
        content = {"membership": "invite", **({"is_direct": True} if direct else {})}
        raw = house.forger.finish(room, house.forger.draft(room, "m.room.member", content, ghost))
        body = {"room_version": "11", "event": raw, "invite_room_state": state}
        name = event_id(raw, room.version)
        answered, answer = await house.ask("PUT", f"{V2}/invite/{at(room.room_id, name)}", body)
        assert answered == status, answer
        assert text in answer.get("error", "")
        waiting = await house.matrix.store.get("invite", (room.room_id, ghost))
        assert (waiting is not None) is (status == 200)


async def test_a_server_that_lets_ghosts_wait_holds_up_its_own_invites_alone(tmp_path, monkeypatch):
    """The joins of ghosts wait for a server in turn, and leave one join to people of this server."""
    async with server_with_peer(tmp_path, "11", beside={"chat": chat_network()}) as house:
        chats = house.matrix.network.homeserver.rooms.direct_chats
        begun = list[str]()

        async def hanging(room_id: str, *_: Any) -> None:
            begun.append(room_id)
            await asyncio.Event().wait()

        monkeypatch.setattr(chats.joiner, "join", hanging)
        ghost = f"@_chat_{escape_localpart('ann@x')}:{OURS}"
        for room, server in ("!a", "slow"), ("!b", "slow"), ("!c", "slow"), ("!d", "quick"), ("!e", "third"):
            invite: Any = SimpleNamespace(room_id=room, state_key=ghost, sender=f"@mallory:{server}")
            chats.accept_invite(invite, server)
        await until(lambda: len(begun) == INVITES.in_all)
        assert sorted(begun) == ["!a", "!d", "!e"]
        assert INVITES.in_all < JOINS.in_all


async def test_a_ghost_that_entered_a_room_of_many_by_a_false_invite_leaves_it_with_words(tmp_path):
    """The stripped state of an invite does not say how many people there are."""
    async with server_with_peer(tmp_path, "11", beside={"chat": chat_network()}) as house:
        there = Resident(house, "11", rules={"join_rule": "public"})
        forger, room = house.forger, there.room
        inviter, room.user = room.user, f"@other:{THEIRS}"
        raw = forger.finish(room, forger.draft(room, "m.room.member", {"membership": "join"}, room.user))
        room.user = inviter
        room.keep(pdu_from_raw(raw, room.version))
        there.events.append(raw)
        ghost = f"@_chat_{escape_localpart('ann@x')}:{OURS}"
        invite = forger.finish(
            room, forger.draft(room, "m.room.member", {"membership": "invite", "is_direct": True}, ghost)
        )
        house.peer.answer = there
        body = {"room_version": "11", "event": invite, "invite_room_state": [open_by("invite")]}
        name = event_id(invite, room.version)
        status, answer = await house.ask("PUT", f"{V2}/invite/{at(room.room_id, name)}", body)
        assert status == 200, answer

        async def left() -> Any:
            known = house.matrix.network.get(room.room_id)
            if known is None:
                return None
            state = await known.state()
            found = await known.events_of(state, [("m.room.member", ghost)])
            member = found.get(("m.room.member", ghost))
            return member if member is not None and member.content["membership"] == "leave" else None

        async with asyncio.timeout(10):
            while (member := await left()) is None:
                await asyncio.sleep(0.01)
        assert "only a chat of two opens by an invite" in member.content["reason"]
