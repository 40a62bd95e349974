"""The signatures of a third-party invite. SPEC: Matrix v1.19, room version 12, rule 5.4.1.7."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, product
from typing import Any, Final

from hansa_matrix.proto.auth_rules.membership import ThirdPartyOk
from hansa_matrix.proto.signing import signable_bytes

#: ``verify(public key, signature, message)``, two in unpadded base64; false for whatever is malformed.
Verify = Callable[[str, str, bytes], bool]

#: Pairs of a signature and a key that are tried: a verification costs a peer nothing to ask for.
_MAX_TRIES: Final = 100


def third_party_verifier(verify: Verify) -> ThirdPartyOk:
    """The ``third_party_ok`` of ``check_event_auth`` and ``v2.resolve_state``, by this ``verify``."""

    def third_party_ok(signed: Mapping[str, Any], public_keys: Sequence[str]) -> bool:
        signatures = list(islice(_iter_signatures(signed), _MAX_TRIES))
        if not signatures or not public_keys:
            return False
        message = signable_bytes(signed)
        tries = islice(product(signatures, public_keys), _MAX_TRIES)
        return any(verify(key, signature, message) for signature, key in tries)

    return third_party_ok


def _iter_signatures(signed: Mapping[str, Any]) -> Iterator[str]:
    servers = signed.get("signatures")
    for block in servers.values() if isinstance(servers, Mapping) else ():
        for key_id, signature in block.items() if isinstance(block, Mapping) else ():
            if key_id.startswith("ed25519:") and isinstance(signature, str):
                yield signature
