"""From TOML to a checked configuration: every mistake with its TOML path, and nothing is opened."""

from __future__ import annotations

import os
import ssl
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ValidationError

from hansa.config.mistakes import confused, describe_mistake
from hansa.config.settings import (
    CommandsConfig,
    MediaConfig,
    NetworkTable,
    ObserverTable,
    PolicyTable,
    RoomTable,
    ServerConfig,
    StoreConfig,
    ThrottleConfig,
    TlsConfig,
)
from hansa.model.errors import ConfigError, PluginError


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """One ``[networks.<id>]`` table."""

    id: str
    plugin: str
    module: ModuleType
    options: Any
    throttle: ThrottleConfig
    presence_members: int
    tls: TlsConfig | None


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
class ObserverConfig:
    """One ``[observers.<name>]`` table."""

    name: str
    plugin: str
    module: ModuleType
    options: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration; paths are relative to ``folder``."""

    folder: Path
    server: ServerConfig
    store: StoreConfig
    media: MediaConfig
    commands: CommandsConfig
    networks: tuple[NetworkConfig, ...]
    policies: tuple[PolicyConfig, ...]
    observers: tuple[ObserverConfig, ...]
    rooms: tuple[RoomTable, ...]


#: The tables of tables.
_TABLES = ("networks", "policies", "observers")
#: The network word of files that the core keeps.
_MEDIA = "media"


class PluginFinder(Protocol):
    """Finds the module of a plugin by its name."""

    def __call__(self, name: str, opens: str = "") -> ModuleType:
        """The module, which implements the hook ``opens``. Raises ConfigError or PluginError."""
        ...


class ConfigErrors(ConfigError):
    """All that is wrong with one configuration."""

    def __init__(self, errors: list[ConfigError]) -> None:
        super().__init__("\n".join(str(e) for e in errors))
        self.errors = errors


class _ConfigReader:
    def __init__(self, folder: Path, find: PluginFinder) -> None:
        self.folder = folder
        self.find = find
        self.errors: list[ConfigError] = []
        self._told: set[str] = set()

    def table(self, model: type[BaseModel], data: Any, path: str) -> Any:
        """One validated table, None if it has mistakes."""
        if not isinstance(data, Mapping):
            self.errors.append(ConfigError("must be a table", path=path))
            return None
        given = self.resolve_secrets(dict(data), path)
        mistakes = dict(confused(given, model, path))
        taken = None
        try:
            taken = model.model_validate(given)
        except ValidationError as error:
            for one in error.errors():
                where = ".".join([path, *(str(p) for p in one["loc"])])
                mistakes.setdefault(where, describe_mistake(one))
        self.errors += [ConfigError(text, path=where) for where, text in mistakes.items()]
        return None if mistakes else taken

    def resolve_secrets(self, value: Any, path: str) -> Any:
        """Secrets put in place: ``{ env = NAME }`` and ``{ file = PATH }``."""
        if isinstance(value, list):
            return [self.resolve_secrets(v, f"{path}.{i}") for i, v in enumerate(value)]
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
                    text = f"{file} contains a secret and other users can read it: use chmod 600"
                    self.errors.append(ConfigError(text, path=path))
                return file.read_text().strip()
            except OSError as error:
                self.errors.append(ConfigError(f"{file}: {error.strerror}", path=path))
                return ""
        return {k: self.resolve_secrets(v, f"{path}.{k}") for k, v in value.items()}

    def plugin(self, name: str, path: str, opens: str) -> ModuleType | None:
        """A plugin's module. A mistake of the plugin's own is named once, however many tables use it."""
        try:
            return self.find(name, opens)
        except ConfigError as error:
            self.errors.append(ConfigError(str(error), path=f"{path}.plugin"))
        except PluginError as error:
            if str(error) not in self._told:
                self._told.add(str(error))
                self.errors.append(ConfigError(str(error), path=f"{path}.plugin"))
        return None

    def options(self, module: ModuleType, data: Mapping[str, Any], path: str) -> Any:
        """A plugin's own part, with its paths relative to the configuration's folder."""
        fields = module.Config.model_fields
        placed = {
            k: str(self.folder / v)
            if k in fields and fields[k].annotation in (Path, Path | None) and isinstance(v, str)
            else v
            for k, v in data.items()
        }
        for name, info in fields.items():
            if info.annotation is Path and name not in placed and isinstance(info.default, Path):
                placed[name] = str(self.folder / info.default)
        return self.table(module.Config, placed, path)


def load(path: Path, find: PluginFinder) -> Config:
    """The configuration in a file. Raises ``ConfigErrors`` with all of them."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        hint = "" if isinstance(error, PermissionError) else "; give its path with -c"
        raise ConfigErrors([ConfigError(f"{error.strerror}{hint}")]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigErrors([ConfigError(f"not TOML: {error}")]) from error
    return parse(data, path.parent.resolve(), find)


def parse(data: Mapping[str, Any], folder: Path, find: PluginFinder) -> Config:
    """The same from parsed TOML."""
    reader = _ConfigReader(folder, find)
    for name in set(data) - {"server", "store", "media", "commands", *_TABLES, "rooms"}:
        reader.errors.append(ConfigError("there is no such table", path=name))
    server = reader.table(ServerConfig, data.get("server", {}), "server")
    store = reader.table(StoreConfig, data.get("store", {}), "store")
    media = reader.table(MediaConfig, data.get("media", {}), "media")
    commands = reader.table(CommandsConfig, data.get("commands", {}), "commands")
    networks = [n for n in _for_each(reader, data, "networks", _read_network) if n]
    policies = [p for p in _for_each(reader, data, "policies", _read_policy) if p]
    observers = [o for o in _for_each(reader, data, "observers", _read_observer) if o]
    rooms = _read_rooms(reader, data.get("rooms", []), {n.id for n in networks})
    if server is not None and server.tls is None and any(u.startswith("https:") for u in server.listen):
        reader.errors.append(ConfigError("an https:// address needs [server] tls", path="server.tls"))
    _check_certificates(reader, data)
    if reader.errors:
        raise ConfigErrors(reader.errors)
    return Config(
        folder=folder,
        server=server,
        store=store,
        media=media,
        commands=commands,
        networks=tuple(networks),
        policies=tuple(policies),
        observers=tuple(observers),
        rooms=tuple(rooms),
    )


def _check_certificates(reader: _ConfigReader, data: Mapping[str, Any]) -> None:
    """Every certificate that is named can be served."""
    tables = data.get("networks", {})
    named = {"server": data.get("server", {})}
    if isinstance(tables, Mapping):
        named |= {f"networks.{key}": table for key, table in tables.items()}
    for path, table in named.items():
        try:
            tls = TlsConfig.model_validate(table["tls"])
        except (KeyError, TypeError, ValidationError):
            continue  # absent, or named as a mistake of its table already
        reader.errors += [
            ConfigError(text, path=f"{path}.tls") for text in _certificate_errors(reader.folder, tls)
        ]


def _certificate_errors(folder: Path, tls: TlsConfig) -> list[str]:
    """Returns the reasons why a certificate cannot be served."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(folder / tls.certificate, folder / tls.key)
    except FileNotFoundError:
        absent = [path for path in (tls.certificate, tls.key) if not (folder / path).exists()]
        return [f"there is no file {path}" for path in absent]
    except (OSError, ssl.SSLError) as error:
        return [f"{tls.certificate} with {tls.key} cannot be used: {error}"]
    return []


def _for_each(
    reader: _ConfigReader, data: Mapping[str, Any], name: str, make: Callable[..., Any]
) -> list[Any]:
    tables = data.get(name, {})
    if not isinstance(tables, Mapping):
        reader.errors.append(ConfigError("must be a table of tables", path=name))
        return []
    return [make(reader, key, table) for key, table in tables.items()]


def _split_section(
    reader: _ConfigReader, model: type[BaseModel], table: Any, path: str
) -> tuple[Any, dict[str, Any]]:
    own = set(model.model_fields)
    if not isinstance(table, Mapping):
        return reader.table(model, table, path), {}
    mine = reader.table(model, {k: v for k, v in table.items() if k in own}, path)
    return mine, {k: v for k, v in table.items() if k not in own}


def _plugin_name(table: Any) -> str:
    name = table.get("plugin") if isinstance(table, Mapping) else None
    return name if isinstance(name, str) else ""


def _read_network(reader: _ConfigReader, key: str, table: Any) -> NetworkConfig | None:
    path = f"networks.{key}"
    if key == _MEDIA:
        reader.errors.append(ConfigError("this name is reserved for the core's media service", path=path))
    if not key.isidentifier() or key != key.lower():
        reader.errors.append(
            ConfigError("the name of a network must have only lower-case letters, digits and _", path=path)
        )
    mine, rest = _split_section(reader, NetworkTable, table, path)
    module = reader.plugin(name, path, "open_network") if (name := _plugin_name(table)) else None
    options = reader.options(module, rest, path) if module else None
    if mine is None or module is None or options is None:
        return None
    return NetworkConfig(
        id=key,
        plugin=mine.plugin,
        module=module,
        options=options,
        throttle=mine.throttle,
        presence_members=mine.presence_members,
        tls=mine.tls,
    )


def _read_policy(reader: _ConfigReader, key: str, table: Any) -> PolicyConfig | None:
    path = f"policies.{key}"
    mine, rest = _split_section(reader, PolicyTable, table, path)
    module = reader.plugin(name, path, "open_policy") if (name := _plugin_name(table)) else None
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


def _read_observer(reader: _ConfigReader, key: str, table: Any) -> ObserverConfig | None:
    path = f"observers.{key}"
    mine, rest = _split_section(reader, ObserverTable, table, path)
    module = reader.plugin(name, path, "open_observer") if (name := _plugin_name(table)) else None
    options = reader.options(module, rest, path) if module else None
    if mine is None or module is None or options is None:
        return None
    return ObserverConfig(name=key, plugin=mine.plugin, module=module, options=options)


def _read_rooms(reader: _ConfigReader, tables: Any, networks: set[str]) -> list[RoomTable]:
    if not isinstance(tables, list):
        reader.errors.append(ConfigError("must be [[rooms]]", path="rooms"))
        return []
    rooms: list[RoomTable] = []
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
        rooms.append(room)
    return rooms
