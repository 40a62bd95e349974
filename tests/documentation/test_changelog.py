"""The changelog has the form of Keep a Changelog, and its newest version is that of the code."""

from __future__ import annotations

import datetime as dt
import re
import subprocess
from pathlib import Path

import hansa
import pytest

ROOT = Path(__file__).parents[2]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
UNRELEASED, *RELEASED = re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", CHANGELOG, flags=re.MULTILINE)
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]


def _version(heading: str) -> tuple[str, dt.date]:
    """The version and the day of ``[1.2.3] - 2030-12-31``."""
    parts = re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})", heading)
    assert parts, heading
    return parts[1], dt.date.fromisoformat(parts[2])


def test_the_newest_version_is_that_of_the_code():
    assert _version(RELEASED[0][0])[0] == hansa.__version__


def test_versions_are_in_order_and_below_what_is_unreleased():
    assert UNRELEASED[0] == "[Unreleased]"
    versions = [_version(heading) for heading, _ in RELEASED]
    numbers = [tuple(map(int, version.split("."))) for version, _ in versions]
    assert numbers == sorted(set(numbers), reverse=True)
    assert [day for _, day in versions] == sorted((day for _, day in versions), reverse=True)


@pytest.mark.parametrize(("heading", "text"), [UNRELEASED, *RELEASED])
def test_a_section_has_the_kinds_of_keep_a_changelog(heading, text):
    kinds = re.findall(r"^### (.+)$", text, flags=re.MULTILINE)
    assert kinds == [kind for kind in KINDS if kind in kinds]
    for part in re.split(r"^### .+$", text, flags=re.MULTILINE)[1:]:
        assert re.search(r"^- ", part, flags=re.MULTILINE), heading


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository with the script, this changelog and this version, in one commit."""

    def git(*arguments: str) -> str:
        names = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
        return subprocess.run(
            ["git", *names, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    for name in ("scripts/release", "CHANGELOG.md", "core/hansa/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG.replace(UNRELEASED[1], "\n"), encoding="utf-8")
    git("init", "--quiet")
    git("config", "user.name", "Ann")
    git("config", "user.email", "ann@example.org")
    git("add", "--all")
    git("commit", "--quiet", "--message", "One")
    return tmp_path, git


def _release(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(folder / "scripts/release"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_release_script_tags_the_version_with_its_section(checkout):
    folder, git = checkout
    done = _release(folder)
    assert done.returncode == 0, done.stderr
    assert git("tag").split() == [f"v{hansa.__version__}"]
    message = git("tag", "--list", "--format=%(contents)")
    assert RELEASED[0][1].strip() in message
    assert RELEASED[1][0] not in message
    assert "already exists" in _release(folder).stderr


def test_the_release_script_refuses_what_does_not_agree(checkout):
    folder, git = checkout
    assert "the code of HEAD has version" in _release(folder, "9.9.9").stderr
    (folder / "new.txt").write_text("new")
    assert "not committed" in _release(folder).stderr
    (folder / "new.txt").unlink()
    page = folder / "CHANGELOG.md"
    page.write_text(page.read_text(encoding="utf-8").replace("## [Unreleased]", "## [Unreleased]\n\n- More."))
    git("commit", "--quiet", "--all", "--message", "Two")
    assert "lines under Unreleased" in _release(folder).stderr
    page.write_text(page.read_text(encoding="utf-8").replace(f"## [{hansa.__version__}]", "## [9.9.9]"))
    git("commit", "--quiet", "--all", "--message", "Three")
    assert "has no section" in _release(folder).stderr
    assert git("tag") == ""
