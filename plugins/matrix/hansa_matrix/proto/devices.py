"""Devices, their keys, and what servers tell each other of them.

SPEC: server-server API, "Device Management", "End-to-End Encryption", "Send-to-device messaging". Keys are
opaque here: shape and size are judged, never what they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hansa.model.errors import RemoteProtocolError

from hansa_matrix.proto import ids
from hansa_matrix.proto.canonical_json import check_depth, dumps_canonical
from hansa_matrix.proto.signing import signatures_of

DEVICE_LIST, TO_DEVICE, SIGNING_KEYS = (
    "m.device_list_update",
    "m.direct_to_device",
    "m.signing_key_update",
)
#: Cross-signing keys that other people's servers may know; a ``user_signing`` key is its owner's alone.
PUBLIC_USAGES = ("master", "self_signing")
USAGES = (*PUBLIC_USAGES, "user_signing")

#: Bounds on what one server may make another keep.
MAX_DEVICES = 2000
MAX_KEYS_SIZE = 32 * 1024
MAX_ONE_TIME_KEY = 4 * 1024
MAX_MESSAGE_SIZE = 64 * 1024
MAX_ID = 255
_MAX_USERS, _MAX_PREVIOUS, _MAX_ALGORITHMS, _MAX_KEYS = 10_000, 1000, 50, 50
_MAX_STREAM_ID = 2**53 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One device as others see it. ``keys`` is its signed key object, None if it has none."""

    device_id: str
    keys: Mapping[str, Any] | None = None
    name: str = ""

    def device_json(self) -> dict[str, Any]:
        """As ``/user/devices`` lists it."""
        shown = {"device_id": self.device_id, "keys": self.keys}
        return shown | ({"device_display_name": self.name} if self.name else {})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceListUpdate:
    """One device of a user changed, appeared or (``deleted``) went. ``previous`` are the stream ids of the
    changes that this one follows.
    """

    user: str
    stream_id: int
    device: Device
    previous: tuple[int, ...] = ()
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ToDeviceEdu:
    """A message to devices: ``messages`` is by user and by device, where ``*`` are all of a user's."""

    sender: str
    type: str
    message_id: str
    messages: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKeyUpdate:
    """A user's cross-signing keys by usage; a missing one is unchanged."""

    user: str
    keys: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class UserDevices:
    """All devices of a user at one moment."""

    user: str
    stream_id: int
    devices: Mapping[str, Device] = field(default_factory=dict)
    cross_signing: Mapping[str, Any] = field(default_factory=dict)

    def query_response(self) -> dict[str, Any]:
        """The answer of ``/user/devices``."""
        shown = [d.device_json() for d in self.devices.values() if d.keys is not None]
        signing = {f"{usage}_key": key for usage, key in self.cross_signing.items() if usage in PUBLIC_USAGES}
        return {"user_id": self.user, "stream_id": self.stream_id, "devices": shown, **signing}


def is_valid_device_id(value: object) -> bool:
    """A name of a device that may be kept: not empty, at most 255 bytes."""
    return isinstance(value, str) and bool(value) and ids.fits_255_bytes(value)


def parse_device_keys(value: object, user: str, device_id: str) -> Mapping[str, Any] | None:
    """The signed key object of a device if it is one of this device, else None (CVE-2025-61672)."""
    if not isinstance(value, dict) or value.get("user_id") != user or value.get("device_id") != device_id:
        return None
    algorithms, keys = value.get("algorithms"), value.get("keys")
    if not isinstance(algorithms, list) or len(algorithms) > _MAX_ALGORITHMS or not _is_string_map(keys):
        return None
    if not all(isinstance(one, str) for one in algorithms) or not _is_signature_map(
        value.get("signatures", {})
    ):
        return None
    return value if fits_object(value, MAX_KEYS_SIZE) else None


def parse_cross_signing_key(value: object, user: str, usage: str) -> Mapping[str, Any] | None:
    """Returns a user's cross-signing key for one usage, None if the value is not one."""
    if not isinstance(value, dict) or value.get("user_id") != user or not _is_string_map(value.get("keys")):
        return None
    named = value.get("usage")
    if not isinstance(named, list) or usage not in named or len(value["keys"]) != 1:
        return None
    if not _is_signature_map(value.get("signatures", {})):
        return None
    return value if fits_object(value, MAX_KEYS_SIZE) else None


def parse_one_time_key(key_id: object, value: object) -> str | None:
    """The algorithm of a one-time or fallback key ``ALGORITHM:ID``, None if it is none."""
    if not isinstance(key_id, str) or not ids.fits_255_bytes(key_id):
        return None
    algorithm, colon, name = key_id.partition(":")
    if not algorithm or not colon or not name:
        return None
    signed = isinstance(value, dict) and isinstance(value.get("key"), str)
    if not (isinstance(value, str) or signed) or not fits_object(value, MAX_ONE_TIME_KEY):
        return None
    return algorithm


def merge_signatures(kept: Mapping[str, Any], signed: Mapping[str, Any], user: str) -> dict[str, Any] | None:
    """Returns stored keys with a user's signatures on the same keys; None if the signatures are on other
    keys.
    """

    def without_signatures(keys: Mapping[str, Any]) -> dict[str, Any]:
        return {k: v for k, v in keys.items() if k not in {"signatures", "unsigned"}}

    if without_signatures(kept) != without_signatures(signed):
        return None
    signatures = kept.get("signatures", {})
    own = {**signatures.get(user, {}), **signatures_of(signed, user)}
    return {**kept, "signatures": {**signatures, user: own}}


