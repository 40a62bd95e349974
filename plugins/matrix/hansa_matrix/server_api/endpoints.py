"""Every endpoint for other servers. SPEC: server-server API; the table is section by section the same."""

from __future__ import annotations

from collections.abc import Callable

from hansa import Request, Response, Router, __version__
from hansa.model.bounded_json import Limits

from hansa_matrix.errors import json_response, matrix_error
from hansa_matrix.federation.keyring import Keyring
from hansa_matrix.homeserver import Homeserver
from hansa_matrix.proto.canonical_json import TRANSACTION
from hansa_matrix.proto.edus import RECEIPT, TYPING
from hansa_matrix.server_api.auth import FederationAuth, FederationEndpoints
from hansa_matrix.server_api.edus import EduDispatcher
from hansa_matrix.server_api.events import EventEndpoints
from hansa_matrix.server_api.invite import InviteEndpoints
from hansa_matrix.server_api.key_notary import Notary
from hansa_matrix.server_api.media import FederationMedia
from hansa_matrix.server_api.membership import MembershipEndpoints
from hansa_matrix.server_api.query import QueryEndpoints, add_openid_userinfo
from hansa_matrix.server_api.send import TransactionEndpoint
from hansa_matrix.server_api.spaces import SpaceEndpoints
from hansa_matrix.server_api.unproven_work import UnprovenWork
from hansa_matrix.users.edu_handler import EduHandler

#: A PDU of 64 KiB as it may be written, with the stripped state of an invite.
_BODY = Limits(bytes=128 * 1024)


def add_server_routes(router: Router, home: Homeserver, is_ready: Callable[[], bool]) -> None:
    """Add every endpoint for other servers. Until ``is_ready``, requests are answered with 503."""
    strangers = UnprovenWork(home.own.ctx.clock)
    gate = FederationAuth(home.own, home.federation.keyring, strangers, is_ready)
    _add_key_routes(router, home.federation.keyring, home.own.ctx.config.well_known_server)
    for part in _endpoint_groups(home):
        for (method, pattern), answerer in part.routes().items():
            # A transaction is parsed where it is taken, by its parts if it has to be.
            limits = None if "/send/" in pattern else _BODY
            router.add(
                method,
                f"/_matrix/federation{pattern}",
                gate(answerer, limits),
                max_body=(limits or TRANSACTION).bytes,
                admit=gate.admit,
            )
    Notary(home.federation.keyring, home.own.ctx.clock, strangers).register(router)
    add_openid_userinfo(router, home.users.openid)


def _endpoint_groups(home: Homeserver) -> tuple[FederationEndpoints, ...]:
    ctx, rooms, media = home.own.ctx, home.rooms, home.media
    access, inbound, typing = rooms.access, rooms.inbound, rooms.typing_and_receipts
    handlers: dict[str, EduHandler] = {
        TYPING: typing.take_typing,
        RECEIPT: typing.take_receipts,
        **home.users.edu_handlers(),
    }
    return (
        TransactionEndpoint(ctx, inbound.intake, EduDispatcher(ctx, handlers)),
        MembershipEndpoints(access, inbound),
        InviteEndpoints(access, home.federation.keyring, rooms.direct_chats, rooms.local_events),
        EventEndpoints(access),
        QueryEndpoints(access, home.users),
        SpaceEndpoints(access, rooms.directory),
        FederationMedia(ctx, media),
    )


def _add_key_routes(router: Router, keyring: Keyring, delegate: str) -> None:

    async def version(_: Request) -> Response:
        return json_response({"server": {"name": "Hansa", "version": __version__}})

    async def keys(_: Request) -> Response:
        return json_response(keyring.own_document())

    async def well_known(_: Request) -> Response:
        if not delegate:
            raise matrix_error(404, "M_NOT_FOUND", "this server is not delegated")
        return json_response({"m.server": delegate})

    router.add("GET", "/_matrix/federation/v1/version", version)
    router.add("GET", "/_matrix/key/v2/server", keys)
    router.add("GET", "/_matrix/key/v2/server/{key}", keys)
    router.add("GET", "/.well-known/matrix/server", well_known)
