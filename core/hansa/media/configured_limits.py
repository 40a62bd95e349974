"""The limits of the media service, from a checked configuration."""

from __future__ import annotations

from hansa.config.reader import Config
from hansa.media.quotas import MediaLimits

_SECONDS_A_DAY = 86_400


def to_media_limits(config: Config) -> MediaLimits:
    """The ``[media]`` table as limits. Without a ``public_url``, links begin as the server of a configured
    network is reached.
    """
    media = config.media
    return MediaLimits(
        max_file=media.max_file,
        quota_per_sender=media.quota_per_sender,
        quota_per_server=media.quota_per_server,
        files_per_sender=media.files_per_sender,
        quota=media.quota,
        reserve=media.reserve,
        link_ttl_s=media.link_days * _SECONDS_A_DAY,
        public_url=media.public_url or _find_public_url(config),
    )


def _find_public_url(config: Config) -> str:
    """The address at which other servers reach the first network that has a server name: as its options name
    it, else port 8448, or the port in the name.
    """
    for network in config.networks:
        options = network.options
        if url := str(getattr(options, "public_base_url", "") or ""):
            return url
        if place := str(getattr(options, "well_known_server", "") or ""):
            return f"https://{place}"
        if name := str(getattr(options, "server_name", "") or ""):
            has_port = name.rpartition(":")[2].isdigit() and not name.endswith("]")
            return f"https://{name}" if has_port else f"https://{name}:8448"
    return ""
