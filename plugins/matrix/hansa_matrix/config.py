"""The ``[networks.<id>]`` table of a Matrix network."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from hansa import ConfigError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hansa_matrix.own_keys import OwnKeys
from hansa_matrix.proto.ids import valid_server_name, valid_user_id
from hansa_matrix.proto.versions import DEFAULT_VERSION, VERSIONS


def _server_name(value: str) -> str:
    if not valid_server_name(value):
        msg = "must be a host name or address, with a port if it is not found by DNS"
        raise ValueError(msg)
    return value


def _user_id(value: str) -> str:
    if value and not valid_user_id(value):
        msg = f"{value!r} is not like @name:example.org"
        raise ValueError(msg)
    return value


def _contact(value: str) -> str:
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


def _version(value: str) -> str:
    if value not in VERSIONS:
        msg = f"must be one of {', '.join(VERSIONS)}"
        raise ValueError(msg)
    return value


def _key_file(path: Path) -> Path:
    """A file with one signing key, which nobody else may read."""
    try:
        others = path.stat().st_mode & 0o077
        OwnKeys.read(path)
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
    ("max_waiting", "max_waiting_in_all"),
    ("max_media", "media_quota_per_user"),
    ("media_quota_per_server", "media_quota_remote"),
)


class Config(BaseModel):
    """What an operator may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server_name: Annotated[str, AfterValidator(_server_name)] = Field(
        description="the name that follows the colon in user ids; it can never be changed"
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
        default="Hansa", max_length=255, description="what the bridge user is called in rooms; empty: nothing"
    )
    operator: Annotated[str, AfterValidator(_user_id)] = Field(
        default="",
        description="user id of who administers the rooms that Hansa makes, with level 100 from the start;"
        " empty: the bridge user alone",
    )
    naming_level: int = Field(
        default=50,
        ge=0,
        le=100,
        description="power level that it takes to name rooms that Hansa makes and to say what they are about;"
        " 0: everybody in them may, people of other networks too",
    )
    ghost_prefix: str = Field(
        default="_", pattern=r"^[a-z0-9._-]+$", description="what the localparts of ghosts begin with"
    )
    room_version: Annotated[str, AfterValidator(_version)] = Field(
        default=DEFAULT_VERSION.id, description="version of rooms made here"
    )
    accept_invites: bool = Field(
        default=True, description="join rooms that the bridge user is invited to, if policy allows"
    )
    max_waiting: int = Field(
        default=5000,
        ge=50,
        description="PDUs of one room that may wait, half of them of one server; who has more than its share "
        "is refused with 429",
    )
    max_waiting_in_all: int = Field(
        default=20_000, ge=50, description="PDUs of all rooms together that may wait, likewise"
    )
    gap_patience: float = Field(
        default=45.0,
        ge=0,
        le=86_400,
        description="seconds for which an event that others cite is asked for, before it is passed over",
    )
    trusted_notaries: list[Annotated[str, AfterValidator(_server_name)]] = Field(
        default_factory=list,
        max_length=10,
        description="servers believed about the keys of servers that cannot or may not be asked themselves",
    )
    distrusted_keys: list[Annotated[str, AfterValidator(_public_key)]] = Field(
        default_factory=list,
        max_length=1000,
        description="public keys (base64) that have leaked: what they signed counts as unsigned",
    )
    origin_rate: float = Field(
        default=500.0, ge=0, description="requests a second that one server may make; 0: as many as it likes"
    )
    origin_burst: int = Field(default=2000, ge=1, description="requests that it may make at once before that")
    origin_concurrency: int = Field(
        default=30, ge=1, description="requests of one server that are answered at a time"
    )
    keep_redacted_for: int = Field(
        default=7 * 86400,
        ge=0,
        description="seconds for which the original of a redacted event is kept; 0: not at all",
    )
    keep_deliveries_for: int = Field(
        default=30 * 86400,
        ge=0,
        description="seconds for which it is known of an event of ours which servers have it, once all have",
    )
    max_media: int = Field(
        default=100 * 1024 * 1024, ge=1, description="bytes that a file may have, ours or another server's"
    )
    media_quota_per_user: int = Field(
        default=5 * 1024**3, ge=0, description="bytes that files of one person here may take; 0: no bound"
    )
    media_files_per_user: int = Field(
        default=50_000, ge=0, description="files that one person here may have; 0: no bound"
    )
    media_quota_per_server: int = Field(
        default=2 * 1024**3,
        ge=0,
        description="bytes that copies of one other server's files may take, before those unused for "
        "longest go; 0: no bound",
    )
    media_quota_remote: int = Field(
        default=20 * 1024**3,
        ge=0,
        description="bytes that copies of all other servers' files may take; 0: no bound",
    )
    media_reserve: int = Field(
        default=1024**3,
        ge=0,
        description="bytes of the disk that files leave free; never more than a twentieth of it",
    )
    admin_contact: Annotated[str, AfterValidator(_contact)] = Field(
        default="",
        description="where people may turn to, as a URI (mailto:...); they are told when the disk is full",
    )
    keep_remote_media_for: int = Field(
        default=30 * 86400, ge=0, description="seconds for which another server's file is kept unused"
    )
    presence: bool = Field(
        default=False, description="tell other servers who is there, and take note of what they tell"
    )
    share_device_names: bool = Field(
        default=False, description="tell other servers what people here call their devices"
    )
    user_directory: Literal["off", "rooms", "accounts"] = Field(
        default="rooms",
        description="which people a search by name finds: nobody, those in rooms they are in or that are published"
        " and open to everybody, or everybody with an account here too",
    )
    public_reading: bool = Field(
        default=False,
        description="tell who has no account here which rooms are published and, where there are policies,"
        " what people say of themselves and which room has an alias: nobody knows the server of a stranger",
    )
    registration: Literal["closed", "token", "open"] = Field(
        default="closed",
        description="who may make an account: nobody, anybody with a token (`hansa matrix tokens`), anybody",
    )
    registration_secret: str = Field(
        default="",
        description="what administrators' tools prove that they know to make accounts; empty: none may",
    )
    password_rounds: int = Field(default=3, ge=1, le=20, description="passes of argon2id over a password")
    password_memory: int = Field(
        default=65_536, ge=8, le=1_048_576, description="KiB of memory that argon2id takes for a password"
    )
    client_rate: float = Field(
        default=50.0,
        ge=0,
        description="acts a second of one person, as messages; a hundredth of it for attempts to log in; "
        "0: no limits",
    )
    client_burst: int = Field(default=200, ge=1, description="acts that may come at once before that")
    query_tokens: bool = Field(
        default=True, description="take access tokens in the query too, as old clients send them"
    )
    base_url: str = Field(
        default="",
        pattern=r"^(https?://[^\s]+)?$",
        description="what clients are told to speak to, by /.well-known/matrix/client; empty: it answers 404",
    )
    delegate: str = Field(
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
