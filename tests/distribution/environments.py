"""Distributions as they are built, and environments that see nothing of the source tree."""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLAIN = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PIP_", "VIRTUAL_ENV", "HANSA_"))}


def command(*words: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(w) for w in words], cwd=cwd, env=PLAIN, capture_output=True, text=True, timeout=240, check=False
    )
    if check and done.returncode:
        raise AssertionError(
            f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


def build(source: Path, out: Path, *what: str) -> None:
    """The wheel or the sdist of a source tree; without either, the sdist and the wheel made from it."""
    command(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, *what, source, cwd=out.parent)


@dataclass(frozen=True)
class Environment:
    """A virtual environment that has what Hansa depends on, and not Hansa."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        return next((self.folder / "lib").glob("python3*/site-packages"))

    def install(self, *what: object) -> None:
        """Install without looking at any index, and without touching what is there."""
        pip = (sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "--no-index")
        command(*pip, "--no-deps", "--no-build-isolation", *what, cwd=self.folder)

    def run(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A program of the environment, in a folder that is not the source tree."""
        return command(self.folder / "bin" / str(words[0]), *words[1:], cwd=self.folder, check=check)

    def ask(self, program: str) -> Any:
        """Returns the value that a Python program leaves in ``answer``."""
        return json.loads(
            self.run("python", "-c", f"{program}\nimport json; print(json.dumps(answer))").stdout
        )


def environment(folder: Path, *, without: tuple[str, ...] = ()) -> Environment:
    """A fresh one. It sees the distributions of the running one, by links, but for Hansa and ``without``."""
    command(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    shelf = folder / "shelf"
    shelf.mkdir()
    hidden = tuple(name.lower() for name in ("hansa", *without))
    for packages in site.getsitepackages():
        for entry in Path(packages).iterdir():
            if entry.suffix == ".pth" or entry.name.lower().startswith(hidden):
                continue
            (shelf / entry.name).symlink_to(entry)
    made = Environment(folder)
    (made.site_packages / "shelf.pth").write_text(f"{shelf}\n")
    return made
