"""The part of a configuration that only a restart can change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from hansa.config.reader import Config, NetworkConfig


def needing_restart(before: Config, after: Config, *, networks_reload: bool = False) -> list[str]:
    """The TOML paths of settings that differ and that a reload does not take up; never their values.
    ``networks_reload``: the tables of networks were taken up, but for their certificates.
    """
    found = [
        f"{table}.{name}"
        for table in ("server", "store", "media", "commands")
        for name in _differing_paths(getattr(before, table), getattr(after, table))
    ]
    old = {network.id: network for network in before.networks}
    new = {network.id: network for network in after.networks}
    for key in sorted(old.keys() | new.keys()):
        if networks_reload:
            tls = [networks[key].tls if key in networks else None for networks in (old, new)]
            found += [f"networks.{key}.tls"] if key in new and tls[0] != tls[1] else []
        elif key in old and key in new:
            found += [f"networks.{key}.{name}" for name in _of_network(old[key], new[key])]
        else:
            found.append(f"networks.{key}")
    watched = {one.name: one for one in before.observers}, {one.name: one for one in after.observers}
    found += [
        f"observers.{key}"
        for key in sorted(watched[0].keys() | watched[1].keys())
        if watched[0].get(key) != watched[1].get(key)
    ]
    if before.rooms != after.rooms:
        found.append("rooms")
    return found


def _of_network(before: NetworkConfig, after: NetworkConfig) -> Iterator[str]:
    for name in ("plugin", "throttle", "presence_members", "tls"):
        if getattr(before, name) != getattr(after, name):
            yield name
    if before.plugin == after.plugin:
        yield from _differing_paths(before.options, after.options)


def _differing_paths(before: Any, after: Any) -> Iterator[str]:
    if isinstance(before, BaseModel):
        for name in type(before).model_fields:
            if getattr(before, name) != getattr(after, name, None):
                yield name
