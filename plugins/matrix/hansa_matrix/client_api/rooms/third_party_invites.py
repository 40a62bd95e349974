"""Invites by an e-mail address or a telephone number. SPEC: client-server API, "Third-party invites".

This server does not ask identity servers, and says so: no user is led to believe that an invite was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hansa_matrix.client_api.http import get_string
from hansa_matrix.errors import matrix_error

_REQUIRED_FIELDS = ("medium", "address", "id_server", "id_access_token")


def require_no_addresses(body: Mapping[str, Any]) -> None:
    """Checks ``invite_3pid`` of a new room. Raises the error answer if it invites by an address."""
    listed = body.get("invite_3pid", [])
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise matrix_error(400, "M_BAD_JSON", "invite_3pid must be a list of objects")
    for one in listed:
        refuse_address(one)


def refuse_address(given: Mapping[str, Any]) -> None:
    """Raises the error answer for an invite by an address."""
    for name in _REQUIRED_FIELDS:
        get_string(given, name)
    # COMPAT: the code that clients are given elsewhere by servers that invite nobody by an address.
    raise matrix_error(
        403, "M_THREEPID_DENIED", "this server asks no identity server, so it invites user ids alone"
    )
