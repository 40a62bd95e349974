"""The routes that a running Hansa has, for tests that go through all of them."""

from __future__ import annotations

from collections.abc import Iterator

from hansa.http.router import Route, Router, _Node


def registered_routes(router: Router) -> Iterator[tuple[str, list[str], Route]]:
    """Yields ``(method, segments of its path, route)`` of each route; a wild segment is ``{name}``."""
    return _walk_routes(router._root, [])  # noqa: SLF001 (the one place that reads the tree of a router)


def _walk_routes(node: _Node, parts: list[str]) -> Iterator[tuple[str, list[str], Route]]:
    for method, route in node.methods.items():
        yield method, parts, route
    for name, child in node.child.items():
        yield from _walk_routes(child, [*parts, name])
    if node.wild is not None:
        yield from _walk_routes(node.wild, [*parts, "{" + node.wild.name + "}"])
