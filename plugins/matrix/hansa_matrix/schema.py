"""The collections of a Matrix network."""

from __future__ import annotations

from hansa import Collection, Schema

SCHEMA = Schema(
    owner="matrix",
    version=1,
    collections=(
        #: One room: version, forward extremities, current state group, depth.
        Collection(name="room", key={"room_id": str}),
        #: One event as it hashes; ``state`` groups before and after it, 0 where they are not known. ``depth``
        #: is its place by our own count: see ``room.room``.
        Collection(
            name="pdu",
            key={"event_id": str},
            fields={
                "room_id": str,
                "status": str,
                "depth": int,
                "before": int,
                "after": int,
                "reason": str,
                "marks": int,
            },
            indexes=(("room_id", "depth"),),
            heap=True,
        ),
        #: One state as a difference to its parent, or whole.
        Collection(name="state_group", key={"room_id": str, "id": int}),
        #: Received and acknowledged, not judged yet.
        Collection(
            name="staged",
            key={"room_id": str, "at": int},
            fields={"event_id": str, "origin": str},
        ),
        #: An event that others cite and that cannot be had or verified; ``since`` and ``again`` in ms.
        Collection(
            name="hole",
            key={"room_id": str, "event_id": str},
            fields={"why": str, "origin": str, "since": int, "again": int},
        ),
        #: Answers to transactions, for a repeat.
        Collection(
            name="txn",
            key={"origin": str, "txn": str},
            fields={"ts": int},
            indexes=(("origin", "ts"),),
        ),
        Collection(name="key", key={"server": str, "key_id": str}),
        #: The key document of a server as it gave it, for those whose notary we are; ``fetched`` in ms.
        Collection(name="key_document", key={"server": str}, fields={"fetched": int, "valid_until": int}),
        #: ``body``: the room, and who gave the name. See ``rooms/directory/aliases.py``.
        Collection(name="room_alias", key={"alias": str}, fields={"room_id": str}, indexes=(("room_id",),)),
        #: Our events to other servers, in order, by the set of servers they go to.
        Collection(
            name="out",
            stream=True,
            fields={"recipients": int, "event_id": str, "room_id": str},
            indexes=(("recipients", "position"), ("event_id",)),
        ),
        Collection(name="recipients", key={"id": int}),
        #: How far the stream of our events was at a time (ms): how old its rows are.
        Collection(name="out_mark", key={"at": int}, fields={"position": int}),
        #: EDUs that may not be lost, in the same way.
        Collection(
            name="lasting_edu",
            stream=True,
            fields={"recipients": int},
            indexes=(("recipients", "position"),),
        ),
        #: How far a server has got, and since when (ms) it fails.
        Collection(
            name="destination",
            key={"server": str},
            fields={"position": int, "lasting": int, "failures": int, "failing_since": int},
        ),
        #: Redactions of events that are not here yet, by those events.
        Collection(name="redaction", key={"room_id": str, "target": str}),
        #: Redacted events as they were, until a time in ms.
        Collection(name="original", key={"event_id": str}, fields={"until": int}, indexes=(("until",),)),
        #: ``body``: who published the room, empty for an operator.
        Collection(name="published", key={"room_id": str}),
        Collection(name="blocked", key={"room_id": str}),
        #: A room that is being replaced: see ``rooms/upgrade/unfinished_upgrades.py``.
        Collection(name="upgrade", key={"room_id": str}),
        #: The last receipt of a person in a room or thread: event id and time.
        Collection(name="receipt", key={"room_id": str, "user_id": str, "thread": str}),
        #: Devices of people here, with their keys as they uploaded them.
        Collection(name="device", key={"user_id": str, "device_id": str}),
        #: The number of the last change of a user's devices.
        Collection(name="device_list", key={"user_id": str}),
        #: ``key_id`` is ``ALGORITHM:ID``; ``at`` numbers a device's keys in the order of their upload.
        Collection(
            name="one_time_key",
            key={"user_id": str, "device_id": str, "key_id": str},
            fields={"algorithm": str, "at": int},
            indexes=(("user_id", "device_id", "algorithm", "at"),),
        ),
        Collection(name="fallback_key", key={"user_id": str, "device_id": str, "algorithm": str}),
        Collection(name="cross_signing_key", key={"user_id": str, "usage": str}),
        #: The signatures of people here on others' master keys, which nobody else is shown.
        Collection(name="vouched", key={"by": str, "user_id": str, "key_id": str}),
        #: Messages for a local device, from another server or a local user (``peer``), since when (ms).
        Collection(
            name="to_device",
            stream=True,
            fields={"user_id": str, "device_id": str, "peer": str, "ts": int},
            indexes=(
                ("user_id", "device_id", "position"),
                ("user_id", "device_id", "peer", "position"),
                ("ts",),
            ),
        ),
        #: How many messages of a peer wait for a device, and of how many bytes.
        Collection(
            name="to_device_usage",
            key={"user_id": str, "device_id": str, "peer": str},
            indexes=(("peer",),),
        ),
        #: Messages that already arrived from another server.
        Collection(
            name="to_device_seen",
            key={"origin": str, "message_id": str},
            fields={"ts": int},
            indexes=(("ts",), ("origin", "ts")),
        ),
        #: Devices of people elsewhere, as their servers tell; ``stale`` is 1 if they are to be asked again.
        Collection(name="remote_devices", key={"user_id": str}, fields={"stale": int}, indexes=(("stale",),)),
        #: How many lists of devices of a server are kept, and of how many bytes.
        Collection(name="remote_devices_usage", key={"server": str}),
        #: Files by their address: of which bytes, and when (ms) they were asked for last; ``remote`` is 1 for
        #: copies of another server's files.
        Collection(
            name="media",
            key={"server": str, "media_id": str},
            fields={"digest": str, "used": int, "remote": int},
            indexes=(("used",), ("digest",), ("server", "used"), ("remote", "used")),
        ),
        #: The usage of files of a user, of another server, or (``*``) of all other servers take here:
        #: ``body`` is
        #: bytes and files.
        Collection(name="media_usage", key={"owner": str}),
        #: Addresses that are reserved by a user for files that have not arrived yet, until a time in ms;
        #: ``body`` is ``filled`` once the file came.
        Collection(
            name="media_reserved",
            key={"media_id": str},
            fields={"until": int, "owner": str},
            indexes=(("until",), ("owner", "until")),
        ),
        #: Bytes that are being removed, and since when (ms): who gives them an address meanwhile is too late.
        Collection(name="media_going", key={"digest": str}, fields={"at": int}, indexes=(("at",),)),
        #: The profiles of local users, field by field.
        Collection(name="profile", key={"user_id": str}),
        #: Hashes of tokens that say who bears them, until a time in ms.
        Collection(
            name="openid",
            key={"token": str},
            fields={"until": int, "user_id": str},
            indexes=(("until",), ("user_id", "until")),
        ),
        #: Invites to rooms that this server is not in, and knocks there: by which server (empty: this one),
        #: and
        #: since when (ms).
        Collection(
            name="invite",
            key={"room_id": str, "user_id": str},
            fields={"peer": str, "at": int},
            indexes=(("user_id", "peer", "at"), ("peer", "at"), ("at",)),
        ),
        #: People who log in here: how they prove who they are, and what they may.
        Collection(name="account", key={"user_id": str}),
        #: Hashes of access tokens, and whose device has one.
        Collection(
            name="access_token",
            key={"token": str},
            fields={"user_id": str, "device_id": str},
            indexes=(("user_id", "device_id"),),
        ),
        #: When (ms) a device asked last, and from which address.
        Collection(name="last_seen", key={"user_id": str, "device_id": str}),
        #: Registration tokens: how many uses are left, until when they are valid (ms, 0: for ever).
        Collection(name="registration_token", key={"token": str}),
        #: How people with an account stand to rooms.
        Collection(name="stay", key={"user_id": str, "room_id": str}),
        #: The events that ended invites and knocks and that no local room has: see
        #: ``rooms/membership/ended_invites.py``.
        Collection(
            name="left",
            key={"user_id": str, "room_id": str},
            fields={"at": int},
            indexes=(("user_id", "at"), ("at",)),
        ),
        #: The client stream: see ``local.client_stream``.
        Collection(
            name="news",
            stream=True,
            fields={"topic": str, "ref": str, "state": int},
            indexes=(("topic", "position"), ("ref", "position")),
        ),
        #: Account data of a user; ``room_id`` is empty for global data.
        Collection(name="account_data", key={"user_id": str, "room_id": str, "type": str}),
        #: The bytes of it.
        Collection(name="account_data_usage", key={"user_id": str}),
        #: When (ms) a filter was made or used last.
        Collection(name="filter", key={"user_id": str, "filter_id": str}, fields={"at": int}),
        #: Backups of keys, and the keys in them: see ``users/key_backups.py``.
        Collection(name="key_backup", key={"user_id": str, "version": int}),
        Collection(
            name="key_backup_key",
            key={"user_id": str, "version": int, "room_id": str, "session_id": str},
        ),
        #: Events by what they relate to in their room, in the order of ``place``: see ``rooms/relations.py``.
        Collection(
            name="relation",
            key={"target": str, "event_id": str},
            fields={"room_id": str, "kind": str, "type": str, "sender": str, "ts": int, "place": str},
            indexes=(
                ("room_id", "target", "place"),
                ("room_id", "target", "kind", "place"),
                ("room_id", "target", "kind", "sender", "place"),
            ),
        ),
        #: Reports to the operator: by which user, and when (ms).
        Collection(
            name="report",
            stream=True,
            fields={"by": str, "ts": int},
            indexes=(("by", "position"), ("ts",)),
        ),
        #: Events that others relate to.
        Collection(name="related", key={"target": str}),
        #: Redacted events, and by which event.
        Collection(name="redacted_by", key={"event_id": str}),
    ),
)
