"""The packages that are built once for all tests of packaging."""

from __future__ import annotations

from pathlib import Path

import pytest

from .environments import ROOT, Environment, build, environment


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A folder with the sdist, and the wheel that was made from it."""
    out = tmp_path_factory.mktemp("dist")
    build(ROOT, out)
    return out


@pytest.fixture(scope="session")
def wheel(built) -> Path:
    (found,) = built.glob("hansa-*.whl")
    return found


@pytest.fixture(scope="session")
def sdist(built) -> Path:
    (found,) = built.glob("hansa-*.tar.gz")
    return found


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Environment:
    """An environment with the wheel."""
    made = environment(tmp_path_factory.mktemp("wheel") / "env")
    made.install(wheel)
    return made
