"""The ``[networks.<id>]`` table of a Matrix network."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from hansa import ConfigError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hansa_matrix.federation.signing_keys import SigningKeys
from hansa_matrix.proto.ids import is_valid_server_name, is_valid_user_id
from hansa_matrix.proto.room_versions import DEFAULT_VERSION, VERSIONS


def _server_name(value: str) -> str:
    if not is_valid_server_name(value):
        msg = "must be a host name or address, with a port if it is not found by DNS"
        raise ValueError(msg)
    return value


def _user_id(value: str) -> str:
    if value and not is_valid_user_id(value):
        msg = f"{value!r} is not like @name:example.org"
        raise ValueError(msg)
    return value


def _require_contact(value: str) -> str:
    if value and not urlsplit(value).scheme:
        msg = f"{value!r} is not like mailto:admin@example.org"
        raise ValueError(msg)
    return value


def _public_key(value: str) -> str:
    try:
        key = base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        msg = "must be an ed25519 public key: 32 bytes in base64"
        raise ValueError(msg)
    return value


def _require_room_version(value: str) -> str:
    if value not in VERSIONS:
        msg = f"must be one of {', '.join(VERSIONS)}"
        raise ValueError(msg)
    return value


def _key_file(path: Path) -> Path:
    """A file with one signing key, which nobody else may read."""
    try:
        others = path.stat().st_mode & 0o077
        SigningKeys.read(path)
    except OSError as error:
        msg = f"{path}: {error.strerror}"
        raise ValueError(msg) from error
    except (UnicodeDecodeError, ConfigError) as error:
        msg = f"{path}: a signing key file begins with: ed25519 VERSION SEED (32 bytes in base64)"
        raise ValueError(msg) from error
    if others:
        msg = f"{path} may be read by others: chmod 600 it"
        raise ValueError(msg)
    return path


#: Settings that are a part of another; where an operator says both, the part may not be the larger one.
_PARTS = (
    ("max_staged_pdus_per_room", "max_staged_pdus"),
    ("max_upload_size", "media_quota_per_user"),
    ("media_quota_per_server", "media_quota_remote"),
)


class Config(BaseModel):
    """The settings of a Matrix network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server_name: Annotated[str, AfterValidator(_server_name)] = Field(
        description="the part after the colon in user IDs; it can never be changed"
    )
    signing_key: Annotated[Path, AfterValidator(_key_file)] = Field(
        default=Path("matrix.key"), description="file with the signing key, mode 0600, made by `hansa init`"
    )
    bridge_user: str = Field(
        default="hansa",
        pattern=r"^[a-z0-9._=/+-]+$",
        description="localpart of the account that creates and joins rooms",
    )
    bridge_name: str = Field(
        default="Hansa", max_length=255, description="display name of the bridge user; empty: none"
    )
    operator: Annotated[str, AfterValidator(_user_id)] = Field(
        default="",
        description="user ID of the administrator of rooms that Hansa creates, with power level 100 "
        "from the start;"
        " empty: only the bridge user",
    )
    naming_level: int = Field(
        default=50,
        ge=0,
        le=100,
        description="power level that is needed to set the name and topic of rooms that Hansa creates;"
        " 0: all members may, also those from other networks",
    )
    ghost_prefix: str = Field(
        default="_", pattern=r"^[a-z0-9._-]+$", description="prefix of the localparts of ghosts"
    )
    room_version: Annotated[str, AfterValidator(_require_room_version)] = Field(
        default=DEFAULT_VERSION.id, description="version of rooms created by this server"
    )
    accept_invites: bool = Field(
        default=True, description="join rooms that the bridge user is invited to, if policy allows"
    )
    max_staged_pdus_per_room: int = Field(
        default=5000,
        ge=50,
        description="received PDUs of one room that may wait to be processed, at most half of them from "
        "one server; "
        "a server above its share is answered 429",
    )
    max_staged_pdus: int = Field(default=20_000, ge=50, description="the same for all rooms together")
    gap_patience: float = Field(
        default=45.0,
        ge=0,
        le=86_400,
        description="seconds to try to fetch a missing event before it is skipped",
    )
    trusted_key_servers: list[Annotated[str, AfterValidator(_server_name)]] = Field(
        default_factory=list,
        max_length=10,
        description="key servers to ask for the keys of servers that cannot be reached or may not be asked",
    )
    revoked_keys: list[Annotated[str, AfterValidator(_public_key)]] = Field(
        default_factory=list,
        max_length=1000,
        description="public keys (base64) that have leaked; their signatures are not valid",
    )
    federation_rate: float = Field(
        default=500.0, ge=0, description="requests a second allowed for one server; 0: no limit"
    )
    federation_burst: int = Field(
        default=2000, ge=1, description="requests of one server that may come at once before the rate applies"
    )
    federation_concurrency: int = Field(
        default=30, ge=1, description="requests of one server that are processed at the same time"
    )
    redacted_event_ttl: int = Field(
        default=7 * 86400,
        ge=0,
        description="seconds to keep the original content of a redacted event; 0: it is not kept",
    )
    delivery_status_ttl: int = Field(
        default=30 * 86400,
        ge=0,
        description="seconds to keep the delivery status of a local event after every server has received it",
    )
    max_upload_size: int = Field(
        default=100 * 1024 * 1024,
        ge=1,
        description="largest size of a file in bytes, uploaded or fetched from another server",
    )
    media_quota_per_user: int = Field(
        default=5 * 1024**3,
        ge=0,
        description="bytes that the files of one local user may use in total; 0: no limit",
    )
    media_files_per_user: int = Field(
        default=50_000, ge=0, description="number of files that one local user may have; 0: no limit"
    )
    media_quota_per_server: int = Field(
        default=2 * 1024**3,
        ge=0,
        description="bytes that cached files of one remote server may use; the least recently used are "
        "removed "
        "first; 0: no limit",
    )
    media_quota_remote: int = Field(
        default=20 * 1024**3,
        ge=0,
        description="bytes that cached files of all remote servers may use; 0: no limit",
    )
    media_reserve: int = Field(
        default=1024**3,
        ge=0,
        description="bytes of the disk that files leave free, at most 5 % of the disk",
    )
    admin_contact: Annotated[str, AfterValidator(_require_contact)] = Field(
        default="",
        description="contact of the administrators as a URI (mailto:...); users see it when the disk is full",
    )
    remote_media_ttl: int = Field(
        default=30 * 86400, ge=0, description="seconds to keep a remote file that is not used"
    )
    presence_enabled: bool = Field(
        default=False,
        description="show who is online and away: to other servers and other networks, and from them",
    )
    share_device_names: bool = Field(
        default=False, description="send the names of local devices to other servers"
    )
    user_directory: Literal["off", "rooms", "accounts"] = Field(
        default="rooms",
        description="the users that a search by name finds: none; members of shared rooms and of "
        "published rooms"
        " that everybody may join; or also all accounts of this server",
    )
    public_reading: bool = Field(
        default=False,
        description="answer requests without an access token for published rooms and, where policies "
        "are enabled,"
        " for profiles and aliases; policies cannot know the server of such a client",
    )
    registration: Literal["closed", "token", "open"] = Field(
        default="closed",
        description="who may create an account: nobody, holders of a token (`hansa matrix tokens`), "
        "everybody",
    )
    registration_secret: str = Field(
        default="",
        description="shared secret for /_synapse/admin/v1/register; empty: disabled",
    )
    argon2_time_cost: int = Field(
        default=3, ge=1, le=20, description="time cost of argon2id for a password, in passes"
    )
    argon2_memory_kib: int = Field(
        default=65_536, ge=8, le=1_048_576, description="memory cost of argon2id for a password, in KiB"
    )
    client_rate: float = Field(
        default=50.0,
        ge=0,
        description="requests that change something, such as messages, a second and user; login "
        "attempts have a "
        "hundredth of it; 0: no limits",
    )
    client_burst: int = Field(
        default=200, ge=1, description="such requests that may come at once before the rate applies"
    )
    allow_query_access_token: bool = Field(
        default=True, description="accept access tokens in the query string, as old clients send them"
    )
    public_base_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s]+)?$",
        description="URL in /.well-known/matrix/client; empty: it answers 404",
    )
    encryption_by_default: bool = Field(
        default=False,
        description="whether /.well-known/matrix/client lets clients encrypt new rooms without being told to;"
        " people of other networks cannot read encrypted rooms",
    )
    well_known_server: str = Field(
        default="", description="HOST:PORT for /.well-known/matrix/server; empty: it answers 404"
    )

    @model_validator(mode="after")
    def _parts_of_wholes(self) -> Config:
        for part, whole in _PARTS:
            most = getattr(self, whole)
            said = {part, whole} <= self.model_fields_set
            if said and most and getattr(self, part) > most:
                msg = f"{part} is more than {whole}, of which it is a part"
                raise ValueError(msg)
        return self
