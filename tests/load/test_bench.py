"""The benchmark runs, and would notice a loss. What it measures decides nothing here."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

ROOT = Path(__file__).parents[2]
TINY = ("--origins", "2", "--sizes", "2", "--members", "5", "--events", "8", "--runs", "1", "--no-echo")


def test_the_command_prints_every_subject_as_json():
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "bench", "--json", *TINY]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["inbound"]
    assert [row["subject"] for row in rows] == ["Hansa", "floor"]
    for row in rows:
        assert (row["events"], row["missing"]) == (8, 0)
        assert row["events_per_second"] > 0 and row["peak_mib"] > 1


#: Each makes one event unknown to Hansa in a way of its own.
DAMAGES = (
    "DELETE FROM matrix_pdu WHERE event_id = ?",
    "UPDATE matrix_pdu SET status = 'soft_failed' WHERE event_id = ?",
    "UPDATE matrix_pdu SET after = 0 WHERE event_id = ?",
    "DELETE FROM core_alias WHERE native = ?",
    "DELETE FROM core_event WHERE seq = (SELECT seq FROM core_alias WHERE native = ?)",
)


async def test_a_lost_event_is_counted(ca, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from bench.load import Load
    from bench.measure import Row
    from bench.origin import origins
    from bench.servers_under_test import HansaSubject

    (fake,) = await origins(ca, 1)
    subject = await HansaSubject(tmp_path / "hansa", ca).start()
    try:
        load = Load(Row(origins=1, per_transaction=3, members=3), [fake], subject)
        await load.join()
        run = await load.run(6)
    finally:
        await subject.stop()
        await fake.stop()
    assert len(set(run.acknowledged)) == 6
    assert subject.missing(run.acknowledged) == 0
    database, whole = tmp_path / "hansa" / "hansa.db", tmp_path / "whole.db"
    shutil.copy(database, whole)
    for damage in DAMAGES:
        shutil.copy(whole, database)
        with closing(sqlite3.connect(database, isolation_level=None)) as db:
            assert db.execute(damage, (run.acknowledged[2],)).rowcount == 1
        assert subject.missing(run.acknowledged) == 1, damage
