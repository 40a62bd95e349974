#!/usr/bin/env python3
"""Prints the public surface as JSON: the names that plugins and configurations use. See docs/stability.md.

scripts/public_surface.py > tests/documentation/public_surface.json   as a part of a release
"""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

import hansa
import hansa.testing
from hansa.api import hookspecs
from hansa.config import settings
from pydantic import BaseModel


def read_surface() -> dict[str, Any]:
    """The names of ``hansa`` and ``hansa.testing``, the members of classes, the arguments of hooks, the keys
    of the core's configuration.
    """
    hooks = {
        name: [one for one in inspect.signature(hook).parameters if one != "self"]
        for name, hook in vars(hookspecs.Hooks).items()
        if not name.startswith("_")
    }
    tables = {
        name: sorted(table.model_fields)
        for name, table in vars(settings).items()
        if isinstance(table, type) and issubclass(table, BaseModel) and table.__module__ == settings.__name__
    }
    return {
        "version": hansa.__version__,
        "hansa": sorted(hansa.__all__),
        "hansa.testing": sorted(hansa.testing.__all__),
        "members": {
            name: members_of(found)
            for name in sorted(hansa.__all__)
            if isinstance(found := getattr(hansa, name), type)
        },
        "hooks": hooks,
        "config": tables,
    }


def members_of(found: type) -> list[str]:
    """The public members of a class and of those of Hansa that it extends."""
    own = [one for one in found.__mro__ if one.__module__.startswith("hansa")]
    names = {name for one in own for name in [*vars(one), *getattr(one, "__annotations__", {})]}
    return sorted(name for name in names if not name.startswith("_"))


if __name__ == "__main__":
    json.dump(read_surface(), sys.stdout, indent=1, sort_keys=True)
    print()