def parse_device_list(content: Mapping[str, Any], origin: str) -> DeviceListUpdate | None:
    """The content of ``m.device_list_update``; None if it is malformed or of another server's user."""
    user, device_id, stream_id = content.get("user_id"), content.get("device_id"), content.get("stream_id")
    if not _is_of_origin(user, origin) or not is_valid_device_id(device_id) or not _is_stream_id(stream_id):
        return None
    previous, deleted, name = (
        content.get("prev_id", []),
        content.get("deleted", False),
        content.get("device_display_name"),
    )
    if (
        not isinstance(previous, list)
        or len(previous) > _MAX_PREVIOUS
        or not all(map(_is_stream_id, previous))
    ):
        return None
    keys = content.get("keys")
    if keys is not None and parse_device_keys(keys, str(user), str(device_id)) is None:
        return None
    return DeviceListUpdate(
        user=str(user),
        stream_id=int(stream_id),  # type: ignore[arg-type]
        device=Device(device_id=str(device_id), keys=keys, name=truncate_name(name)),
        previous=tuple(previous),
        deleted=deleted is True,
    )


def parse_to_device(content: Mapping[str, Any], origin: str) -> ToDeviceEdu | None:
    """The content of ``m.direct_to_device``; None if it is malformed or of another server's user."""
    sender, kind, message_id = content.get("sender"), content.get("type"), content.get("message_id")
    messages = content.get("messages")
    if (
        not _is_of_origin(sender, origin)
        or not is_valid_device_id(kind)
        or not is_valid_device_id(message_id)
    ):
        return None
    if not isinstance(messages, dict) or len(messages) > _MAX_USERS:
        return None
    for user, devices in messages.items():
        if not ids.is_valid_user_id(user) or not isinstance(devices, dict) or len(devices) > MAX_DEVICES:
            return None
        if not all(is_valid_device_id(d) and isinstance(c, dict) for d, c in devices.items()):
            return None
    if not fits_object(messages, 4 * MAX_MESSAGE_SIZE):
        return None
    return ToDeviceEdu(sender=str(sender), type=str(kind), message_id=str(message_id), messages=messages)


def parse_signing_keys(content: Mapping[str, Any], origin: str) -> SigningKeyUpdate | None:
    """The content of ``m.signing_key_update``; None if it is malformed or of another server's user."""
    user = content.get("user_id")
    if not _is_of_origin(user, origin):
        return None
    return SigningKeyUpdate(user=str(user), keys=_parse_cross_signing(content, str(user)))


def parse_user_devices(value: object, user: str) -> UserDevices | None:
    """Parses the answer of ``/user/devices``; None if it is invalid. An invalid device affects no other
    device.
    """
    fields = value if isinstance(value, dict) else {}
    stream_id, listed = fields.get("stream_id"), fields.get("devices")
    if fields.get("user_id") != user or not _is_stream_id(stream_id):
        return None
    if not isinstance(listed, list) or len(listed) > MAX_DEVICES:
        return None
    devices = {one.device_id: one for one in _parse_devices(listed, user)}
    return UserDevices(
        user=user,
        stream_id=int(stream_id),  # type: ignore[arg-type]
        devices=devices,
        cross_signing=_parse_cross_signing(fields, user),
    )


def _parse_devices(listed: list[Any], user: str) -> Iterator[Device]:
    for one in listed:
        device_id = one.get("device_id") if isinstance(one, dict) else None
        if not is_valid_device_id(device_id):
            continue
        keys = parse_device_keys(one.get("keys"), user, str(device_id))
        if keys is not None:
            name = truncate_name(one.get("device_display_name"))
            yield Device(device_id=str(device_id), keys=keys, name=name)


def _parse_cross_signing(fields: Mapping[str, Any], user: str) -> dict[str, Any]:
    given = ((usage, fields.get(f"{usage}_key")) for usage in PUBLIC_USAGES)
    return {usage: key for usage, key in given if parse_cross_signing_key(key, user, usage) is not None}


def device_list_edu(update: DeviceListUpdate) -> dict[str, Any]:
    """As it is sent."""
    content: dict[str, Any] = {
        "user_id": update.user,
        "device_id": update.device.device_id,
        "stream_id": update.stream_id,
        "prev_id": list(update.previous),
    }
    if update.deleted:
        content["deleted"] = True
    else:
        content |= {"keys": update.device.keys} if update.device.keys is not None else {}
        content |= {"device_display_name": update.device.name} if update.device.name else {}
    return {"edu_type": DEVICE_LIST, "content": content}


def to_device_edu(message: ToDeviceEdu) -> dict[str, Any]:
    """As it is sent."""
    content = {
        "sender": message.sender,
        "type": message.type,
        "message_id": message.message_id,
        "messages": message.messages,
    }
    return {"edu_type": TO_DEVICE, "content": content}


def signing_keys_edu(update: SigningKeyUpdate) -> dict[str, Any]:
    """As it is sent."""
    keys = {f"{usage}_key": key for usage, key in update.keys.items() if usage in PUBLIC_USAGES}
    return {"edu_type": SIGNING_KEYS, "content": {"user_id": update.user, **keys}}


def truncate_name(name: object) -> str:
    """A device's name as it may be kept; empty if it has none."""
    return name[:100] if isinstance(name, str) else ""


def _is_of_origin(user: object, origin: str) -> bool:
    return isinstance(user, str) and ids.is_valid_user_id(user) and ids.domain_of(user) == origin


def _is_stream_id(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_STREAM_ID


def _is_string_map(value: object) -> bool:
    if not isinstance(value, dict) or len(value) > _MAX_KEYS:
        return False
    return all(isinstance(one, str) for one in value.values())


def _is_signature_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(one, dict) for one in value.values())


def fits_object(value: object, size: int) -> bool:
    """True if a value can be stored: its depth can be read again, and it has at most ``size`` bytes."""
    try:
        check_depth(value)
        return len(dumps_canonical(value)) <= size
    except RemoteProtocolError:
        return False
