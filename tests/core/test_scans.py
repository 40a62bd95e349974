"""A search for rows has an end: a caller that needs all rows pages through them (``hansa.pages``,
``scan_all``), and every other search is here, with the reason why it needs no more rows.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import hansa
import hansa_governance
import hansa_matrix
import hansa_xmpp

ROOTS = [Path(module.__file__).parent for module in (hansa, hansa_governance, hansa_matrix, hansa_xmpp)]
#: The stores themselves, and what tests them.
ELSEWHERE = ("hansa/store/", "hansa/testing/")

_DRAINED = "again and again, until nothing is left"
_ONE = "the first one"
_CURSOR = "the next page of a reader who keeps the place"
_BOUNDED = "writers keep no more: "
REASONS = {
    "hansa/bus/decision_log.py _expired_rows": _DRAINED,
    "hansa/bus/decision_log.py newest": "the newest, as many as were asked for",
    "hansa/bus/decision_log.py open": _BOUNDED + "`Retention.strangers`",
    "hansa/bus/delivery.py _next_events": _CURSOR,
    "hansa/admin/deliveries.py _require_event": _ONE,
    "hansa/bus/rooms.py _fill_room": "the last one",
    "hansa/bus/history_reader.py read": _CURSOR,
    "hansa/bus/history_reader.py _first_since": _ONE,
    "hansa/bus/durable_observers.py _events_after": _CURSOR,
    "hansa/bus/event_names.py read": _ONE,
    "hansa/bus/event_names.py native_ids": "the names of one event, of which each network gives a few",
    "hansa_xmpp/absences.py list_idle": _DRAINED,
    "hansa/host/chat_commands.py _claim": "some that are old; each command removes some",
    "hansa/media/cleaning.py release_files": _BOUNDED + "the files that one event can name",
    "hansa/media/cleaning.py sweep_files": _CURSOR,
    "hansa/media/files.py remove_orphan_bytes": _DRAINED,
    "hansa/media/link_keys.py _update_keys": _BOUNDED + "a key for each week, removed after two",
    "hansa_matrix/client_api/account/deactivation.py forget_private": _DRAINED,
    "hansa_matrix/client_api/sync/stored_filters.py add_filter": _BOUNDED
    + "`MOST_OF_USER`; the others go a few at a time",
    "hansa_matrix/client_api/sync/notifications.py get_notifications": "the answer has the token to go on with",
    "hansa_matrix/client_api/rooms/reports.py _store_report": "the oldest one",
    "hansa_matrix/client_api/rooms/reports.py _list_reports": "the last 1,000, as the command says",
    "hansa_matrix/bounds/bounded_rows.py oldest_over": "some that are too many; whoever means all asks again",
    "hansa_matrix/federation/destination_queue.py _rows_after": "what goes into the next transactions; the cursor stays behind it",
    "hansa_matrix/federation/sender.py _first_position": _ONE,
    "hansa_matrix/federation/sender.py delivery_status": "one event of ours is in the stream once for each way out",
    "hansa_matrix/federation/key_store.py _try_save_keys": _BOUNDED + "`MAX_KEYS`, and one more is looked at",
    "hansa_matrix/federation/key_store.py sweep": _BOUNDED + "`MAX_KEYS`",
    "hansa_matrix/media/repository.py _unused_copies": "the first that give way; the next file asks again",
    "hansa_matrix/media/repository.py create_pending": "twice `MAX_PENDING_OF_USER` are refused as too many",
    "hansa_matrix/row_migrations.py _count_device_lists": "whether there is any",
    "hansa_matrix/row_migrations.py complete": _DRAINED,
    "hansa_matrix/admin/rooms.py _remove_room_rows": _DRAINED,
    "hansa_matrix/rooms/directory/public_rooms.py _shown_events": "the neighbours of a place",
    "hansa_matrix/rooms/membership/ended_invites.py sweep": _DRAINED,
    "hansa_matrix/rooms/inbound/pdu_staging.py _stage_numbered": "the last one",
    "hansa_matrix/local/client_stream.py first_items": _CURSOR,
    "hansa_matrix/local/client_stream.py last_items": _CURSOR,
    "hansa_matrix/local/client_stream.py position_of": "an event is told of a few times",
    "hansa_matrix/local/client_stream.py purge_topic": _DRAINED,
    "hansa_matrix/rooms/membership/pending_invites.py _make_room": _BOUNDED + "`MAX_OF_USER`",
    "hansa_matrix/rooms/membership/pending_invites.py _oldest_rows": _ONE,
    "hansa_matrix/rooms/membership/pending_invites.py sweep": _DRAINED,
    "hansa_matrix/rooms/relations.py move": _DRAINED,
    "hansa_matrix/rooms/relations.py page": _CURSOR,
    "hansa_matrix/rooms/typing_and_receipts.py _try_store_receipt": _BOUNDED + "`MAX_THREADS`",
    "hansa_matrix/rooms/state/state_groups.py _read_chain": "a group and some before it; the others are read when they are needed",
    "hansa_matrix/rooms/state/state_groups.py catch_up": "the last one",
    "hansa_matrix/retention.py _purge_transactions": _DRAINED,
    "hansa_matrix/retention.py purge_expired": _DRAINED,
    "hansa_matrix/users/key_backups.py _remove_all_keys": _DRAINED,
    "hansa_matrix/users/key_backups.py _try_remove_keys": _DRAINED,
    "hansa_matrix/users/key_backups.py get_all": _BOUNDED + "`MAX_BACKUPS`",
    "hansa_matrix/users/key_backups.py read_keys": _CURSOR,
    "hansa_matrix/users/devices.py _last_key_index": "the last one",
    "hansa_matrix/users/devices.py _claim_key": _ONE,
    "hansa_matrix/users/devices.py one_time_key_counts": _BOUNDED + "`_MAX_ONE_TIME_KEYS`",
    "hansa_matrix/users/devices.py set_fallback_keys": _BOUNDED + "`MAX_FALLBACK_KEYS`",
    "hansa_matrix/users/devices.py set_once": _BOUNDED + "`MAX_FALLBACK_KEYS`",
    "hansa_matrix/users/devices.py unused_fallback": _BOUNDED + "`MAX_FALLBACK_KEYS`",
    "hansa_matrix/users/to_device.py _remove_page": _DRAINED,
    "hansa_matrix/users/to_device.py queued_messages": "the token of the sync stands before those that are left",
    "hansa_matrix/users/remote_devices.py sweep": _CURSOR,
    "hansa_matrix/users/to_device_shares.py _evict_newest": _ONE,
}


def scans() -> Iterator[str]:
    """``file function``, once for each search in it."""
    for root in ROOTS:
        for file in sorted(root.rglob("*.py")):
            name = f"{root.name}/{file.relative_to(root)}"
            if name.startswith(ELSEWHERE):
                continue
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    for call in ast.walk(node):
                        if isinstance(call, ast.Attribute) and call.attr == "scan":
                            yield f"{name} {node.name}"


def test_every_search_that_ends_has_a_reason() -> None:
    assert sorted(set(scans())) == sorted(REASONS)
