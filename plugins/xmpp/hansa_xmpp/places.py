"""Where servers listen, as the configuration says it. Importing this is cheap: a configuration is read also
where the network is not enabled.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PLACE = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]/]+):([0-9]{1,5})")
_DIRECT = "tls:"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a domain's server listens. ``direct``: TLS begins with the connection."""

    host: str
    port: int
    direct: bool = False


def parse_place(text: str) -> tuple[str, int]:
    """The address and the port of ``ADDRESS:PORT``. Raises ValueError."""
    found = _PLACE.fullmatch(text)
    if found is None or not 0 < int(found[2]) < 65536:
        raise ValueError(f"{text!r} is not ADDRESS:PORT")
    return found[1].removeprefix("[").removesuffix("]"), int(found[2])


def parse_route(text: str) -> Target:
    """``HOST:PORT``, or ``tls:HOST:PORT`` for direct TLS. Raises ValueError."""
    try:
        host, port = parse_place(text.removeprefix(_DIRECT))
    except ValueError:
        raise ValueError(f"{text!r} is not HOST:PORT or tls:HOST:PORT") from None
    return Target(host, port, text.startswith(_DIRECT))
