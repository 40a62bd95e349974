"""The content of state events, one reader for each type: a typed value, and the specification's default where
a field is missing or of another type.

A peer may put any JSON in place of a string. Code that reads a room's state reads it here, or by
``server_acl``, ``levels`` and ``policy_server``, which read the types that need more. ``content`` is None
where there is no such event.

SPEC: client-server API, "Room Events", "Instant Messaging", "Room History Visibility", "Spaces".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from hansa_matrix.proto.ids import is_valid_room_id

Content = Mapping[str, Any] | None

#: The member content key that names who let a user into a restricted room.
AUTHORISING_USER: Final = "join_authorised_via_users_server"
#: The version of a room whose create event names none.
_FIRST_VERSION: Final = "1"
_VISIBILITIES: Final = frozenset(["joined", "invited", "shared", "world_readable"])
_SHARED_RULES: Final = MappingProxyType(
    {
        "public": "public",
        "knock": "knock",
        "restricted": "restricted",
        "knock_restricted": "restricted",
    }
)
#: Rooms of one join rule that are read.
MAX_ALLOWED_ROOMS: Final = 50
_MAX_ORDER: Final = 50


def string_field(content: Content, key: str) -> str | None:
    """A string, None where there is none: the reader of every field that has no default."""
    value = content.get(key) if content is not None else None
    return value if isinstance(value, str) else None


def _object_field(content: Content, key: str) -> Mapping[str, Any]:
    value = content.get(key) if content is not None else None
    return value if isinstance(value, Mapping) else {}


def _string_list(content: Content, key: str) -> tuple[str, ...]:
    value = content.get(key) if content is not None else None
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()


# m.room.create


def room_version(content: Content) -> str:
    """Returns the version that a create event names, 1 if it names none; empty, which is not a version, for a
    value that is not a string.
    """
    if content is None or "room_version" not in content:
        return _FIRST_VERSION
    return string_field(content, "room_version") or ""


def room_creator(content: Content) -> str | None:
    """Returns the creator of a room, as its create event states it up to version 10."""
    return string_field(content, "creator")


def additional_creators(content: Content) -> tuple[str, ...]:
    """Those who are set over everybody beside the sender, from version 12 on."""
    return _string_list(content, "additional_creators")


def is_federated(content: Content) -> bool:
    """True if a room accepts users of other servers; False only where its create event says exactly that."""
    return content is None or content.get("m.federate") is not False


def room_type(content: Content) -> str | None:
    """Returns the type of a room, such as ``m.space``; None for an ordinary room."""
    return string_field(content, "type")


def predecessor_room(content: Content) -> str | None:
    """The id of the room that a room says it replaces."""
    room_id = _object_field(content, "predecessor").get("room_id")
    return room_id if isinstance(room_id, str) and is_valid_room_id(room_id) else None


# m.room.member


def membership_of(content: Content) -> str | None:
    """Returns a user's membership; None where it is not a string, which is not a membership."""
    value = content.get("membership") if content is not None else None
    return value if isinstance(value, str) else None


def display_name(content: Content) -> str | None:
    """Returns the display name in a member event or a profile."""
    return string_field(content, "displayname")


def avatar_url(content: Content) -> str | None:
    """Returns a user's avatar, in a member event or a profile."""
    return string_field(content, "avatar_url")


def reason_of(content: Content) -> str | None:
    """Why a membership changed, or something was taken back."""
    return string_field(content, "reason")


def authorising_user(content: Content) -> str | None:
    """Returns the user who authorised a join into a restricted room."""
    return string_field(content, AUTHORISING_USER)


def third_party_signed(content: Content) -> Mapping[str, Any] | None:
    """Returns ``third_party_invite.signed``, None where it is not an object."""
    signed = _object_field(content, "third_party_invite").get("signed")
    return signed if isinstance(signed, Mapping) else None


def third_party_token(content: Content) -> str | None:
    """``third_party_invite.signed.token``: the state key of the invite that a member event accepts."""
    return string_field(third_party_signed(content), "token")


# m.room.third_party_invite


