"""Finding, validating and opening plugins. Installed is not enabled: only names in the configuration load."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import pluggy
from pydantic import BaseModel

import hansa.hookspecs as specs
from hansa.pure.errors import ConfigError, PluginError

GROUP = "hansa.plugins"
_API = (1,)


def installed() -> dict[str, list[EntryPoint]]:
    """Every installed plugin by name; more than one entry for a name is a quarrel of distributions."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        same = found.setdefault(entry.name, [])
        if not any(_home(entry) == _home(other) and entry.value == other.value for other in same):
            same.append(entry)
    return found


def _home(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown distribution"


def find(name: str) -> ModuleType:
    """The module of an enabled plugin. Raises ConfigError if there is none, two, or one that cannot be."""
    entries = installed().get(name, [])
    if not entries:
        known = ", ".join(sorted(installed())) or "none"
        raise ConfigError(f"no plugin named {name!r} is installed (installed: {known})")
    if len(entries) > 1:
        homes = " and ".join(sorted(f"{_home(e)} ({e.value})" for e in entries))
        raise ConfigError(f"two distributions bring a plugin named {name!r}: {homes}; uninstall one")
    try:
        module = entries[0].load()
    except ModuleNotFoundError as error:
        raise ConfigError(f"plugin {name!r} needs {error.name}: install hansa[{name}]") from error
    return validated(name, module)


def validated(name: str, module: ModuleType) -> ModuleType:
    """A module that keeps the plugin contract: ``api`` and ``Config``. Raises PluginError."""
    api = getattr(module, "api", None)
    if api not in _API:
        raise PluginError(f"plugin {name!r} is written for api {api!r}; this Hansa speaks {list(_API)}")
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        raise PluginError(f"plugin {name!r} has no Config model")
    if config.model_config.get("extra") != "forbid":
        raise PluginError(f"plugin {name!r}: its Config must forbid unknown keys (extra='forbid')")
    check_colours(name, module)
    return module


def check_colours(name: str, plugin: object) -> None:
    """A hook is ``def`` or ``async def`` as its specification is. Raises PluginError with file and line."""
    for hook, method in _implementations(plugin):
        spec = getattr(specs.Hooks, hook, None)
        if spec is None:
            raise PluginError(f"plugin {name!r} implements an unknown hook {hook!r} at {_place(method)}")
        if inspect.iscoroutinefunction(spec) != inspect.iscoroutinefunction(method):
            wanted = "async def" if inspect.iscoroutinefunction(spec) else "def"
            raise PluginError(f"plugin {name!r}: hook {hook!r} must be {wanted} ({_place(method)})")


def _implementations(plugin: object) -> Iterator[tuple[str, Any]]:
    for attribute in dir(plugin):
        if attribute.startswith("__"):
            continue
        value = inspect.getattr_static(plugin, attribute)
        if inspect.isroutine(value):
            method = getattr(plugin, attribute)
            marked = getattr(method, f"{specs.PROJECT}_impl", None)
            if marked:
                yield (marked.get("specname") or attribute), method


def _place(method: Any) -> str:
    code = inspect.unwrap(method).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"


def registry() -> pluggy.PluginManager:
    """An empty registry with the specifications."""
    manager = pluggy.PluginManager(specs.PROJECT)
    manager.add_hookspecs(specs.Hooks)
    return manager


def register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Register with every check; a plugin that fails one is not left behind. Raises PluginError."""
    check_colours(name, plugin)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        if manager.has_plugin(name):
            manager.unregister(name=name)
        raise PluginError(f"plugin {name!r}: {error}") from error


def opener(manager: pluggy.PluginManager, hook: str, module: ModuleType) -> Any:
    """One module's own implementation of ``open_network`` or ``open_policy``. Raises PluginError."""
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin is module:
            return implementation.function
    raise PluginError(f"plugin {module.__name__} does not implement {hook}")
