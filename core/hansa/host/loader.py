"""Finding, validating and opening plugins. Installed is not enabled: only names in the configuration load."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from types import ModuleType
from typing import Any

import pluggy

import hansa.api.hookspecs as specs
from hansa.host.plugin_checks import check_hooks, check_module, check_opens
from hansa.model.errors import ConfigError, PluginError

GROUP = "hansa.plugins"


def installed_plugins() -> dict[str, list[EntryPoint]]:
    """Every installed plugin by name; more than one entry for a name is a quarrel of distributions."""
    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        same = found.setdefault(entry.name, [])
        if not any(
            _distribution_name(entry) == _distribution_name(other) and entry.value == other.value
            for other in same
        ):
            same.append(entry)
    return found


def _distribution_name(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unknown distribution"


def load_plugin(name: str, opens: str = "") -> ModuleType:
    """The module of an enabled plugin, which implements the hook ``opens``. Raises ConfigError if there is
    none, two, or one that cannot be, and PluginError for one that does not keep the contract.
    """
    entries = installed_plugins().get(name, [])
    if not entries:
        known = ", ".join(sorted(installed_plugins())) or "none"
        raise ConfigError(f"no plugin named {name!r} is installed (installed: {known})")
    if len(entries) > 1:
        homes = " and ".join(sorted(f"{_distribution_name(e)} ({e.value})" for e in entries))
        raise ConfigError(f"two distributions have a plugin named {name!r}: {homes}; uninstall one")
    entry = entries[0]
    missing = [need for need in _extra_requirements(entry) if not _is_installed(need)]
    if missing:
        text = (
            f"plugin {name!r} needs {', '.join(missing)}: install {_distribution_name(entry)}[{entry.name}]"
        )
        raise ConfigError(text)
    try:
        module: ModuleType = entry.load()
    except ModuleNotFoundError as error:
        needed = f"plugin {name!r} needs {error.name}, which is not installed"
        text = f"{needed}: reinstall {_distribution_name(entry)}"
        raise ConfigError(text) from error
    check_module(name, module)
    if opens:
        check_opens(name, module, opens)
    return module


#: A requirement of an extra, as metadata writes it: ``slixmpp>=1.8; extra == "xmpp"``.
_OF_EXTRA = re.compile(r"\s*([A-Za-z0-9._-]+)[^;]*;\s*extra\s*==\s*[\"']([A-Za-z0-9._-]+)[\"']\s*")


def _extra_requirements(entry: EntryPoint) -> list[str]:
    """The distributions of the extra that is named like the plugin, without importing anything."""
    requires = entry.dist.requires if entry.dist is not None else None
    found = [_OF_EXTRA.fullmatch(requirement) for requirement in requires or []]
    return [match[1] for match in found if match is not None and match[2] == entry.name]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def new_manager() -> pluggy.PluginManager:
    """An empty registry with the specifications."""
    manager = pluggy.PluginManager(specs.PROJECT)
    manager.add_hookspecs(specs.Hooks)
    return manager


def register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Register with every check; a plugin that fails one is not left behind. Raises PluginError."""
    check_hooks(name, plugin)
    try:
        manager.register(plugin, name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        if manager.get_plugin(name) is plugin:  # and not another that has the name already
            manager.unregister(name=name)
        raise PluginError(f"plugin {name!r}: {error}") from error


def open_plugin(manager: pluggy.PluginManager, hook: str, module: ModuleType, context: object) -> Any:
    """Returns the plugin that a module's own ``open_network`` or ``open_policy`` makes of a context. Raises
    PluginError, also where a package that the plugin needs is not installed.
    """
    if not manager.is_registered(module):
        register(manager, module, module.__name__)
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin is module:
            try:
                return implementation.function(context)
            except ModuleNotFoundError as error:
                raise PluginError(
                    f"plugin {module.__name__} needs {error.name}, which is not installed"
                ) from error
    raise PluginError(f"plugin {module.__name__} does not implement {hook}")


def hook_implementations(
    manager: pluggy.PluginManager, hook: str
) -> list[tuple[str, Callable[..., Awaitable[Any]]]]:
    """The implementations of a hook with their plugins' names, in the order in which they are called."""
    found = getattr(manager.hook, hook).get_hookimpls()
    return [(implementation.plugin_name, implementation.function) for implementation in found]
