"""File descriptors: as many as the system gives, and connections only for what is left of them."""

from __future__ import annotations

import logging
import resource

#: Descriptors that are kept for everything but incoming connections: outgoing ones under way and idle, the
#: database, files, the admin socket, health and metrics, peers of other networks.
RESERVED = 768
_log = logging.getLogger("hansa")


def raise_limit() -> int:
    """Raise the soft limit to the hard one. The number of descriptors that this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError) as error:
            _log.warning("the limit of file descriptors stays at %d: %s", soft, error)
    return 1_000_000 if soft == resource.RLIM_INFINITY else soft


def connections_within(descriptors: int, wanted: int) -> int:
    """How many incoming connections so many descriptors allow. Warns if those are fewer than are wanted."""
    possible = max(16, descriptors - RESERVED)
    if possible < wanted:
        _log.warning(
            "this process may have %d file descriptors, %d of them reserved: it takes %d connections, "
            "not %d ([server] connections); allow %d (systemd: LimitNOFILE=%d; a shell: ulimit -n %d)",
            descriptors,
            RESERVED,
            possible,
            wanted,
            wanted + RESERVED,
            wanted + RESERVED,
            wanted + RESERVED,
        )
    return min(wanted, possible)
