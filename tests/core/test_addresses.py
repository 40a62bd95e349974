"""The SSRF guard: addresses of private networks, in whatever form they are written."""

from __future__ import annotations

import ipaddress

import pytest
from hansa.model.addresses import address_allowed, neighbourhood

REFUSED = [
    # IPv4, private and special
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.0.170",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    # IPv6, private and special
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd12:3456::1",
    "ff02::1",
    "100::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "4000::1",
    "2001:10::1",
    "2001:20::1",
    "2001:2::1",
    # IPv4 within IPv6: mapped
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    # compatible, which nothing routes
    "::127.0.0.1",
    "::10.0.0.1",
    "::8.8.8.8",
    # translated (SIIT)
    "::ffff:0:10.0.0.1",
    # 6to4
    "2002:7f00:1::1",
    "2002:a00:1::1",
    "2002:a9fe:a9fe::1",
    "2002:c0a8:101::1",
    "2002:ac10:1::",
    "2002:6440:1::1",
    # Teredo, whatever is in it
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001::1",
    # NAT64
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::c0a8:101",
    "64:ff9b:1::1",
    "64:ff9b:1:a00:0:100::",
    "64:ff9b:1::8.8.8.8",
    # ISATAP
    "2a00:1450::5efe:10.0.0.1",
    "2a00:1450::200:5efe:192.168.0.1",
    "fe80::5efe:8.8.8.8",
    # one inside the other
    "2002:808:808::5efe:10.0.0.1",
    # no addresses
    "",
    "localhost",
    "2130706433",
    "127.1",
    "0x7f000001",
    "0177.0.0.1",
    "[::1]",
    "8.8.8.8:443",
]

ALLOWED = [
    "8.8.8.8",
    "1.1.1.1",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.0.1",
    "172.32.0.1",
    "192.0.1.1",
    "198.17.0.1",
    "223.255.255.255",
    "2a00:1450:4001:80b::200e",
    "2606:4700:4700::1111",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "2002:808:808::1",
    "64:ff9b::8.8.8.8",
    "2a00:1450::5efe:8.8.8.8",
]


@pytest.mark.parametrize("text", REFUSED)
def test_refused(text):
    assert not address_allowed(text, [])


@pytest.mark.parametrize("text", ALLOWED)
def test_allowed(text):
    assert address_allowed(text, [])


@pytest.mark.parametrize(
    ("text", "network", "expected"),
    [
        ("10.1.2.3", "10.0.0.0/8", True),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("64:ff9b::10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.3.0/24", False),
        ("fd00::1", "fd00::/8", True),
        ("64:ff9b:1::1", "64:ff9b:1::/48", True),
        ("::1", "10.0.0.0/8", False),
    ],
)
def test_what_the_operator_allows(text, network, expected):
    assert address_allowed(text, [ipaddress.ip_network(network)]) is expected


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("8.8.8.8", "8.8.8.0/24"),
        ("::ffff:8.8.8.8", "8.8.8.0/24"),
        ("2a00:1450:4001:80b:1:2:3:4", "2a00:1450:4001:80b::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_neighbours_count_as_one(text, group):
    assert neighbourhood(text) == group
