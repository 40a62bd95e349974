"""The checks of a plugin's module, and of what it opens: each mistake is named with its file and line."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, get_type_hints

from pydantic import BaseModel

import hansa.api.hookspecs as specs
from hansa.config.settings import NetworkTable, ObserverTable, PolicyTable
from hansa.model.errors import PluginError

_API = (1,)
#: The core's own keys of the table that a hook opens: a plugin's Config would never be given them.
_CORE_KEYS = {
    "open_network": frozenset(NetworkTable.model_fields),
    "open_policy": frozenset(PolicyTable.model_fields),
    "open_observer": frozenset(ObserverTable.model_fields),
}
#: The methods of what a hook opens.
_REQUIRED = {
    "open_network": ("start", "stop", "send"),
    "open_policy": ("check",),
    "open_observer": ("observe",),
}
_HOOKS = frozenset(name for name in vars(specs.Hooks) if not name.startswith("_"))
#: Names of hooks that a method may have for another reason: ``check`` is asked of a policy, marked or not.
_UNMARKED = frozenset({"check"})


def check_module(name: str, module: ModuleType) -> ModuleType:
    """A module that keeps the plugin contract: ``api``, ``Config`` and its hooks. Raises PluginError."""
    api = getattr(module, "api", None)
    if type(api) is not int or api not in _API:
        raise PluginError(f"plugin {name!r} is written for api {api!r}; this Hansa speaks {list(_API)}")
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        raise PluginError(f"plugin {name!r} has no Config model ({_place_of(module)})")
    if config.model_config.get("extra") != "forbid":
        text = f"plugin {name!r}: its Config must forbid unknown keys (extra='forbid')"
        raise PluginError(f"{text} ({_place_of(config)})")
    check_hooks(name, module)
    _check_config_keys(name, module, config)
    return module


def _check_config_keys(name: str, module: ModuleType, config: type[BaseModel]) -> None:
    marked = {hook for hook, _ in _hook_methods(module)}
    for hook in sorted(marked & _CORE_KEYS.keys()):
        for field, info in config.model_fields.items():
            for key in {field, info.alias} & _CORE_KEYS[hook]:
                text = f"plugin {name!r}: its Config has {key!r}, which is a key of Hansa's own"
                raise PluginError(f"{text} ({_place_of_field(config, field)})")


def check_opens(name: str, module: ModuleType, hook: str) -> None:
    """A module that can be opened by ``open_network`` or ``open_policy``, as far as that can be known without
    opening it: what the hook returns is looked at if the hook says so. Raises PluginError.
    """
    opener = next((method for found, method in _hook_methods(module) if found == hook), None)
    if opener is None:
        raise PluginError(f"plugin {name!r} does not implement {hook} ({_place_of(module)})")
    try:
        opened = get_type_hints(opener).get("return")
    except (NameError, TypeError, AttributeError):  # a name that only a type checker sees
        return
    if not inspect.isclass(opened) or getattr(opened, "_is_protocol", False):
        return
    lacking = [method for method in _REQUIRED[hook] if not hasattr(opened, method)]
    if lacking:
        text = f"plugin {name!r}: {opened.__name__} lacks {', '.join(lacking)}"
        raise PluginError(f"{text} ({_place_of(opened)})")
    check_hooks(name, opened)


def check_hooks(name: str, plugin: object) -> None:
    """Every hook of a module, an object or its class is one there is, is marked, takes what it is given, and
    is ``def`` or ``async def`` as its specification is. Raises PluginError with file and line.
    """
    for attribute in sorted(_HOOKS - _UNMARKED):
        method = _routine(plugin, attribute)
        if method is not None and not getattr(method, f"{specs.PROJECT}_impl", None):
            text = f"plugin {name!r}: {attribute} is not marked with @hookimpl"
            raise PluginError(f"{text} ({_source_place(method)})")
    for hook, method in _hook_methods(plugin):
        spec = getattr(specs.Hooks, hook, None)
        if spec is None:
            raise PluginError(
                f"plugin {name!r} implements an unknown hook {hook!r} at {_source_place(method)}"
            )
        if inspect.iscoroutinefunction(spec) != inspect.iscoroutinefunction(method):
            wanted = "async def" if inspect.iscoroutinefunction(spec) else "def"
            raise PluginError(f"plugin {name!r}: hook {hook!r} must be {wanted} ({_source_place(method)})")
        given = list(inspect.signature(spec).parameters)[1:]
        taken = list(inspect.signature(method).parameters)[1 if inspect.isclass(plugin) else 0 :]
        if taken != given:
            text = f"plugin {name!r}: hook {hook!r} must take ({', '.join(given)})"
            raise PluginError(f"{text}, not ({', '.join(taken)}) ({_source_place(method)})")


def implemented_hooks(plugin: object) -> list[tuple[str, str]]:
    """The hooks that a module or an object implements, each with its file and line."""
    return [(hook, _source_place(method)) for hook, method in _hook_methods(plugin)]


def _routine(plugin: object, attribute: str) -> Any:
    if inspect.isroutine(inspect.getattr_static(plugin, attribute, None)):
        return getattr(plugin, attribute)
    return None


def _hook_methods(plugin: object) -> Iterator[tuple[str, Any]]:
    for attribute in dir(plugin):
        if attribute.startswith("__"):
            continue
        method = _routine(plugin, attribute)
        marked = getattr(method, f"{specs.PROJECT}_impl", None)
        if marked:
            yield (marked.get("specname") or attribute), method


def _source_place(method: Any) -> str:
    code = getattr(inspect.unwrap(method), "__code__", None)
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else _place_of(type(method))


def _place_of(thing: Any) -> str:
    """The file and line of a class, the file of a module."""
    if inspect.ismodule(thing):
        return f"{getattr(thing, '__file__', None) or thing.__name__}:1"
    try:
        return f"{inspect.getsourcefile(thing)}:{inspect.getsourcelines(thing)[1]}"
    except (OSError, TypeError):
        return f"{thing.__module__}.{thing.__qualname__}"


def _place_of_field(config: type[BaseModel], field: str) -> str:
    """The file and line of a setting, in the class that declares it."""
    owner = next((c for c in config.__mro__ if field in inspect.get_annotations(c)), config)
    try:
        lines, first = inspect.getsourcelines(owner)
    except (OSError, TypeError):
        return _place_of(owner)
    for number, line in enumerate(lines):
        if line.split(":")[0].strip() == field:
            return f"{inspect.getsourcefile(owner)}:{first + number}"
    return _place_of(owner)
