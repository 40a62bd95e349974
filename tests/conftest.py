"""Shared fixtures, and which tests may run beside which."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["peers.fixtures"]

_TESTS = Path(__file__).parent
#: Folders whose tests measure the latency or the memory of real processes.
_MEASURING_FOLDERS = {"hostile", "load"}
#: Modules that measure. A test module that imports from one of them measures too.
_MEASURING_MODULES = {"memory", "cpu_reference"}
#: Folders whose tests share one peer or one build, so that one worker runs all of them.
_SHARING_FOLDERS = {"e2e", "distribution"}


def _measures(item: pytest.Item) -> bool:
    if item.path.relative_to(_TESTS).parts[0] in _MEASURING_FOLDERS:
        return True
    names = vars(getattr(item, "module", None) or object).values()
    return any(getattr(name, "__module__", None) in _MEASURING_MODULES for name in names)


def _group(item: pytest.Item) -> str:
    path = item.path.relative_to(_TESTS)
    return path.parts[0] if path.parts[0] in _SHARING_FOLDERS else path.as_posix()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what ``scripts/test`` needs to run tests in several processes."""
    for item in items:
        if not item.path.is_relative_to(_TESTS):
            continue
        if _measures(item):
            item.add_marker(pytest.mark.alone)
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_encodable(key): _encodable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_encodable(item) for item in value)
    return value


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Escapes lone surrogates in a report. A worker cannot send them, and hostile text in a log has some."""
    return _encodable((yield))
