"""Code that shows stored events asks whether they may be shown: every other read is here, with its reason."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import hansa_matrix
import pytest

ROOT = Path(hansa_matrix.__file__).parent
#: Calls that give stored events as they are.
CALLS = {"events_of", "state_events", "view_of", "auth_chain"}
#: Modules in which people and other servers are answered.
ANSWERS = ("client_api", "server_api", "rooms/access", "rooms/directory")

REASONS = {
    "rooms/directory/public_rooms.py _shown_events": "times: whoever answers with the event asks whether it may be read",
    "rooms/access/server_visibility.py _group_allows": "the visibility and memberships, by the real state",
    "rooms/access/server_visibility.py _any_of": "memberships",
    "client_api/rooms/stream_gaps.py gaps_of": "depths",
    "client_api/rooms/earlier_history.py _target_sender": "the sender of a message, if it may be shown",
    "client_api/rooms/earlier_history.py _depth_of": "a depth, and whether it is live",
    "client_api/rooms/earlier_history.py _visibility_at": "the visibility of each, by which the core decides who reads it",
    "client_api/user_directory.py _open_to": "join rules",
    "client_api/rooms/room_summary.py _may_know": "join rules",
    "rooms/access/user_visibility.py was_in": "a membership, of which nothing but the membership is looked at",
    "rooms/access/user_visibility.py filter_bundled": "every event goes through `filter`",
    "rooms/access/user_visibility.py _visible_until": "the depth of a leave",
    "rooms/access/user_visibility.py _state_at": "a visibility and a membership, by the real state",
    "rooms/access/user_visibility.py of_state": "the visibility and a membership: the answer is ids of events given to it",
    "rooms/access/user_visibility.py is_world_readable": "the visibility, by the real state",
    "client_api/rooms/read.py _visible_state": "the state group after a leave",
    "client_api/rooms/readable_rooms.py require_event": "gives the event only if `Visibility` shows it",
    "client_api/rooms/relations.py _lies_behind": "the place of an event, for no answer",
    "client_api/rooms/relations.py _root_shown_at": "a root goes through `of`",
    "client_api/rooms/read.py get_state_event": "an event that `shown_of` gave",
    "client_api/account/upgraded_rooms.py _predecessor_of": "which room replaces which, for no answer",
    "client_api/rooms/room_entry.py _record_remote_join": "a membership",
    "client_api/rooms/client_events.py _membership_after": "a membership",
    "client_api/rooms/send.py _may_redact": "the type and sender of what is to be redacted, for no answer",
    "client_api/sync/devices.py _was_in": "a membership",
    "client_api/sync/devices.py _has_joined": "memberships",
    "client_api/sync/devices.py device_lists": "memberships",
    "client_api/sync/rooms.py _newly_joined": "a membership",
    "client_api/sync/rooms.py _came_and_went": "a membership",
    "client_api/sync/rooms.py _left_room": "a person's own leave, without its words where they may not be read",
    "client_api/sync/timeline.py _state_at_start": "the state group before an event",
    "client_api/sync/rooms.py _room_heroes": "memberships: the answer is user ids",
    "client_api/rooms/pagination.py page_back": "readers give pages to `Visibility`",
    "client_api/rooms/pagination.py page_forward": "readers give pages to `Visibility`",
    "client_api/rooms/pagination.py _page_gap": "readers give pages to `Visibility`",
    "client_api/rooms/pagination.py _page_upwards": "readers give pages to `Visibility`",
    "client_api/rooms/pagination.py _page_by_depth": "readers give pages to `Visibility`",
    "client_api/rooms/pagination.py _stream_start_depth": "a depth",
    "client_api/rooms/receipts.py _set_receipts": "the thread of what is read, for no answer",
    "client_api/rooms/threads.py is_in_thread": "relations, for no answer",
    "client_api/rooms/threads.py find_thread_roots": "relations: the answer is ids of events that the reader may read",
    "client_api/sync/unread_counts.py _join_position": "memberships",
    "client_api/sync/unread_counts.py evaluate_events": "levels, and the reader's own name",
    "client_api/rooms/local_sender.py _levels_of": "levels",
    "client_api/rooms/local_sender.py state_event": "join rules, and what a person's own member event is made of again",
    "server_api/membership.py _make_template": "references",
    "server_api/membership.py _receive_membership": "whether events are known",
    "server_api/membership.py send_join": "goes through `judged` and `wire`",
    "server_api/events.py state": "goes through `judged` and `wire`",
    "server_api/events.py state_ids": "ids",
    "server_api/events.py event_auth": "goes through `judged` and `wire`",
    "server_api/events.py get_missing_events": "the ids before some events",
    "rooms/access/restricted_joins.py find_authoriser": "join rules, levels and a membership",
    "rooms/access/restricted_joins.py _require_allow_rule": "a membership",
    "rooms/directory/room_summaries.py _accessible_summary": "join rules",
    "rooms/directory/room_summaries.py _is_server_invited": "memberships",
}


def reads() -> Iterator[str]:
    for folder in ANSWERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    for call in ast.walk(node):
                        if isinstance(call, ast.Call) and _raw(call.func):
                            yield f"{file.relative_to(ROOT)} {node.name}"


def _raw(function: ast.expr) -> bool:
    if not isinstance(function, ast.Attribute):
        return False
    return function.attr in CALLS or ast.unparse(function).endswith("events.load")


def test_every_read_past_what_may_be_shown_has_a_reason():
    assert set(reads()) == REASONS.keys()


@pytest.mark.parametrize("folder", ANSWERS)
def test_nothing_makes_an_answer_of_the_status_itself(folder):
    """``StoredEvent.shown``, and ``is_shown`` of a row, are the one test of what may be shown."""
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "Status.ACCEPTED"
    ]
    assert found == []


def test_stored_bytes_leave_by_few_functions():
    """``wire`` of an event is what other servers get: made by what redacts the withheld."""
    found = {
        f"{file.relative_to(ROOT)} {function.name}"
        for folder in ("federation", "server_api", "rooms/access", "rooms/directory")
        for file in sorted((ROOT / folder).rglob("*.py"))
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Attribute) and node.attr == "wire"
    }
    assert found == {
        "rooms/access/server_access.py pdu_json",
        "server_api/membership.py send_knock",  # of `shown_of`
        "rooms/access/stored_pdus.py cached",  # None for what is withheld, or judged by other policies
        "rooms/access/stored_pdus.py load",
    }
