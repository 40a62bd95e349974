"""The texts of Matrix events: every string that is not known to be an identifier.

SPEC: Matrix v1.19, client-server API, "Events" and "Modules". The exceptions stand here, and why: the names
of members that the specification gives say nothing themselves; a value is an identifier where the
specification puts one *and* it has the form of one. Everything else is a text: other names of members, other
event types, state keys, reaction keys, file names, unknown values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hansa import strings_of

#: Names of members in the specification, and in the proposals that clients send.
NAMES = frozenset(
    re.findall(
        r"\S+",
        """
        type content sender state_key room_id event_id origin origin_server_ts unsigned body msgtype format
        formatted_body url info file filename mimetype size w h duration thumbnail_url
        thumbnail_file thumbnail_info geo_uri membership displayname avatar_url reason
        third_party_invite signed mxid token display_name is_direct join_authorised_via_users_server
        name topic alias alt_aliases join_rule allow via history_visibility guest_access creator
        room_version predecessor additional_creators m.federate algorithm rotation_period_ms
        rotation_period_msgs ban kick invite redact events events_default state_default users
        users_default notifications room pinned allow_ip_literals deny redacts replacement_room
        suggested order canonical parent key_validity_url public_key public_keys ciphertext
        sender_key session_id device_id key iv hashes sha256 v kty key_ops alg k ext m.relates_to
        rel_type m.in_reply_to is_falling_back m.mentions user_ids m.new_content m.topic m.text
        m.reference m.replace m.annotation m.thread m.relations call_id party_id version lifetime
        offer answer sdp candidates candidate sdpMid sdpMLineIndex selected_party_id invitee
        sdp_stream_metadata purpose audio_muted video_muted entity recommendation server_notice_type
        admin_contact limit_type transaction_id methods from_device timestamp to keys mac commitment
        hash key_agreement_protocol key_agreement_protocols message_authentication_code
        message_authentication_codes short_authentication_string code images shortcode usage pack
        attribution marked_unread presence currently_active last_active_ago status_msg user_id
        recipient recipient_keys ed25519 curve25519 session_key requesting_device_id request_id
        action secret sender_claimed_ed25519_key forwarding_curve25519_key_chain is_animated
        org.matrix.msc1767.text org.matrix.msc1767.audio org.matrix.msc1767.file
        org.matrix.msc3245.voice waveform xyz.amorgan.blurhash org.matrix.msc3381.poll.start
        org.matrix.msc3381.poll.response question answers id max_selections kind m.poll
        m.poll.response m.selections m.markup m.location m.asset m.ts m.file m.image m.video m.audio
        m.voice m.caption uri description zoom_level org.matrix.msc3488.location
        org.matrix.msc3488.asset org.matrix.msc3488.ts org.matrix.msc3952.mentions signatures
        m.room.name m.room.topic m.room.avatar m.room.canonical_alias m.room.history_visibility
        m.room.power_levels m.room.encryption m.room.server_acl m.room.tombstone m.room.redaction
        m.room.join_rules m.room.message m.space.child m.space.parent m.call m.call.member
        im.vector.modular.widgets
        """,
    )
)
#: Event types and other words that the specification defines.
_TYPES = (
    r"m\.room\.(?:message|encrypted|member|name|topic|avatar|create|power_levels|join_rules|redaction"
    r"|history_visibility|guest_access|encryption|canonical_alias|aliases|pinned_events|server_acl|tombstone"
    r"|third_party_invite|policy|image_pack|related_groups|bot\.options)"
    r"|m\.(?:reaction|sticker|presence|typing|receipt|dummy|direct|tag|space\.(?:child|parent)"
    r"|policy\.rule\.(?:user|room|server)|poll\.(?:start|response|end)|call\.(?:invite|candidates|answer|hangup"
    r"|select_answer|reject|negotiate|sdp_stream_metadata_changed|member|notify)"
    r"|key\.verification\.(?:request|ready|start|accept|key|mac|done|cancel)|room_key(?:_request|\.withheld)?"
    r"|forwarded_room_key|secret\.(?:request|send)|beacon(?:_info)?|location|file|image|audio|video|voice|text)"
    r"|org\.matrix\.msc3381\.poll\.(?:start|response|end)|org\.matrix\.call\.sdp_stream_metadata_changed"
)
_SERVER = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.\-]{1,255})(?::[0-9]{1,5})?"
_USER = rf"@[a-z0-9._=\-/+]{{1,254}}:{_SERVER}"
_EVENT = rf"\$(?:[A-Za-z0-9_\-+/]{{43}}|[A-Za-z0-9]{{1,64}}:{_SERVER})"
_ROOM = rf"!(?:[A-Za-z0-9_\-]{{43}}|[A-Za-z0-9]{{1,64}}:{_SERVER})"
_MXC = rf"mxc://{_SERVER}/[A-Za-z0-9_\-]{{1,255}}"
#: Base64 of 32 bytes or more; a text is known by its spaces.
_BASE64 = r"[A-Za-z0-9+/_\-]{40,}={0,2}"
_MIME = (
    r"image/(?:png|jpeg|gif|webp|svg\+xml|avif|apng|bmp|tiff|heic|heif|x-icon|jxl)"
    r"|video/(?:mp4|webm|ogg|quicktime|x-matroska|mpeg|3gpp)"
    r"|audio/(?:mpeg|ogg|mp4|webm|wav|x-wav|aac|flac|opus|x-m4a)(?:; ?codecs=opus)?"
    r"|text/(?:plain|html|css|csv|markdown|calendar)(?:; ?charset=utf-8)?"
    r"|application/(?:octet-stream|pdf|zip|json|xml|gzip|x-tar|x-7z-compressed|msword|rtf"
    r"|vnd\.openxmlformats-officedocument\.(?:wordprocessingml\.document|spreadsheetml\.sheet"
    r"|presentationml\.presentation)|vnd\.oasis\.opendocument\.(?:text|spreadsheet|presentation))"
)
_ALGORITHMS = r"m\.(?:megolm|olm)\.v1\.[a-z0-9\-]{1,32}"


def _any_of(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{one})" for one in alternatives), re.ASCII)


#: The form of an identifier, by the name of its field.
FORMS: Mapping[str, re.Pattern[str]] = {
    **dict.fromkeys(("user_id", "user_ids", "users", "sender", "creator", "mxid", "invitee"), _any_of(_USER)),
    **dict.fromkeys(("additional_creators", "join_authorised_via_users_server"), _any_of(_USER)),
    **dict.fromkeys(("event_id", "redacts", "pinned", "parent_event_id"), _any_of(_EVENT)),
    **dict.fromkeys(("room_id", "replacement_room"), _any_of(_ROOM)),
    **dict.fromkeys(("url", "avatar_url", "thumbnail_url"), _any_of(_MXC)),
    **dict.fromkeys(("via", "room"), _any_of(_SERVER)),
    **dict.fromkeys(("sha256", "sender_key", "session_id", "k", "iv", "commitment", "mac"), _any_of(_BASE64)),
    **dict.fromkeys(("public_key", "ed25519", "curve25519", "session_key"), _any_of(_BASE64)),
    "origin": _any_of(_SERVER),
    "type": _any_of(_TYPES, "m.room_membership", "m.space", "m.olm.*", r"[01]"),
    "events": _any_of(_TYPES),
    "predecessor": _any_of(_ROOM, _EVENT),
    "msgtype": _any_of(
        r"m\.(?:text|emote|notice|image|file|audio|video|location|server_notice|key\.verification\.request)"
    ),
    "format": _any_of(r"org\.matrix\.custom\.html"),
    "membership": _any_of("join|leave|invite|ban|knock"),
    "join_rule": _any_of("public|invite|knock|restricted|knock_restricted|private"),
    "history_visibility": _any_of("world_readable|shared|invited|joined"),
    "guest_access": _any_of("can_join|forbidden"),
    "presence": _any_of("online|offline|unavailable|busy"),
    "rel_type": _any_of(r"m\.(?:replace|annotation|thread|reference)"),
    "algorithm": _any_of(_ALGORITHMS),
    "algorithms": _any_of(_ALGORITHMS),
    "mimetype": _any_of(_MIME),
    "device_id": _any_of(r"[A-Z]{10}"),
    "from_device": _any_of(r"[A-Z]{10}"),
    "v": _any_of("v[0-9]"),
    "kty": _any_of("oct"),
    "alg": _any_of("A256CTR"),
    "key_ops": _any_of("encrypt|decrypt"),
    "room_version": _any_of(r"[0-9]{1,2}|org\.matrix\.[A-Za-z0-9.\-]{1,40}"),
    "version": _any_of(r"[0-9]{1,3}"),
}
#: The forms of a key, of its name and of a device's in documents of keys, known by its form
#: alone: base64 of 32 or 64 bytes, the ids of one-time keys, what names a device or an algorithm.
_KEY_ID = r"[A-Za-z0-9+/_\-]{43}=?|[A-Za-z0-9+/_\-]{86}(?:==)?|[A-Za-z0-9+/]{6}|[A-Za-z0-9+/]{11}|[A-Z]{10}"
_IN_KEYS = _any_of(_USER, _ALGORITHMS, _KEY_ID, rf"(?:signed_)?(?:curve25519|ed25519):(?:{_KEY_ID})")
_NAMES_OF_KEYS = NAMES | {
    "algorithms",
    "signatures",
    "fallback",
    "device_display_name",
    "dehydrated",
    "master",
    "self_signing",
    "user_signing",
}
#: The members of an event between servers whose values are judged as what they are, or are not texts.
#: SPEC: room version specifications, "Event format".
_ENVELOPE = frozenset(
    {
        "auth_events",
        "content",
        "depth",
        "event_id",
        "hashes",
        "origin_server_ts",
        "prev_events",
        "room_id",
        "sender",
        "signatures",
        "state_key",
        "type",
        "unsigned",
    }
)
_SEALED = {**FORMS, "ciphertext": re.compile(r"[A-Za-z0-9+/]{16,}={0,2}", re.ASCII)}
#: Types of which the state key is a user id.
_KEYED_BY_USER = frozenset({"m.room.member", "m.call.member", "org.matrix.msc3401.call.member"})


def texts_of_event(
    type_: str, state_key: str | None, content: Mapping[str, Any], *more: Any
) -> tuple[str, ...]:
    """Every string of an event that is not known to be an identifier, its type and its state key included.
    ``more`` are further JSON values that belong to it (an EDU's fields, stripped state).

    What stands beside the ciphertext of an encrypted event is read like anything else.
    """
    sealed = type_ == "m.room.encrypted"
    whole: list[Any] = [{"type": type_, "content": content}, *more]
    if state_key:
        whole.append({"sender" if type_ in _KEYED_BY_USER else "state_key": state_key})
    return strings_of(whole, names=NAMES, forms=_SEALED if sealed else FORMS)


def texts_of_pdu(type_: str, state_key: str | None, raw: Mapping[str, Any]) -> tuple[str, ...]:
    """As ``texts_of_event``, of an event as servers have it: what stands beside the members that it has to
    have is handed on with it, to servers and to clients that ask for it in that format.
    """
    beside = {name: value for name, value in raw.items() if name not in _ENVELOPE}
    hashes = raw.get("hashes")
    more = {k: v for k, v in hashes.items() if k != "sha256"} if isinstance(hashes, dict) else {}
    content = raw.get("content")
    said = [one for one in (beside, more) if one]
    return texts_of_event(type_, state_key, content if isinstance(content, dict) else {}, *said)


def texts_of_keys(*documents: Any) -> tuple[str, ...]:
    """Returns every string of documents of keys (of devices, of cross-signing, one-time ones) that is not a
    key, and not a name of a key, device or user. Others get the documents as they were signed, with all
    fields.
    """
    found = strings_of(documents, names=_NAMES_OF_KEYS)
    return tuple(text for text in found if text not in _NAMES_OF_KEYS and not _IN_KEYS.fullmatch(text))


def without_texts(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an event's content without its texts: identifiers, numbers, and the field names of the
    specification. A list loses the strings that are texts, an object its members.
    """
    kept = _without_texts("", dict(content))
    assert isinstance(kept, dict)
    return kept


_TEXT = object()


def _without_texts(inside: str, value: Any) -> Any:
    """A value without its texts, ``_TEXT`` for one that is a text; as deep as an event may be."""
    form = FORMS.get(inside)
    match value:
        case str():
            return value if not value or (form is not None and form.fullmatch(value)) else _TEXT
        case dict():
            named = {k: v for k, v in value.items() if k in NAMES or (form is not None and form.fullmatch(k))}
            each = {key: _without_texts(key, member) for key, member in named.items()}
            return {key: member for key, member in each.items() if member is not _TEXT}
        case list():
            return [one for one in (_without_texts(inside, member) for member in value) if one is not _TEXT]
        case _:
            return value
