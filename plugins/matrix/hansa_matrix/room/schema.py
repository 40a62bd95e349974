"""What a Matrix network keeps."""

from __future__ import annotations

from hansa import Collection, Schema

SCHEMA = Schema(
    owner="matrix",
    version=1,
    collections=(
        #: One room: version, forward extremities, current state group, depth.
        Collection(name="room", key={"room_id": str}),
        #: One event as it hashes; ``state`` groups before and after it, 0 where they are not known.
        Collection(
            name="pdu",
            key={"event_id": str},
            fields={"room_id": str, "status": str, "depth": int, "before": int, "after": int, "reason": str},
            indexes=(("room_id", "depth"),),
        ),
        #: One state as a difference to its parent, or whole.
        Collection(name="state_group", key={"room_id": str, "id": int}),
        #: Received and acknowledged, not judged yet.
        Collection(
            name="staged",
            key={"room_id": str, "at": int},
            fields={"event_id": str, "origin": str},
        ),
        #: Answers to transactions, for a repeat.
        Collection(name="txn", key={"origin": str, "txn": str}, fields={"ts": int}, indexes=(("ts",),)),
        Collection(name="key", key={"server": str, "key_id": str}),
        #: The key document of a server as it gave it, for those whose notary we are; ``fetched`` in ms.
        Collection(name="key_document", key={"server": str}, fields={"fetched": int, "valid_until": int}),
        Collection(name="room_alias", key={"alias": str}, fields={"room_id": str}),
        #: Our events to other servers, in order, by the set of servers they go to.
        Collection(
            name="out",
            stream=True,
            fields={"recipients": int, "event_id": str, "room_id": str},
            indexes=(("recipients", "position"), ("event_id",)),
        ),
        Collection(name="recipients", key={"id": int}),
        Collection(name="destination", key={"server": str}, fields={"position": int}),
        #: Redactions of events that are not here yet, by those events.
        Collection(name="redaction", key={"room_id": str, "target": str}),
        #: Redacted events as they were, until a time in ms.
        Collection(name="original", key={"event_id": str}, fields={"until": int}, indexes=(("until",),)),
        Collection(name="published", key={"room_id": str}),
        Collection(name="blocked", key={"room_id": str}),
        #: The last receipt of a person in a room or thread: event id and time.
        Collection(name="receipt", key={"room_id": str, "user_id": str, "thread": str}),
        #: Invites to rooms that we are not in.
        Collection(name="invite", key={"room_id": str, "user_id": str}),
    ),
)
