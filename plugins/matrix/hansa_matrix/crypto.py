"""The one seam to cryptography: ed25519 by pynacl, SHA-256 by the standard library."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from hansa.model.errors import ConfigError
from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey as NaclKey

from hansa_matrix.proto.ids import is_valid_key_id
from hansa_matrix.proto.signing import decode_base64, encode_base64


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A server's signing key. ``key_id`` is ``ed25519:VERSION``; the seed is never shown."""

    key_id: str
    _key: NaclKey = field(repr=False)

    @classmethod
    def from_seed(cls, key_id: str, seed: bytes) -> SigningKey:
        """From a 32-byte seed."""
        return cls(key_id, NaclKey(seed))

    @classmethod
    def from_line(cls, line: str) -> SigningKey:
        """From a key file's line, ``ed25519 VERSION SEED``. Raises ConfigError."""
        parts = line.split()
        seed = decode_base64(parts[2]) if len(parts) == 3 and parts[0] == "ed25519" else None
        key_id = f"ed25519:{parts[1]}" if seed else ""
        if seed is None or len(seed) != 32 or not is_valid_key_id(key_id):
            raise ConfigError("a signing key file holds one line: ed25519 VERSION SEED (32 bytes in base64)")
        return cls.from_seed(key_id, seed)

    @property
    def public(self) -> str:
        """The public key, unpadded base64."""
        return encode_base64(bytes(self._key.verify_key))

    def line(self) -> str:
        """The key file's line. A secret: mode 0600, never in a log."""
        return f"ed25519 {self.key_id.removeprefix('ed25519:')} {encode_base64(bytes(self._key))}\n"

    def sign(self, message: bytes) -> str:
        """The signature, unpadded base64."""
        return encode_base64(self._key.sign(message).signature)


#: A server signs all its events with one key.
_public = lru_cache(maxsize=1024)(decode_base64)


def verify_signature(public: str, signature: str, message: bytes) -> bool:
    """True if the signature is this key's over the message. Whatever is malformed is just not it."""
    key, sig = _public(public), decode_base64(signature)
    if key is None or sig is None or len(key) != 32 or len(sig) != 64:
        return False
    try:
        crypto_sign_open(sig + message, key)
    except (CryptoError, ValueError):
        return False
    return True
