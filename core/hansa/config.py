"""From TOML to a checked configuration: every mistake with its TOML path, and nothing is opened."""

from __future__ import annotations

import ipaddress
import os
import ssl
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hansa.mistakes import describe_mistake
from hansa.pure.errors import ConfigError, PluginError
from hansa.store import check_url


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(_Strict):
    """A certificate."""

    certificate: Path = Field(description="PEM file: the certificate, then its chain")
    key: Path = Field(description="PEM file: the private key")


class Server(_Strict):
    """The ``[server]`` table."""

    listen: list[str] = Field(
        default=["https://127.0.0.1:8448"], description="public addresses; http:// is for behind a proxy"
    )
    tls: Tls | None = Field(default=None, description="certificate of the https:// addresses")
    admin: str = Field(default="unix:hansa.sock", description="socket of the command line; mode 0600")
    metrics: str = Field(default="", description="HOST:PORT for /health and /metrics; empty: none")
    ca_file: Path | None = Field(default=None, description="more authorities to trust when calling peers")
    private_networks: list[str] = Field(
        default=[], description="networks that peers may be in although they are private, e.g. 10.0.0.0/8"
    )
    trusted_proxies: list[str] = Field(
        default=[], description="networks of proxies in front, whose X-Forwarded-For is believed"
    )

    decisions_days: int = Field(
        default=90, ge=1, le=36_500, description="days that decisions of policies are kept"
    )
    decisions_rows: int = Field(
        default=100_000, ge=1_000, description="how many decisions are kept; the oldest go first"
    )
    decisions_of_strangers: int = Field(
        default=1_000,
        ge=10,
        le=100_000,
        description="how many servers that ask something and are refused have a decision of their own;"
        " all further ones are counted in one",
    )
    connections: int = Field(
        default=4096, ge=64, le=100_000, description="incoming connections at a time on the public addresses"
    )
    connections_per_address: int = Field(
        default=256, ge=8, description="connections of one address; of a trusted proxy's, requests count"
    )
    connections_per_subnet: int = Field(
        default=512, ge=8, description="connections from one IPv4 /24 or IPv6 /64"
    )
    body_memory: int = Field(
        default=128,
        ge=64,
        le=65_536,
        description="MiB of request bodies held at a time; no peer or subnet may have more than an eighth",
    )

    @field_validator("listen")
    @classmethod
    def _addresses(cls, value: list[str]) -> list[str]:
        for one in value:
            parts = urlsplit(one)
            if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port is None:
                msg = f"{one!r} is not like https://0.0.0.0:8448"
                raise ValueError(msg)
        return value

    @field_validator("metrics")
    @classmethod
    def _metrics(cls, value: str) -> str:
        parts = urlsplit(f"//{value}")
        if value and (not parts.hostname or parts.port is None):
            msg = f"{value!r} is not like 127.0.0.1:9100"
            raise ValueError(msg)
        return value

    @field_validator("private_networks", "trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for one in value:
            ipaddress.ip_network(one, strict=False)
        return value

    @field_validator("admin")
    @classmethod
    def _socket(cls, value: str) -> str:
        if not value.startswith("unix:"):
            msg = "must be unix:PATH"
            raise ValueError(msg)
        return value


class Store(_Strict):
    """The ``[store]`` table."""

    url: str = Field(
        default="sqlite:hansa.db",
        description="sqlite:FILE or mongodb://USER:PASSWORD@HOST/DATABASE, a replica set; may be a secret",
        repr=False,
    )

    @field_validator("url")
    @classmethod
    def _store(cls, value: str) -> str:
        try:
            check_url(value)
        except ConfigError as error:
            raise ValueError(error.reason) from None
        return value


class Media(_Strict):
    """The ``[media]`` table."""

    folder: Path = Field(
        default=Path("media"), description="where files that people send each other are kept"
    )


class Throttle(_Strict):
    """How fast deliveries to one network may be."""

    rate: float = Field(default=0.0, ge=0, description="events a second; 0 is no limit")
    burst: int = Field(default=50, ge=1, description="how many may go at once")


class RoomTable(_Strict):
    """One ``[[rooms]]`` table."""

    links: list[str] = Field(min_length=1, description="NETWORK:ADDRESS of every native room")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """One ``[networks.<id>]`` table."""

    id: str
    plugin: str
    module: ModuleType
    options: Any
    throttle: Throttle
    tls: Tls | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """One ``[policies.<name>]`` table. ``timeout`` is in seconds."""

    name: str
    plugin: str
    module: ModuleType
    options: Any
    on_error: Literal["deny", "allow"]
    mode: Literal["enforce", "shadow"]
    timeout: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration; paths are relative to ``folder``."""

    folder: Path
    server: Server
    store: Store
    media: Media
    networks: tuple[NetworkConfig, ...]
    policies: tuple[PolicyConfig, ...]
    rooms: tuple[tuple[str, ...], ...]


class _NetworkTable(_Strict):
    plugin: str = Field(description="the plugin's name, as `hansa plugins` shows it")
    throttle: Throttle = Field(default=Throttle(), description="how fast deliveries to this network may be")
    tls: Tls | None = Field(default=None, description="certificate for this network's server name alone")


class _PolicyTable(_Strict):
    plugin: str = Field(description="the plugin's name, as `hansa plugins` shows it")
    on_error: Literal["deny", "allow"] = Field(
        default="deny", description='what counts when the policy cannot answer: "deny" or "allow"'
    )
    mode: Literal["enforce", "shadow"] = Field(
        default="enforce", description='"shadow" stops nothing and logs what it would have stopped'
    )
    timeout: float = Field(default=1.0, gt=0, le=60, description="seconds it has for one answer")


Find = Callable[[str], ModuleType]


class Mistakes(ConfigError):
    """All that is wrong with one configuration."""

    def __init__(self, errors: list[ConfigError]) -> None:
        super().__init__("\n".join(str(e) for e in errors))
        self.errors = errors


class _Reader:
    def __init__(self, folder: Path, find: Find) -> None:
        self.folder = folder
        self.find = find
        self.errors: list[ConfigError] = []

    def table(self, model: type[BaseModel], data: Any, path: str) -> Any:
        """One validated table, None if it has mistakes."""
        if not isinstance(data, Mapping):
            self.errors.append(ConfigError("must be a table", path=path))
            return None
        try:
            return model.model_validate(self.resolved(dict(data), path))
        except ValidationError as error:
            for one in error.errors():
                where = ".".join([path, *(str(p) for p in one["loc"])])
                self.errors.append(ConfigError(describe_mistake(one), path=where))
            return None

    def resolved(self, value: Any, path: str) -> Any:
        """Secrets put in place: ``{ env = NAME }`` and ``{ file = PATH }``."""
        if isinstance(value, list):
            return [self.resolved(v, f"{path}.{i}") for i, v in enumerate(value)]
        if not isinstance(value, dict):
            return value
        if set(value) == {"env"}:
            found = os.environ.get(str(value["env"]))
            if found is None:
                self.errors.append(ConfigError(f"the environment has no {value['env']}", path=path))
            return found or ""
        if set(value) == {"file"}:
            file = self.folder / str(value["file"])
            try:
                if file.stat().st_mode & 0o077:
                    text = f"{file} holds a secret and may be read by others: chmod 600 it"
                    self.errors.append(ConfigError(text, path=path))
                return file.read_text().strip()
            except OSError as error:
                self.errors.append(ConfigError(f"{file}: {error.strerror}", path=path))
                return ""
        return {k: self.resolved(v, f"{path}.{k}") for k, v in value.items()}

    def plugin(self, name: str, path: str) -> ModuleType | None:
        """A plugin's module."""
        try:
            return self.find(name)
        except (ConfigError, PluginError) as error:
            self.errors.append(ConfigError(str(error), path=f"{path}.plugin"))
            return None

    def options(self, module: ModuleType, data: Mapping[str, Any], path: str) -> Any:
        """A plugin's own part, with its paths relative to the configuration's folder."""
        fields = module.Config.model_fields
        placed = {
            k: str(self.folder / v)
            if k in fields and fields[k].annotation is Path and isinstance(v, str)
            else v
            for k, v in data.items()
        }
        for name, info in fields.items():
            if info.annotation is Path and name not in placed and isinstance(info.default, Path):
                placed[name] = str(self.folder / info.default)
        return self.table(module.Config, placed, path)


def load(path: Path, find: Find) -> Config:
    """The configuration in a file. Raises ``Mistakes`` with all of them."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Mistakes([ConfigError(f"{path}: {error.strerror}")]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Mistakes([ConfigError(f"{path} is not TOML: {error}")]) from error
    return parse(data, path.parent.resolve(), find)


def parse(data: Mapping[str, Any], folder: Path, find: Find) -> Config:
    """The same from parsed TOML."""
    reader = _Reader(folder, find)
    for name in set(data) - {"server", "store", "media", "networks", "policies", "rooms"}:
        reader.errors.append(ConfigError("there is no such table", path=name))
    server = reader.table(Server, data.get("server", {}), "server")
    store = reader.table(Store, data.get("store", {}), "store")
    media = reader.table(Media, data.get("media", {}), "media")
    networks = [n for n in _each(reader, data, "networks", _network) if n]
    policies = [p for p in _each(reader, data, "policies", _policy) if p]
    rooms = _rooms(reader, data.get("rooms", []), {n.id for n in networks})
    if server is not None and server.tls is None and any(u.startswith("https:") for u in server.listen):
        reader.errors.append(ConfigError("an https:// address needs [server] tls", path="server.tls"))
    _certificates(reader, data)
    if reader.errors:
        raise Mistakes(reader.errors)
    return Config(
        folder=folder,
        server=server,
        store=store,
        media=media,
        networks=tuple(networks),
        policies=tuple(policies),
        rooms=tuple(rooms),
    )


def _certificates(reader: _Reader, data: Mapping[str, Any]) -> None:
    """Every certificate that is named can be served."""
    tables = data.get("networks", {})
    named = {"server": data.get("server", {})}
    if isinstance(tables, Mapping):
        named |= {f"networks.{key}": table for key, table in tables.items()}
    for path, table in named.items():
        try:
            tls = Tls.model_validate(table["tls"])
        except (KeyError, TypeError, ValidationError):
            continue  # absent, or named as a mistake of its table already
        reader.errors += [ConfigError(text, path=f"{path}.tls") for text in _unreadable(reader.folder, tls)]


def _unreadable(folder: Path, tls: Tls) -> list[str]:
    """What keeps a certificate from being served."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / tls.certificate, folder / tls.key)
    except FileNotFoundError:
        absent = [path for path in (tls.certificate, tls.key) if not (folder / path).exists()]
        return [f"there is no file {path}" for path in absent]
    except (OSError, ssl.SSLError) as error:
        return [f"{tls.certificate} with {tls.key} cannot be used: {error}"]
    return []


def _each(reader: _Reader, data: Mapping[str, Any], name: str, make: Callable[..., Any]) -> list[Any]:
    tables = data.get(name, {})
    if not isinstance(tables, Mapping):
        reader.errors.append(ConfigError("must be a table of tables", path=name))
        return []
    return [make(reader, key, table) for key, table in tables.items()]


def _parts(reader: _Reader, model: type[BaseModel], table: Any, path: str) -> tuple[Any, dict[str, Any]]:
    own = set(model.model_fields)
    if not isinstance(table, Mapping):
        return reader.table(model, table, path), {}
    mine = reader.table(model, {k: v for k, v in table.items() if k in own}, path)
    return mine, {k: v for k, v in table.items() if k not in own}


def _plugin_name(table: Any) -> str:
    name = table.get("plugin") if isinstance(table, Mapping) else None
    return name if isinstance(name, str) else ""


def _network(reader: _Reader, key: str, table: Any) -> NetworkConfig | None:
    path = f"networks.{key}"
    if not key.isidentifier() or key != key.lower():
        reader.errors.append(ConfigError("a network's name is lower-case letters, digits and _", path=path))
    mine, rest = _parts(reader, _NetworkTable, table, path)
    module = reader.plugin(name, path) if (name := _plugin_name(table)) else None
    options = reader.options(module, rest, path) if module else None
    if mine is None or module is None or options is None:
        return None
    return NetworkConfig(
        id=key, plugin=mine.plugin, module=module, options=options, throttle=mine.throttle, tls=mine.tls
    )


def _policy(reader: _Reader, key: str, table: Any) -> PolicyConfig | None:
    path = f"policies.{key}"
    mine, rest = _parts(reader, _PolicyTable, table, path)
    module = reader.plugin(name, path) if (name := _plugin_name(table)) else None
    options = reader.options(module, rest, path) if module else None
    if mine is None or module is None or options is None:
        return None
    return PolicyConfig(
        name=key,
        plugin=mine.plugin,
        module=module,
        options=options,
        on_error=mine.on_error,
        mode=mine.mode,
        timeout=mine.timeout,
    )


def _rooms(reader: _Reader, tables: Any, networks: set[str]) -> list[tuple[str, ...]]:
    if not isinstance(tables, list):
        reader.errors.append(ConfigError("must be [[rooms]]", path="rooms"))
        return []
    rooms: list[tuple[str, ...]] = []
    for index, table in enumerate(tables):
        path = f"rooms.{index}"
        room = reader.table(RoomTable, table, path)
        if room is None:
            continue
        for link in room.links:
            network, colon, address = link.partition(":")
            if not colon or not address or network not in networks:
                text = f"{link!r} is not NETWORK:ADDRESS with a network of this file"
                reader.errors.append(ConfigError(text, path=f"{path}.links"))
        rooms.append(tuple(room.links))
    return rooms
