"""What the media service is made with, besides the bus and the store."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.environment import Environment, Http
from hansa.media.quotas import MediaLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaEnvironment:
    """Clock and randomness, the way out, and the operator's limits."""

    seams: Environment
    http: Http
    limits: MediaLimits
