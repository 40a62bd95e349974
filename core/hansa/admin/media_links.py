"""Admin commands about files: end the links that were given out."""

from __future__ import annotations

from typing import Any

from hansa.app import App
from hansa.environment import Request


class MediaLinkCommands:
    """``hansa media ...``."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def revoke_links(self, _request: Request, _body: Any) -> Any:
        """Ends every link to a file that was given out so far."""
        await self._app.media.keys.rotate()
        return {"revoked": True}
