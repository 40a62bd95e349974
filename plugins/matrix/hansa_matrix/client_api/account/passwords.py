"""Passwords, of which argon2id's answer is kept: a few are hashed at a time, each as slow as the other."""

from __future__ import annotations

import asyncio

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from hansa import LocalProtocolError

_MAX_PASSWORD_LENGTH = 1024
#: Passwords that are hashed at a time: each takes a core and its memory.
_MAX_PARALLEL = 2


class Passwords:
    """``memory`` in KiB, ``rounds`` as argon2 counts."""

    def __init__(self, *, rounds: int, memory: int) -> None:
        self._hasher = PasswordHasher(time_cost=rounds, memory_cost=memory, parallelism=1)
        self._slots = asyncio.Semaphore(_MAX_PARALLEL)

    async def hash_password(self, password: str) -> str:
        """Returns the hash of a password, to be stored. Raises LocalProtocolError for a password over 1024
        bytes.
        """
        if len(password.encode(errors="replace")) > _MAX_PASSWORD_LENGTH:
            raise LocalProtocolError(f"a password has at most {_MAX_PASSWORD_LENGTH} bytes")
        async with self._slots:
            return await asyncio.to_thread(self._hasher.hash, password.encode(errors="replace"))

    async def verify_password(self, kept: str, password: str) -> bool:
        """True if ``kept`` is the hash of the password. An empty hash (``""``) takes as long, and no password
        is right.
        """
        if len(password) > _MAX_PASSWORD_LENGTH:
            return False
        async with self._slots:
            return await asyncio.to_thread(self._verify_hash, kept, password.encode(errors="replace"))

    def _verify_hash(self, kept: str, password: bytes) -> bool:
        try:
            if not kept:
                self._hasher.hash(password)
                return False
            return self._hasher.verify(kept, password)
        except (VerificationError, InvalidHashError):
            return False
