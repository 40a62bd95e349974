"""The media service as a whole: its parts, its life, and the links that deliveries carry."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

from hansa.bus.media_references import MEDIA
from hansa.http.router import Router
from hansa.media.bus_access import BusAccess
from hansa.media.cleaning import MediaCleaner
from hansa.media.environment import MediaEnvironment
from hansa.media.fetcher import MediaFetcher
from hansa.media.files import MediaFiles
from hansa.media.link_endpoint import PREFIX, LinkEndpoint
from hansa.media.link_keys import LinkKeys
from hansa.media.opener import MediaOpener, can_keep_media
from hansa.media.schema import SCHEMA
from hansa.media.signed_links import LinkClaim, file_tag, link_tag, sign_claim
from hansa.model.content import Attachment
from hansa.model.events import Event, Link
from hansa.model.media_sources import sources_of
from hansa.model.media_types import sanitise_name
from hansa.model.ref import NativeId
from hansa.store.base import ScopedStore
from hansa.store.blobs import Blobs, ScopedBlobs

#: Seconds between two sweeps.
SWEEP_INTERVAL_S = 3600.0
#: Characters of a file's name in a link, before they are escaped.
_MAX_NAME_IN_LINK = 60


class CoreMedia:
    """Files for all networks. ``store`` has the scope of the service."""

    def __init__(
        self, store: ScopedStore, blobs: Blobs, access: BusAccess, environment: MediaEnvironment
    ) -> None:
        seams, limits = environment.seams, environment.limits
        self.limits = limits
        self.access = access
        self.keys = LinkKeys(store, seams.clock, seams.random, limits.link_ttl_s)
        self.files = MediaFiles(store, ScopedBlobs(blobs, MEDIA), seams, limits)
        self.fetcher = MediaFetcher(environment.http, access.decisions)
        self.opener = MediaOpener(self.files, self.fetcher, access, seams.clock)
        self.cleaner = MediaCleaner(store, self.files, access, seams)
        self._store = store
        self._clock = seams.clock
        self._endpoint = LinkEndpoint(self.keys, seams.clock, access, self.opener)
        self._base = limits.public_url.rstrip("/")

    async def start(self) -> None:
        """Makes the collections and reads the keys; before any network starts."""
        await self._store.declare(SCHEMA)
        await self.keys.load()

    def add_routes(self, router: Router) -> None:
        """Registers what answers links."""
        self._endpoint.add_routes(router)

    async def sweep_regularly(self) -> None:
        """Deletes what nothing names, and renews the key of links, for ever."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            await self.keys.load()
            await self.cleaner.sweep_files()

    def names_files(self, events: Sequence[Event]) -> bool:
        """True if one of the events names a file of the core."""
        return any(source.network == MEDIA for event in events for source in sources_of(event.content))

    def link_to(self, attachment: Attachment, link: Link, event: Event) -> str:
        """The URL of a file of an event, for the people of a link; see ``hansa.MediaService.link``."""
        return self.make_link(attachment, link.native, event.id)

    def make_link(self, attachment: Attachment, native: NativeId, event_id: str) -> str:
        """The same by the native room and the id of the event."""
        link = self.access.rooms.link(native)
        source = attachment.source
        if source is None:
            return ""
        if source.id.startswith(("https://", "http://")) and not can_keep_media(
            self.access.network(source.network)
        ):
            return source.id
        if not self._base:
            return ""
        claim = LinkClaim(
            event_id=event_id,
            file_tag=file_tag(source),
            link_tag=link_tag(str(native), link.judged_from if link is not None else 0),
            until=self._clock.now() // 1000 + self.limits.link_ttl_s,
        )
        token = sign_claim(claim, self.keys.newest, self.keys.keys[self.keys.newest])
        name = sanitise_name(attachment.name)[:_MAX_NAME_IN_LINK]
        return f"{self._base}{PREFIX}/{token}" + (f"/{quote(name, safe='')}" if name.strip(". ") else "")
