"""Requirements of a test on the machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def synapse_python() -> str:
    """The interpreter that has Synapse."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return os.environ.get("HANSA_SYNAPSE_PYTHON") or str(cache / "hansa" / "synapse" / "bin" / "python")


def absent(what: str, remedy: str) -> None:
    """A failure where peers are required, a visible skip otherwise."""
    if os.environ.get("HANSA_REQUIRE_PEERS") == "1":
        pytest.fail(f"{what} is not here: {remedy}")
    pytest.skip(f"{what} is not here: {remedy}")


def require_synapse() -> str:
    python = synapse_python()
    if not Path(python).exists():
        absent("Synapse", "run scripts/bootstrap-peers")
    return python


def require_prosody() -> str:
    found = shutil.which("prosody")
    if found is None:
        absent("Prosody", "run scripts/bootstrap-peers, or apt-get install prosody")
    return found or ""


def require_ngircd() -> str:
    found = shutil.which("ngircd") or shutil.which("ngircd", path="/usr/sbin")
    if found is None:
        absent("ngircd", "run scripts/bootstrap-peers, or apt-get install ngircd")
    return found or ""


def require_irc_services() -> tuple[str, str]:
    """InspIRCd, and the services of Atheme."""
    server = shutil.which("inspircd") or shutil.which("inspircd", path="/usr/sbin")
    services = shutil.which("atheme-services")
    if server is None or services is None:
        remedy = "run scripts/bootstrap-peers, or apt-get install inspircd atheme-services"
        absent("an IRC server with services", remedy)
    return server or "", services or ""


def require_dendrite() -> str:
    """The program. It is built from its sources: without Go there is none, which no setting makes a failure."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = cache / "hansa" / "dendrite-0.13.8" / "dendrite"
    if not found.exists():
        if shutil.which("go") is None:
            pytest.skip(
                "Dendrite is not here: it is built with Go, which is missing; then run scripts/bootstrap-peers"
            )
        absent("Dendrite", "run scripts/bootstrap-peers browser")
    return str(found)


def require_browser() -> tuple[Path, str]:
    """Where the clients of the browser are, and Chromium."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder, chromium = cache / "hansa" / "js", shutil.which("chromium")
    if chromium is None or not (folder / "out" / "page.js").exists():
        absent("Chromium with matrix-js-sdk", "run scripts/bootstrap-peers")
    return folder, chromium or ""
