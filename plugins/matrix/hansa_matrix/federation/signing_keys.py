"""Our signing key, those that it replaced, and the file that holds them.

The first line of the file is the key that signs, ``ed25519 VERSION SEED``. A line for each earlier one
follows, ``old VERSION PUBLIC EXPIRED_TS``: what is needed to publish it, and no secret any more. So a lost
database loses no key, and a rotation is one replacement of one file. SPEC: server-server API, "Publishing
Keys".
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hansa.model.errors import ConfigError

from hansa_matrix.crypto import SigningKey
from hansa_matrix.proto.ids import is_valid_key_id
from hansa_matrix.proto.signing import decode_base64


class OldVerifyKey(NamedTuple):
    """A key that signs no more: ``public`` in base64, ``expired_ts`` in ms."""

    public: str
    expired_ts: int


class SigningKeys:
    """The keys of one server name. ``current`` changes when they are rotated: ask for it each time."""

    def __init__(self, path: Path, current: SigningKey, old: Mapping[str, OldVerifyKey]) -> None:
        self._path = path
        self.current = current
        self.old: dict[str, OldVerifyKey] = dict(old)

    @classmethod
    def read(cls, path: Path) -> SigningKeys:
        """Out of the file. Raises ConfigError, OSError, UnicodeDecodeError."""
        first, *rest = path.read_text(encoding="ascii").strip().splitlines() or [""]
        current = SigningKey.from_line(first)
        old = dict(_old(line) for line in rest if line.strip())
        if current.key_id in old:
            raise ConfigError(f"{path}: {current.key_id} is both the key that signs and an old one")
        return cls(path, current, old)

    def rotate(self, seed: bytes, now: int) -> SigningKey:
        """Sign with a new key from now (ms) on; it is in the file before it signs. Of the 36 bytes of
        ``seed`` four make its id. Raises OSError or ConfigError, and then everything is as it was.
        """
        new = SigningKey.from_seed(f"ed25519:a_{seed[:4].hex()}", seed[4:36])
        if new.key_id == self.current.key_id or new.key_id in self.old:
            raise ConfigError(f"there was a key {new.key_id} before: try again")
        old = {**self.old, self.current.key_id: OldVerifyKey(self.current.public, now)}
        self._write(new, old)
        self.current, self.old = new, old
        return new

    def _write(self, current: SigningKey, old: Mapping[str, OldVerifyKey]) -> None:
        lines = [current.line()]
        lines += [f"old {k.removeprefix('ed25519:')} {o.public} {o.expired_ts}\n" for k, o in old.items()]
        beside = self._path.with_name(self._path.name + ".new")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), 0o600)
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _old(line: str) -> tuple[str, OldVerifyKey]:
    parts = line.split()
    good = len(parts) == 4 and parts[0] == "old" and parts[3].isdigit() and len(parts[3]) < 16
    public = decode_base64(parts[2]) if good else None
    if not good or public is None or len(public) != 32 or not is_valid_key_id(f"ed25519:{parts[1]}"):
        raise ConfigError("a further line of a signing key file is: old VERSION PUBLIC EXPIRED_TS")
    return f"ed25519:{parts[1]}", OldVerifyKey(parts[2], int(parts[3]))