def public_keys(content: Content) -> list[str]:
    """Returns the keys (unpadded base64), one of which must have signed the acceptance of a third-party
    invite.
    """
    listed = content.get("public_keys") if content is not None else None
    entries = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    keys = [string_field(content, "public_key"), *(string_field(one, "public_key") for one in entries)]
    return [key for key in keys if key is not None]


# m.room.join_rules


def join_rule(content: Content) -> str:
    """How a room is joined; ``invite`` where no word is said."""
    given = string_field(content, "join_rule")
    return "invite" if given is None else given


def shared_join_rule(content: Content) -> str:
    """How a room is joined, in the words that all networks share: ``public``, ``invite``, ``knock`` or
    ``restricted``. A rule that is none of them lets nobody in without an invite.
    """
    return _SHARED_RULES.get(join_rule(content), "invite")


def auth_join_rule(content: Content) -> str:
    """Returns the join rule as the authorisation rules read it: ``invite`` if the event gives none. A value
    that is not a string lets no user in, since it equals none of the rules: it is read as empty.
    """
    if content is None or "join_rule" not in content:
        return "invite"
    return string_field(content, "join_rule") or ""


def allowed_rooms(content: Content) -> tuple[str, ...]:
    """The ids of the rooms whose members a restricted room lets in, ``MAX_ALLOWED_ROOMS`` at most; empty
    under any other join rule.
    """
    if content is None or join_rule(content) not in {"restricted", "knock_restricted"}:
        return ()
    listed = content.get("allow")
    entries = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    named = [
        string_field(one, "room_id") for one in entries if string_field(one, "type") == "m.room_membership"
    ]
    return tuple(one for one in named if one is not None)[:MAX_ALLOWED_ROOMS]


# m.room.history_visibility, m.room.guest_access


def history_visibility(content: Content) -> str:
    """Returns the history visibility; ``shared`` where the value is missing or unknown."""
    given = string_field(content, "history_visibility")
    return given if given is not None and given in _VISIBILITIES else "shared"


def can_guests_join(content: Content) -> bool:
    """True if guests may join; False where the event does not say it."""
    return string_field(content, "guest_access") == "can_join"


# m.room.canonical_alias


def canonical_alias(content: Content) -> str | None:
    """The name that a room calls itself by first."""
    return string_field(content, "alias")


def alt_aliases(content: Content) -> tuple[str, ...]:
    """The other names that a room calls itself by."""
    return _string_list(content, "alt_aliases")


# m.room.name, m.room.topic, m.room.avatar, m.room.encryption, m.room.tombstone


def room_name(content: Content) -> str | None:
    """Returns the name of a room."""
    return string_field(content, "name")


def room_topic(content: Content) -> str | None:
    """Returns the topic of a room, as plain text."""
    return string_field(content, "topic")


def room_avatar(content: Content) -> str | None:
    """A room's picture."""
    return string_field(content, "url")


def encryption_algorithm(content: Content) -> str | None:
    """How a room's messages are encrypted."""
    return string_field(content, "algorithm")


def replacement_room(content: Content) -> str | None:
    """The id of the room that takes a room's place."""
    room_id = string_field(content, "replacement_room")
    return room_id if is_valid_room_id(room_id) else None


# m.space.child


@dataclass(frozen=True, slots=True)
class SpaceChild:
    """A room in a space: the servers by which it is found (a child without any is none), and its place."""

    via: tuple[str, ...]
    order: str | None
    suggested: bool

    @property
    def sort_key(self) -> tuple[bool, str]:
        """Sorts children as the specification wants it: those with an order come first."""
        return self.order is None, self.order or ""


def space_child(content: Content) -> SpaceChild:
    """Reads ``m.space.child``. An order is up to 50 characters of ASCII, from the space to the tilde."""
    order = string_field(content, "order")
    if order is not None and not (len(order) <= _MAX_ORDER and all(" " <= c <= "~" for c in order)):
        order = None
    suggested = content is not None and content.get("suggested") is True
    return SpaceChild(tuple(one for one in _string_list(content, "via") if one), order, suggested)
