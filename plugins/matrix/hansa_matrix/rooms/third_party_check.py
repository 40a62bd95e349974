"""The cryptography that the rules need, the same for every caller."""

from __future__ import annotations

from typing import Final

from hansa_matrix.crypto import verify_signature
from hansa_matrix.proto.auth_rules.membership import ThirdPartyOk
from hansa_matrix.proto.auth_rules.third_party import third_party_verifier

#: True if a signature in a third-party invite verifies with a key that the room names.
THIRD_PARTY_OK: Final[ThirdPartyOk] = third_party_verifier(verify_signature)
