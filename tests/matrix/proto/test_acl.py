"""Server ACLs: globs on the host part, whatever its case, and no list that takes long."""

from __future__ import annotations

import fnmatch

import pytest
from cpu_reference import relative_cost
from hansa_matrix.proto.servers.server_acl import parse_acl
from hypothesis import given
from hypothesis import strategies as st

EVERYBODY = {"allow": ["*"]}


@pytest.mark.parametrize(
    ("content", "server", "allowed"),
    [
        (EVERYBODY, "example.org", True),
        ({}, "example.org", False),
        ({"allow": []}, "example.org", False),
        ({"allow": "*"}, "example.org", False),
        ({"allow": [7, None, "*"]}, "example.org", True),
        ({"allow": ["*.org"], "deny": []}, "example.org", True),
        ({"allow": ["*.org"]}, "example.com", False),
        ({"allow": ["*"], "deny": ["*.evil.org"]}, "a.evil.org", False),
        ({"allow": ["*"], "deny": ["*.evil.org"]}, "evil.org", True),
        ({"allow": ["*"], "deny": ["evil.org"]}, "evil.org:8448", False),
        ({"allow": ["*"], "deny": ["EVIL.org"]}, "evil.ORG", False),
        ({"allow": ["*"], "deny": ["evil.???"]}, "evil.org", False),
        ({"allow": ["*"], "deny": ["evil.???"]}, "evil.info", True),
        ({"allow": ["*"], "deny": "evil.org"}, "evil.org", True),
        ({"allow": ["*"], "deny": ["evil.org"]}, "evilxorg", True),
        ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4:80", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "[::1]:80", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "1.2.3.4.org", True),
        ({"allow": ["*"], "allow_ip_literals": "no"}, "1.2.3.4", True),
        ({"allow": ["*"], "deny": ["[2001:db8::*]"]}, "[2001:DB8::5]:1", False),
        ({"allow": ["*"], "deny": ["*"]}, "example.org", False),
    ],
)
def test_who_may_take_part(content, server, allowed):
    assert parse_acl(content).allows(server) is allowed


@given(st.text("ab*?.", max_size=8), st.text("ab.", max_size=8))
def test_a_glob_matches_what_a_shell_would(glob, host):
    assert parse_acl({"allow": [glob]}).allows(host) is fnmatch.fnmatchcase(host, glob)


@pytest.mark.parametrize(
    "globs",
    [
        ["*a" * 120 + "b"],
        ["*" + "?a" * 100 + "*" + "a?" * 20 + "b"],
        ["*a*" * 60 + str(n) for n in range(320)],
        [f"*{n}?" for n in range(9_000)],
    ],
)
def test_no_list_takes_long(globs):
    """CVE-2023-45129: the time is that of reading the event, and does not explode with what is in it."""
    assert sum(map(len, globs)) < 65_536

    def judge() -> None:
        acl = parse_acl({"allow": [*globs, "x"]})
        for _ in range(20):
            assert not acl.allows("a" * 229 + "c")

    assert relative_cost(judge) < 10
