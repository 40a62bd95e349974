"""One signed request to every server that we share a room with, so that those who gave us up try again."""

from __future__ import annotations

from hansa import NetworkContext

from hansa_matrix.federation.client import FederationClient, RemoteError, ServerUnreachable
from hansa_matrix.federation.sender import FederationSender


async def announce_to_peers(
    ctx: NetworkContext, client: FederationClient, sender: FederationSender, bridge_user: str
) -> None:
    """Asks each of them about one of its own users. ``bridge_user`` is the bridge user's id."""
    local, _, own = bridge_user.partition(":")
    servers: set[str] = set()
    for link in ctx.list_links():
        view = ctx.get_view(link.native.id)
        if view is not None:
            servers |= {server for network, server in view.joined_servers if network == ctx.id}
    for server in sorted(servers - {own}):
        target = f"/_matrix/federation/v1/query/profile?user_id={local}:{server}"
        try:
            await client.request("GET", server, target, seconds=10.0)
        except RemoteError:
            sender.heard_from(server)
        except ServerUnreachable as error:
            ctx.log.info("%s", error)
        else:
            sender.heard_from(server)
