"""The rows that say which events name a file of the media service: written in the commit of the event."""

from __future__ import annotations

from typing import Final

from hansa.model.content import Message
from hansa.model.events import Event
from hansa.model.media_sources import sources_of
from hansa.store.base import Put

#: The scope of the media service, and the network word of its files.
MEDIA: Final = "media"


def media_reference_writes(event: Event) -> list[Put]:
    """The rows of the files of the core that an event names: none for a message without files."""
    content = event.content
    if isinstance(content, Message) and not content.attachments:  # most events
        return []
    return [
        Put(f"{MEDIA}/reference", (source.id, event.id))
        for source in sources_of(content)
        if source.network == MEDIA
    ]
