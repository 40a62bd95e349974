"""Every endpoint for other servers. SPEC: server-server API; the table is section by section the same."""

from __future__ import annotations

from collections.abc import Iterable

from hansa import Request, Response, Router, __version__
from hansa.model.bounded_json import Limits

from hansa_matrix.errors import json_response, matrix_error
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.proto.canonical_json import TRANSACTION
from hansa_matrix.server_api.auth import FederationAuth, FederationEndpoints

#: A PDU of 64 KiB as it may be written, with the stripped state of an invite.
_BODY = Limits(bytes=128 * 1024)


def add_routes(
    router: Router,
    gate: FederationAuth,
    answers: Iterable[FederationEndpoints],
    keyring: Keyring,
    delegate: str,
) -> None:
    """Everything that this network serves."""

    async def version(_: Request) -> Response:
        return json_response({"server": {"name": "Hansa", "version": __version__}})

    async def keys(_: Request) -> Response:
        return json_response(keyring.document())

    async def well_known(_: Request) -> Response:
        if not delegate:
            raise matrix_error(404, "M_NOT_FOUND", "this server is not delegated")
        return json_response({"m.server": delegate})

    router.add("GET", "/_matrix/federation/v1/version", version)
    router.add("GET", "/_matrix/key/v2/server", keys)
    router.add("GET", "/_matrix/key/v2/server/{key}", keys)
    router.add("GET", "/.well-known/matrix/server", well_known)
    for part in answers:
        for (method, pattern), answerer in part.table().items():
            # A transaction is parsed where it is taken, by its parts if it has to be.
            limits = None if "/send/" in pattern else _BODY
            router.add(
                method,
                f"/_matrix/federation{pattern}",
                gate(answerer, limits),
                max_body=(limits or TRANSACTION).bytes,
                admit=gate.admit,
            )
