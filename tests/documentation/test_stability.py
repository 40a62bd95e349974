"""The public surface of the last release is still there: see docs/stability.md.

``public_surface.json`` is written by ``scripts/public_surface.py`` at each release. A line leaves it only with a
line under *Removed* in the changelog, after it was deprecated.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import types
from pathlib import Path
from typing import Any

import hansa
import pytest
from hansa.host.plugin_checks import check_module
from hansa.model.errors import PluginError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
RELEASED = json.loads((Path(__file__).parent / "public_surface.json").read_text(encoding="utf-8"))


def read_surface() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("public_surface", ROOT / "scripts" / "public_surface.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.read_surface()


def broken(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What was promised and is not there any more."""
    found = [
        f"{module}.{name}"
        for module in ("hansa", "hansa.testing")
        for name in set(before[module]) - set(now[module])
    ]
    for part in ("members", "config"):
        for owner, names in before[part].items():
            found += [f"{part} {owner}.{name}" for name in set(names) - set(now[part].get(owner, []))]
    for hook, arguments in before["hooks"].items():
        if now["hooks"].get(hook, [])[: len(arguments)] != arguments:
            found.append(f"hook {hook}")
    return sorted(found)


def test_everything_public_of_the_last_release_is_there():
    assert broken(RELEASED, read_surface()) == []


def test_the_surface_is_that_of_the_version_of_the_code():
    assert RELEASED["version"] == hansa.__version__, "run scripts/public_surface.py for the release"
    assert len(RELEASED["hansa"]) > 150 and len(RELEASED["hooks"]) >= 7


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (("hansa", 0), "hansa.ALLOW"),
        (("members", "Delivery", 0), "members Delivery.attempt"),
        (("config", "NetworkTable", 0), "config NetworkTable.plugin"),
        (("hooks", "delivery_failed", 1), "hook delivery_failed"),
    ],
)
def test_a_removal_is_found(path, what):
    now = copy.deepcopy(RELEASED)
    owner = now
    for step in path[:-1]:
        owner = owner[step]
    del owner[path[-1]]
    assert broken(RELEASED, now) == [what]


def test_the_page_names_the_contract_of_the_code():
    with pytest.raises(PluginError) as refused:
        check_module("old", types.ModuleType("old"))
    (api,) = re.findall(r"speaks \[(\d+)\]", str(refused.value))
    assert f"`api = {api}`" in PAGE
