"""``hansa plugins``: the installed plugins, and one in detail. No server has to run."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from pydantic import BaseModel

from hansa.host import loader, plugin_checks
from hansa.model.commands import format_table
from hansa.model.errors import ConfigError, HansaError

#: The tables of a configuration whose entries name a plugin.
_TABLES = ("networks", "policies", "observers")


def list_plugins(config: Path) -> list[dict[str, Any]]:
    """Every installed plugin, with the tables of a configuration that use it."""
    enabled = _enabled(config)
    return [
        {
            "name": name,
            "module": entries[0].value,
            "distributions": sorted({e.dist.name for e in entries if e.dist}),
            "versions": sorted({e.dist.version for e in entries if e.dist}),
            "enabled": enabled.get(name, []),
        }
        for name, entries in sorted(loader.installed_plugins().items())
    ]


def _enabled(config: Path) -> dict[str, list[str]]:
    """The tables that use a plugin, by its name; none if there is no configuration. Raises ConfigError."""
    try:
        data = tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{config}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{config} is not TOML: {error}") from error
    found: dict[str, list[str]] = {}
    for kind in _TABLES:
        tables = data.get(kind)
        for key, table in tables.items() if isinstance(tables, dict) else ():
            name = table.get("plugin") if isinstance(table, dict) else None
            if isinstance(name, str):
                found.setdefault(name, []).append(f"{kind}.{key}")
    return found


def describe_plugin(name: str, config: Path) -> dict[str, Any]:
    """One installed plugin: where it is from, its hooks, its settings, its commands. ``mistake`` says why it
    cannot be used, and is empty if it can. Raises ConfigError if it is not installed.
    """
    known = {one["name"]: one for one in list_plugins(config)}
    if name not in known:
        loader.load_plugin(name)  # which says what is installed instead
    found: dict[str, Any] = {**known[name], "mistake": "", "hooks": [], "settings": [], "commands": []}
    try:
        module = loader.load_plugin(name)
        found["hooks"] = [
            {"hook": hook, "place": place} for hook, place in plugin_checks.implemented_hooks(module)
        ]
        found["commands"] = _commands(module)
    except HansaError as error:
        found["mistake"] = str(error)
        return found
    found["api"] = module.api
    found["about"] = (inspect.getdoc(module) or "").partition("\n\n")[0].replace("\n", " ")
    found["settings"] = list(_settings(module.Config))
    return found


def _commands(module: ModuleType) -> list[dict[str, str]]:
    from hansa.model.commands import Commands  # noqa: PLC0415  # only where a plugin is looked at

    commands = Commands()
    hook = getattr(module, "register_commands", None)
    if hook is not None:
        hook(commands)
    return [{"command": one.words, "help": one.help} for one in commands.found.values()]


def _settings(model: type[BaseModel], prefix: str = "") -> Iterator[dict[str, Any]]:
    for name, info in model.model_fields.items():
        value = None if info.is_required() else info.get_default(call_default_factory=True)
        yield {
            "setting": prefix + name,
            "required": info.is_required(),
            "default": None if value is None or isinstance(value, BaseModel) else str(value),
            "description": info.description or "",
        }
        for inner in (info.annotation, *get_args(info.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _settings(inner, f"{prefix}{name}.")


def show_plugin(found: Mapping[str, Any]) -> str:
    """``hansa plugins show`` as people read it."""
    versions = ", ".join(found["versions"])
    head = [
        f"{found['name']}: {found.get('about') or found['module']}",
        f"from {', '.join(found['distributions'])} {versions} (module {found['module']})",
        f"enabled as {', '.join(found['enabled'])}" if found["enabled"] else "not enabled",
    ]
    if found["mistake"]:
        return "\n".join([*head, f"it cannot be used: {found['mistake']}"])
    settings = [
        [s["setting"], "(required)" if s["required"] else s["default"] or "", s["description"]]
        for s in found["settings"]
    ]
    parts = [
        "\n".join(head),
        format_table(["hook", "at"], [[h["hook"], h["place"]] for h in found["hooks"]]),
        format_table(["setting", "default", "meaning"], settings),
    ]
    if found["commands"]:
        rows = [[f"hansa {found['name']} {c['command']}", c["help"]] for c in found["commands"]]
        parts.append(format_table(["command", ""], rows))
    return "\n\n".join(parts)
