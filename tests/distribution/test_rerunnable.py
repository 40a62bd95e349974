"""The choice of failed tests that are run once more."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "rerunnable.py"
E2E = [
    "tests/e2e/test_talk.py::test_a[x y]",
    "tests/core/store/test_postgres.py::test_b",
    "tests/hostile/test_costs.py::test_c",
]


def _rerunnable(tmp_path: Path, failed: list[str]) -> list[str]:
    kept = tmp_path / "lastfailed"
    kept.write_text("{" + ", ".join(f'"{node}": true' for node in failed) + "}")
    done = subprocess.run([sys.executable, SCRIPT, kept], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_few_tests_with_real_peers_are_run_again(tmp_path, number):
    assert _rerunnable(tmp_path, E2E[:number]) == sorted(E2E[:number])


@pytest.mark.parametrize(
    "failed",
    [
        [],
        [*E2E, "tests/e2e/test_bots.py::test_d"],
        [E2E[0], "tests/core/test_pipeline.py::test_e"],
        ["tests/sim/test_matrix.py::test_f"],
        ["tests/e2e/test_kills.py::test_g"],
        [E2E[0], "tests/e2e/test_takeover.py::test_h"],
    ],
)
def test_anything_else_is_final(tmp_path, failed):
    assert _rerunnable(tmp_path, failed) in ([], [""])


def test_where_nothing_was_kept_nothing_is_run_again(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "none"], check=True, capture_output=True, text=True
    )
    assert not done.stdout.strip()


def test_the_tests_whose_failures_are_final_exist():
    spec = importlib.util.spec_from_file_location("rerunnable", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in module.FINAL:
        assert (ROOT / "tests" / "e2e" / f"{name}.py").is_file()
