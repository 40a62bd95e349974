"""The requirements of ``scripts/test`` when it runs tests in several processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from peers import process
from pytest import CallInfo, TestReport  # noqa: PT013

ROOT = Path(__file__).parents[2]


def _collected(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in {0, 1, 5}, done.stderr
    return {line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line}


def test_workers_never_hand_out_the_same_port(monkeypatch):
    taken: list[set[int]] = []
    monkeypatch.setenv("PYTEST_XDIST_WORKER_COUNT", "3")
    for number in range(3):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", f"gw{number}")
        taken.append(set(process._ports()))
    assert not taken[0] & taken[1] and not taken[1] & taken[2] and not taken[0] & taken[2]
    assert len(set.union(*taken)) == 12_000
    monkeypatch.delenv("PYTEST_XDIST_WORKER_COUNT")
    monkeypatch.delenv("PYTEST_XDIST_WORKER")
    assert len(process._ports()) == 12_000


def test_tests_that_measure_run_alone_and_others_do_not():
    asked = ("tests/load", "tests/governance/test_words.py", "tests/governance/test_servers.py")
    measuring = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests/load").glob("test_*.py")}
    assert _collected("-m", "alone", *asked) == {*measuring, "tests/governance/test_words.py"}


def test_a_report_with_lone_surrogates_can_be_sent_by_a_worker(request, pytestconfig):
    report = TestReport.from_item_and_call(
        request.node, CallInfo.from_call(lambda: None, "call", reraise=BaseException)
    )
    report.sections.append(("Captured log call", "hostile \ud800 text"))
    sent = pytestconfig.hook.pytest_report_to_serializable(config=pytestconfig, report=report)
    assert ("Captured log call", "hostile \\ud800 text") in [tuple(section) for section in sent["sections"]]
