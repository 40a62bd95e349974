"""The key that secrets of logins are encrypted with: in a file beside the database, never in it."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from pathlib import Path

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from hansa.environment import Random
from hansa.model.errors import ConfigError

KEY_BYTES = 32
_NONCE_BYTES = 12


class SecretBox:
    """Encrypts secrets by ChaCha20-Poly1305 (RFC 8439) with a new nonce each. A secret is bound to its row:
    it cannot be moved to another one by who can write to the database.
    """

    def __init__(self, key: bytes, random: Random) -> None:
        """``key`` has 32 bytes."""
        self._cipher = ChaCha20Poly1305(key)
        self._random = random

    def encrypt(self, secret: str, *row: str) -> bytes:
        """The nonce and the encrypted secret of the row that ``row`` names."""
        nonce = self._random.bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret.encode(), orjson.dumps(row))

    def decrypt(self, sealed: bytes, *row: str) -> str | None:
        """The secret; None if another key, or another row, encrypted it."""
        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, orjson.dumps(row)).decode()
        except (InvalidTag, ValueError):
            return None


def read_or_make_key(path: Path, random: Random) -> bytes:
    """The key in a file, which is made with mode 0600 where there is none. Raises ConfigError, OSError."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_key(path)
    with os.fdopen(handle, "wb") as file:
        key = random.bytes(KEY_BYTES)
        file.write(b64encode(key) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return key


def _read_key(path: Path) -> bytes:
    try:
        key = b64decode(path.read_bytes().strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path} is not a key of {KEY_BYTES} bytes in base64: put the right file there")
    return key
