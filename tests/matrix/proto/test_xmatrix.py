"""X-Matrix headers that have to be refused. SPEC: server-server API, "Request Authentication"; RFC 9110."""

from __future__ import annotations

import pytest
from hansa import RemoteProtocolError
from hansa_matrix.proto.xmatrix import parse_header

_GOOD = 'X-Matrix origin="a.example",destination="b.example",key="ed25519:1",sig="c2ln"'


def test_what_is_sent_is_read():
    parsed = parse_header(_GOOD)
    assert (parsed.origin, parsed.destination, parsed.key, parsed.sig) == (
        "a.example",
        "b.example",
        "ed25519:1",
        "c2ln",
    )


@pytest.mark.parametrize(
    "value",
    [
        _GOOD + ',origin="c.example"',
        _GOOD + ',ORIGIN="a.example"',
        _GOOD + ',x="1",X=2',
        _GOOD[:-1],
        _GOOD.replace(",", ";"),
        _GOOD.replace("a.example", "a b"),
        _GOOD.replace("ed25519", "rsa"),
        _GOOD + ',x="' + "y" * 5000 + '"',
        "X-Matrix",
        "Bearer x",
    ],
)
def test_what_is_malformed_is_unauthorized(value):
    with pytest.raises(RemoteProtocolError) as refused:
        parse_header(value)
    assert (refused.value.hint, refused.value.code) == (401, "M_UNAUTHORIZED")
