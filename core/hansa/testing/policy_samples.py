"""Crossings of every kind, and events, that ``PolicySuite`` asks a policy about."""

from __future__ import annotations

from typing import Any

from hansa.model.content import Custom, Encrypted, Member, Membership, Message, Name, Topic
from hansa.model.crossing import (
    AdminChange,
    Crossing,
    DirectoryPublish,
    DirectoryQuery,
    EphemeralIn,
    EphemeralOut,
    EventIn,
    EventOut,
    Invite,
    Join,
    KeysQuery,
    Knock,
    Login,
    MediaTransfer,
    MediaUpload,
    PeerConnect,
    Presence,
    ProfileChange,
    ProfileQuery,
    RoomCreate,
    RoomUpgrade,
    ToDevice,
)
from hansa.model.events import Event, Link, NativeFacts
from hansa.model.ref import NativeId
from hansa.model.view import RoomInfo, RoomMember, RoomView, ViewDelta


def sample_people() -> tuple[RoomMember, ...]:
    """Returns the people of the room with which most samples happen."""
    return (
        RoomMember(user=NativeId("one", "ann@x.example"), membership=Membership.JOIN, server="x.example"),
        RoomMember(user=NativeId("two", "bob@y.example"), membership=Membership.JOIN, server="y.example"),
        RoomMember(user=NativeId("two", "cat@z.example"), membership=Membership.BAN, server="z.example"),
    )


def samples() -> list[Crossing]:
    """Returns crossings of every kind, new ones at each call: usual ones and ones at the edge of their
    type.
    """
    view = RoomView("r1", RoomInfo(name="Room", topic="", encrypted=True))
    view.apply(ViewDelta(upserts=sample_people()))
    empty = RoomView("r2")
    here, there = Link(room="r1", native=NativeId("one", "a")), Link(room="r1", native=NativeId("two", "b"))
    ann, bob, nobody = NativeId("one", "ann@x.example"), NativeId("two", "bob@y.example"), NativeId("two", "")
    contents = (
        Message(text="hello"),
        Message(text=""),
        Message(text="\0 \ufffe ﷺ " + "é" * 10_000),
        Member(user=ann, membership=Membership.JOIN, name="Ann"),
        Member(user=ann, membership=Membership.LEAVE),
        Member(user=bob, membership=Membership.BAN, reason="spam"),
        Member(user=nobody, membership=Membership.KNOCK),
        Member(user=bob, membership=Membership.INVITE),
        Name(text="A name"),
        Topic(text=""),
        Encrypted(),
        Custom(type="org.example.poll"),
    )
    facts = NativeFacts(
        type="m.room.message",
        state_key="",
        size=70_000,
        sender_server="x.example",
        room_servers=frozenset({"x.example", "y.example"}),
        texts=("hello", ""),
    )
    found: list[Crossing] = []
    for content in contents:
        found.append(EventIn(link=here, sender=ann, content=content, view=view, facts=facts))
        found.append(EventIn(link=here, sender=nobody, content=content, view=empty, immutable=True))
        found.append(EventOut(link=there, sender=ann, content=content, view=view, facts=facts))
        found.append(EventOut(link=there, sender=nobody, content=content, view=empty))
    servers = frozenset({"x.example", "[2001:db8::1]:8448", ""})
    for outbound in (False, True):
        for server in ("x.example", "127.0.0.1:8448", "[2001:db8::1]", "", "X" * 2000):
            found += [PeerConnect(network="one", server=server, outbound=outbound)]
            found += [ProfileQuery(network="one", server=server, user=ann, outbound=outbound)]
            found += [DirectoryQuery(network="one", server=server, address=server, outbound=outbound)]
            told = ("A room", "")
            found += [DirectoryQuery(network="one", server=server, address="", outbound=True, texts=told)]
            found += [KeysQuery(network="one", server=server, users=(ann, nobody), outbound=outbound)]
        for user, home in ((ann, "x.example"), (nobody, "")):
            found += _entering_crossings(user, home, servers, outbound=outbound)
        for size in (0, 10**12):
            media = MediaTransfer(
                network="one",
                server="x.example",
                media="mxc://x.example/a",
                outbound=outbound,
                type="image/png" if size else "",
                size=size,
                name="cat.png" if size else "",
            )
            found.append(media)
    for user, home in ((ann, "x.example"), (nobody, "")):
        found += _user_crossings(user, home, servers)
    found.append(AdminChange(command="rooms close", arguments=(("room", "r1"),)))
    found.append(AdminChange(command=""))
    for account in ("", "Annette"):
        found.append(
            Login(network="one", server="irc.example", user=ann, user_server="x.example", account=account)
        )
    for kind in ("typing", "receipt", "presence"):
        for sender, shown in ((ann, view), (nobody, empty)):
            server = "x.example" if shown is view else ""
            found.append(EphemeralIn(link=here, sender=sender, sender_server=server, kind=kind, view=shown))
            found.append(
                EphemeralIn(
                    link=here, sender=sender, sender_server=server, kind=kind, view=shown, texts=("$a b",)
                )
            )
            found.append(EphemeralOut(link=there, sender=sender, kind=kind, view=shown))
            found.append(EphemeralOut(link=there, sender=sender, kind=kind, view=shown, texts=("$a b",)))
    return found


def sample_event(crossing: EventIn, seq: int, now: int) -> Event:
    """Returns the event that a crossing becomes: the ``seq``-th, at ``now`` (ms)."""
    return Event(
        id=f"e{seq}",
        room=crossing.link.room,
        seq=seq,
        origin=NativeId("one", f"native-{seq}"),
        sender=crossing.sender,
        content=crossing.content,
        ts=now,
        received=now,
    )


def _entering_crossings(
    user: NativeId, home: str, servers: frozenset[str], *, outbound: bool
) -> list[Crossing]:
    """Crossings with a direction: into a room, and from device to device."""
    texts = ("A name", "") if home else ()
    of_user: dict[str, Any] = {"network": "one", "user": user, "user_server": home, "texts": texts}
    of_room: dict[str, Any] = {"room": "a", "servers": servers, "outbound": outbound}
    invite = Invite(
        network="one",
        room="a",
        sender=NativeId("two", "bob@y.example"),
        sender_server=home,
        user=user,
        outbound=outbound,
        servers=servers,
        texts=texts,
    )
    device = ToDevice(
        network="one",
        sender=user,
        sender_server=home,
        users=(user,),
        servers=servers,
        type="m.room_key_request" if home else "",
        outbound=outbound,
        texts=texts,
    )
    presence = Presence(**of_user, servers=servers, outbound=outbound)
    return [Join(**of_user, **of_room), Knock(**of_user, **of_room), invite, device, presence]


def _user_crossings(user: NativeId, home: str, servers: frozenset[str]) -> list[Crossing]:
    """Returns the crossings that a local person causes."""
    by: dict[str, Any] = {"network": "one", "user": user, "user_server": home}
    return [
        RoomCreate(**by),
        RoomCreate(**by, version="12", invited=(user,), servers=servers, federated=False, texts=("n", "")),
        RoomUpgrade(**by, room="a", version="12", servers=servers),
        ProfileChange(**by, texts=("Ann", "")),
        DirectoryPublish(**by, room="a"),
        DirectoryPublish(**by, room="a", address="#a:x.example", texts=("A name",)),
        MediaUpload(**by),
        MediaUpload(**by, media="mxc://x.example/b", name="b.txt", type="text/plain", size=3),
    ]
