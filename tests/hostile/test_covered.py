"""Every request to another server is in the table of worst answers, or has a reason not to be."""

from __future__ import annotations

import ast
from pathlib import Path

from hostile.cases import ANSWERS

_MATRIX = Path(__file__).parents[2] / "plugins" / "matrix" / "hansa_matrix"
#: Who asks other servers: by the name of what is called, on what is called so.
_CALLS = {"request", "stream", "request_members", "get", "post", "get_unsigned"}
_ASKED_OF = {"client", "_client", "errand", "_errand", "_http", "http"}

#: ``file:function -> what of ANSWERS it reads``; after a dash, why it is in no row.
_WAY = "- the way there, not a reader"
_OPERATOR = "- by an operator's command alone, through the same bounded reader"
TABLE: dict[str, str] = {
    "client_api/rooms/remote_rooms.py:fetch_public_rooms": "public rooms",
    "client_api/rooms/remote_rooms.py:fetch_room": "hierarchy",
    "federation/client.py:_send_to_any_address": _WAY,
    "federation/client.py:get_unsigned": _WAY,
    "federation/client.py:stream": _WAY,
    "admin/doctor.py:_check_keys": _OPERATOR,
    "admin/doctor.py:_check_connection": _OPERATOR,
    "admin/doctor.py:_check_signed_request": _OPERATOR,
    "federation/destination_queue.py:_put_transaction": "transaction",
    "federation/server_discovery.py:_fetch_well_known": "- a well-known document, which needs port 443: tests/matrix/proto has its bounds",
    "federation/keyring.py:_ask_notary": "notary",
    "federation/keyring.py:_fetch_document": "keys",
    "media/remote.py:_download_legacy": "media",
    "media/remote.py:_open_location": "media",
    "media/remote.py:_download_multipart": "media",
    "federation/announce.py:announce_to_peers": "profile",
    "rooms/inbound/bounded_fetch.py:get": _WAY,
    "rooms/inbound/bounded_fetch.py:request_members": _WAY,
    "rooms/inbound/bounded_fetch.py:post": _WAY,
    "rooms/inbound/fetched_events.py:request_pdus": _WAY,
    "rooms/inbound/fetched_events.py:fetch_event": "event",
    "rooms/inbound/fetched_events.py:state_ids": "state ids",
    "rooms/inbound/missing_events.py:_get_missing_events": "missing events",
    "rooms/membership/send_membership.py:send_join": "send_join",
    "rooms/membership/send_membership.py:send_leave": "make_knock",
    "rooms/membership/send_invite.py:_request_signature": "invite",
    "rooms/membership/remote_membership.py:_make_membership": "make_join",
    "rooms/membership/remote_membership.py:knock": "send_knock",
    "rooms/membership/remote_membership.py:resolve": "directory",
    "rooms/inbound/policy_server.py:ensure_signed": "policy",
    "users/key_queries.py:_ask_server": "key query",
    "users/openid.py:verify_token": "- the server whose person asks gives it, to us alone: the same reader as profile",
    "users/profiles.py:get_profile": "profile",
    "users/remote_devices.py:_fetch_list": "devices",
}


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _asking(path: Path) -> set[str]:
    found: set[str] = set()
    for outer in ast.walk(ast.parse(path.read_text())):
        if not isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for node in ast.walk(outer):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in _CALLS
                and _name(node.func.value) in _ASKED_OF
            ):
                found.add(f"{path.relative_to(_MATRIX)}:{outer.name}")
    return found


def test_every_answer_that_is_read_is_in_the_table():
    asking = set().union(*(_asking(path) for path in sorted(_MATRIX.rglob("*.py"))))
    assert asking == set(TABLE), sorted(asking ^ set(TABLE))
    assert {one for one in TABLE.values() if not one.startswith("-")} <= set(ANSWERS)
