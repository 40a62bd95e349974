"""Errors about unreachable servers: users see no addresses, ports or system errors."""

from __future__ import annotations

import re

import pytest
from clients.matrix_server import matrix_server, part
from hansa import Failure, HttpError

AWAY = "away.example"
DETAIL = "192.0.2.77:8448: ConnectionRefusedError(111, 'Connect call failed')"
ROOM = part(f"!room:{AWAY}")

WAYS_OUT = [
    ("GET", f"/profile/{part(f'@somebody:{AWAY}')}", None),
    ("GET", f"/profile/{part(f'@somebody:{AWAY}')}/displayname", None),
    ("GET", f"/directory/room/{part(f'#lobby:{AWAY}')}", None),
    ("GET", f"/publicRooms?server={AWAY}", None),
    ("POST", f"/publicRooms?server={AWAY}", {}),
    ("POST", f"/join/{part(f'#lobby:{AWAY}')}", {}),
    ("POST", f"/join/{ROOM}?server_name={AWAY}&via={AWAY}", {}),
    ("POST", f"/rooms/{ROOM}/join?server_name={AWAY}", {}),
    ("POST", f"/knock/{ROOM}?server_name={AWAY}&via={AWAY}", {}),
    ("POST", "/keys/query", {"device_keys": {f"@somebody:{AWAY}": []}}),
    ("POST", "/keys/claim", {"one_time_keys": {f"@somebody:{AWAY}": {"D": "signed_curve25519"}}}),
    ("GET", f"/_matrix/client/v1/rooms/{ROOM}/hierarchy", None),
    ("GET", f"/_matrix/client/v1/media/download/{AWAY}/abc", None),
    ("GET", f"/_matrix/client/v1/media/thumbnail/{AWAY}/abc?width=32&height=32", None),
    ("GET", f"/_matrix/media/v3/download/{AWAY}/abc", None),
    ("POST", "/createRoom", {"invite": [f"@somebody:{AWAY}"]}),
]


@pytest.mark.parametrize("kind", list(Failure))
def test_the_words_for_a_failure_hold_nothing_else(kind):
    assert str(HttpError(DETAIL, kind)) == kind.value
    assert re.fullmatch(r"[a-z: ]+", kind.value)


async def test_nobody_is_told_more(tmp_path):
    async with matrix_server(tmp_path) as home:
        alice = await home.person("alice")
        home.wire.peer.asked.clear()

        def away(_):
            raise HttpError(DETAIL)

        home.wire.peer.answer = home.wire.peer.keys = away
        led_out = 0
        for method, target, body in WAYS_OUT:
            before = len(home.wire.peer.asked)
            answer = await alice.whole(method, target, body)
            led_out += len(home.wire.peer.asked) > before
            told = answer.body.decode()
            for word in ("192.0.2.77", "8448", "111", "Refused", "rrno", "Connect"):
                assert word not in told, (method, target, told)
        assert led_out >= 12, [r.target for r in home.wire.peer.asked]
