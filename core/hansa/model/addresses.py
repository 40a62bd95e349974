"""Addresses that may be connected to (SSRF guard), and addresses that count as one neighbourhood."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

IPv4 = ipaddress.IPv4Address
IPv6 = ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: IPv4 that is special by the IANA registry or leads to relays (RFC 6890, 7526). The table is our own: what
#: ``ipaddress`` takes for private differs between versions of Python.
_SPECIAL_4 = [
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/3",
    )
]
#: Global unicast; whatever lies outside is not, or not yet, for peers.
_GLOBAL_6 = ipaddress.IPv6Network("2000::/3")
#: Special within it: 2001::/23 holds Teredo, benchmarks and ORCHID.
_SPECIAL_6 = [
    ipaddress.IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2620:4f:8000::/48", "3fff::/20")
]
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_6TO4 = ipaddress.IPv6Network("2002::/16")
#: The interface identifiers of ISATAP (RFC 5214), with the universal bit or without.
_ISATAP = (0x00005EFE, 0x02005EFE)


def parse(text: str) -> IPv4 | IPv6 | None:
    """Parses an address; an IPv6 zone is ignored. None for a text that is not an address."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _embedded_addresses(address: IPv6) -> Iterator[IPv4]:
    """The IPv4 addresses that packets to an IPv6 address may end at."""
    number = int(address)
    if address in _NAT64:
        yield IPv4(number & 0xFFFFFFFF)
    if address in _6TO4:
        yield IPv4(number >> 80 & 0xFFFFFFFF)
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        yield IPv4(number & 0xFFFFFFFF)


def address_allowed(text: str, allowed: Sequence[Network]) -> bool:
    """True for a public unicast address, or one in a network that the operator allowed.

    An IPv6 address that stands for an IPv4 one (mapped, 6to4, NAT64 by the well-known prefix, ISATAP) is
    public only where that is; Teredo, IPv4-compatible and local NAT64 addresses never are.
    """
    address = parse(text)
    if isinstance(address, IPv6) and address in _MAPPED:
        address = IPv4(int(address) & 0xFFFFFFFF)
    if address is None:
        return False
    if any(address in network for network in allowed if network.version == address.version):
        return True
    if isinstance(address, IPv4):
        return not any(address in network for network in _SPECIAL_4)
    if not all(address_allowed(str(inner), allowed) for inner in _embedded_addresses(address)):
        return False
    if address in _NAT64:
        return True
    return address in _GLOBAL_6 and not any(address in network for network in _SPECIAL_6)


def neighbourhood(text: str) -> str:
    """Returns the group that an address counts as: its /24 or, with IPv6, its /64. A text that is not an
    address is a group of its own.
    """
    address = parse(text)
    if isinstance(address, IPv6) and address in _MAPPED:
        address = IPv4(int(address) & 0xFFFFFFFF)
    if address is None:
        return text
    if isinstance(address, IPv4):
        return f"{IPv4(int(address) & 0xFFFFFF00)}/24"
    return f"{IPv6(int(address) >> 64 << 64)}/64"


def networks(text: str) -> tuple[str, ...]:
    """Returns the ``neighbourhood`` of an address, and with IPv6 the /48 and the /32 around it: the owner of
    one of those has thousands of /64.
    """
    address = parse(text)
    if not isinstance(address, IPv6) or address in _MAPPED:
        return (neighbourhood(text),)
    number = int(address)
    return tuple(f"{IPv6(number >> 128 - bits << 128 - bits)}/{bits}" for bits in (64, 48, 32))


def network_share(share: int, wider: int, pool: int) -> int:
    """Returns the share that the ``wider``-th of the ``networks`` of an address, from 0, may have of a pool
    of which a neighbourhood may have ``share``: twice as much with each step, and no more than half of the
    pool.
    """
    return share if not wider else max(share, min(share << wider, pool // 2))
