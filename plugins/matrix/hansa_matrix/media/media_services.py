"""Media of this server and of others, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from hansa_matrix.media.remote import RemoteMedia
from hansa_matrix.media.repository import MediaRepository
from hansa_matrix.media.thumbnails import Thumbnails


@dataclass(frozen=True, slots=True)
class Media:
    """The media of this server, copies of other servers' media, and thumbnails of both."""

    repository: MediaRepository
    remote: RemoteMedia
    thumbnails: Thumbnails
