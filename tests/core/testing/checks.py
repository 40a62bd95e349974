"""Runs every check of a suite and says which fail."""

from __future__ import annotations

import pytest


def names(suite: type) -> list[str]:
    return [name for name in dir(suite) if name.startswith("test_")]


async def failing(suite: type) -> set[str]:
    found = set()
    for name in names(suite):
        try:
            await getattr(suite(), name)()
        except pytest.skip.Exception:
            continue
        except (Exception, pytest.fail.Exception):
            found.add(name)
    return found
