"""The warnings of `hansa check` and `hansa run` that are not errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hansa.config.reader import Config


def exposed(path: Path, config: Config) -> list[str]:
    """A warning for each file or folder with secrets that others than its owner may use."""
    found = []
    for one in _secret_paths(path, config):
        try:
            mode = one.stat().st_mode & 0o777
        except OSError:
            continue  # not made yet, or named as a mistake where it has to be there
        if mode & 0o077:
            wanted = "700" if one.is_dir() else "600"
            found.append(f"{one} is open to others (mode {mode:04o}): chmod {wanted} it")
    return found


def _secret_paths(path: Path, config: Config) -> Iterator[Path]:
    yield path
    for tls in (config.server.tls, *(network.tls for network in config.networks)):
        if tls is not None:
            yield config.folder / tls.key
    kind, _, file = config.store.url.partition(":")
    if kind == "sqlite":
        for end in ("", "-wal", "-shm"):
            yield config.folder / f"{file}{end}"
    yield config.folder / config.media.folder
    yield config.folder / config.commands.login_key
    yield config.folder / config.server.admin.removeprefix("unix:")
