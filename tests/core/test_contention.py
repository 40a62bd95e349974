"""Others who write the same all the time end a request with an answer, and hold nobody up."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hansa.model.errors import Busy
from hansa.store.base import Conflict
from hansa.testing.actor import Actor, Config, module
from hansa.testing.harness import run_hansa

ROOT = Path(__file__).parents[2]


def _endless(loop: ast.AST) -> bool:
    """True if a loop tries again after each ``Conflict``, without a limit."""
    if not isinstance(loop, ast.While) or not (isinstance(loop.test, ast.Constant) and loop.test.value):
        return False
    handlers = [
        h
        for h in ast.walk(loop)
        if isinstance(h, ast.ExceptHandler) and ast.unparse(h.type or h) == "Conflict"
    ]
    return any(isinstance(step, ast.Continue) for handler in handlers for step in ast.walk(handler))


def endless(folder: Path) -> list[str]:
    """``module:line`` of every such loop."""
    return [
        f"{path.relative_to(folder)}:{node.lineno}"
        for path in sorted(folder.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if _endless(node)
    ]


@pytest.mark.parametrize("part", ["core/hansa", "plugins"])
def test_no_write_is_tried_without_end(part):
    found = [one for one in endless(ROOT / part) if "testing/" not in one]
    assert found == []


def test_an_endless_write_is_seen(tmp_path):
    text = "async def a():\n    while True:\n        try:\n            x()\n        except Conflict:\n            continue\n"
    (tmp_path / "new.py").write_text(text)
    assert endless(tmp_path) == ["new.py:2"]


async def test_a_room_that_loses_every_race_says_that_it_is_busy():
    made: dict[str, Actor] = {}
    plugin = module(made)
    networks = {name: (plugin, Config()) for name in ("left", "right")}
    async with run_hansa(networks, rooms=[("left:a", "right:b")]) as app:
        inner = app.store.inner

        class Contended:
            def __getattr__(self, name):
                return getattr(inner, name)

            async def commit(self, *_given, **_options):
                raise Conflict("event", ("r", 1))

        app.store.inner = Contended()
        with pytest.raises(Busy):
            await made["left"].say("a", "ann@x", "now")
        app.store.inner = inner
        assert (await made["left"].say("a", "ann@x", "then")).event is not None
