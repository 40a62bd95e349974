"""How ``scripts/coverage`` compares what was measured with the floors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "scripts" / "coverage_floors.py")]


def _compared(tmp_path: Path, core: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    def summary(reached: int) -> dict[str, dict[str, int]]:
        return {"summary": {"num_statements": 100, "covered_lines": reached}}

    files = {
        "core/hansa/a.py": summary(core),
        "plugins/matrix/hansa_matrix/a.py": summary(90),
        "plugins/matrix/hansa_matrix/proto/a.py": summary(100),
        "plugins/xmpp/hansa_xmpp/a.py": summary(100),
        "plugins/governance/hansa_governance/a.py": summary(100),
    }
    file = tmp_path / "shares.json"
    file.write_text(json.dumps({"files": files}))
    return subprocess.run([*COMMAND, str(file), *arguments], capture_output=True, text=True, check=False)


def test_a_package_below_its_floor_fails(tmp_path):
    done = _compared(tmp_path, 10)
    assert done.returncode == 1
    assert "core/hansa: 10.0 %" in done.stdout and done.stdout.count("TOO LOW") == 1
    assert "plugins/matrix/hansa_matrix: 95.0 %" in done.stdout


def test_packages_above_their_floors_pass(tmp_path):
    assert _compared(tmp_path, 100).returncode == 0
    assert _compared(tmp_path, 10, "--no-floors").returncode == 0


def test_every_folder_with_a_floor_exists():
    folders = subprocess.run(
        [*COMMAND, "--folders"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"core/hansa", "plugins/matrix/hansa_matrix"} <= set(folders)
    assert all((ROOT / folder).is_dir() for folder in folders)
    packages = {
        path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("plugins/*/hansa_*/__init__.py")
    }
    assert packages <= set(folders)
