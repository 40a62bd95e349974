"""Every write that does not look at what is there: each stands here with the reason why it need not.

``Insert``, ``CompareAndSwap`` and ``Remove`` fail where another writer came between the read and the commit; ``Put`` and
``Delete`` do not, and what the other wrote is lost. A new one fails this test until it says why that is right.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path
    for path in (*(ROOT / "core/hansa").rglob("*.py"), *(ROOT / "plugins").rglob("*.py"))
    if "testing" not in path.parts
)
BLIND = {"Put", "Delete"}
MATRIX = "plugins/matrix/hansa_matrix/"

#: Why a write need not look: each begins with one of these.
KINDS = {
    "guarded": "its batch also compares a row that everybody compares who writes this one",
    "same": "whoever writes this key writes the same",
    "last": "the last word counts, whoever says it: nothing of the one before is kept in it",
    "own": "nobody else has this key: it is new and by chance, or this process's alone",
    "gone": "a removal that is right however often it happens, and whatever the row became",
    "one": "one writer by construction",
    "seam": "it makes no write of its own, but hands one on",
}

#: ``(file, function, write, collection) -> kind: why``.
REASONS = {
    ("core/hansa/app.py", "retry_dead_letters", "Delete", "'dead'"): "gone: what was sent waits no more",
    ("core/hansa/app.py", "drop_dead_letters", "Delete", "'dead'"): "gone: an operator wants it forgotten",
    ("core/hansa/bus/decision_log.py", "note", "Put", "'decision'"): "own: an id by chance",
    (
        "core/hansa/bus/decision_log.py",
        "note",
        "Put",
        "'stranger'",
    ): "own: the tally of this process, by chance",
    ("core/hansa/bus/decision_log.py", "prune", "Delete", "'decision'"): "gone: it is old",
    ("core/hansa/bus/decision_log.py", "prune", "Delete", "'stranger'"): "gone: it is old",
    (
        "core/hansa/bus/delivery.py",
        "_dead_letter",
        "Put",
        "'dead'",
    ): "last: why an event could not be delivered",
    (
        "core/hansa/bus/large_changes.py",
        "_part_write",
        "Put",
        "'membership_log'",
    ): "guarded: the room's row",
    ("core/hansa/bus/large_changes.py", "_part_write", "Put", "'person'"): "guarded: the room's row",
    ("core/hansa/bus/large_changes.py", "_part_write", "Delete", "'person'"): "guarded: the room's row",
    (
        "core/hansa/bus/large_changes.py",
        "_settle_row",
        "Delete",
        "'people_change'",
    ): "guarded: the room's row",
    ("core/hansa/host/chat_commands.py", "_claim", "Delete", "'command'"): "gone: it is old",
    ("core/hansa/bus/large_changes.py", "sweep", "Delete", "'people_change'"): "gone: nobody names it",
    ("core/hansa/bus/rooms.py", "close_link", "Delete", "'link'"): "gone: a link ends once",
    ("core/hansa/bus/rooms.py", "close_link", "Delete", "name"): "gone: with the link",
    ("core/hansa/bus/rooms.py", "_remove_dead_letters", "Delete", "'dead'"): "gone: with the link",
    (
        "core/hansa/bus/rooms.py",
        "_remove_rows_of_ended_links",
        "Delete",
        "collection",
    ): "gone: with the link, and no other is made yet",
    (
        "core/hansa/host/link_members.py",
        "entering_writes",
        "Put",
        "'entering'",
    ): "guarded: the link's row, and a name by chance",
    (
        "core/hansa/host/link_members.py",
        "_bring_in",
        "Delete",
        "'entering'",
    ): "gone: its people have an outcome",
    ("core/hansa/host/link_members.py", "_remove_rows", "Delete", "'entering'"): "gone: the link has ended",
    (
        "core/hansa/bus/media_references.py",
        "media_reference_writes",
        "Put",
        "f'{MEDIA}/reference'",
    ): "own: the event is new",
    (
        "core/hansa/media/cleaning.py",
        "_release_rows",
        "Delete",
        "'reference'",
    ): "gone: an event that was retracted never names the file again",
    ("core/hansa/media/files.py", "_finish_removal", "Delete", "'removal'"): "own: who inserted it",
    ("core/hansa/store/base.py", "with_scope", "Put", "name"): "seam",
    ("core/hansa/store/base.py", "with_scope", "Delete", "name"): "seam",
    (
        "core/hansa/store/health.py",
        "_probe_writes",
        "Put",
        "catalogue.NAME",
    ): "same: whoever asks a disk for room",
    (
        "core/hansa/store/health.py",
        "_probe_writes",
        "Delete",
        "catalogue.NAME",
    ): "gone: in the transaction that wrote it",
    ("core/hansa/store/catalogue.py", "record", "Put", "NAME"): "same: what is declared",
    ("core/hansa/store/catalogue.py", "row", "Put", "NAME"): "one: a copy has its database alone",
    (
        "core/hansa/store/store_copy.py",
        "_end_copy",
        "Delete",
        "catalogue.NAME",
    ): "one: a copy has its database alone",
    ("core/hansa/store/store_copy.py", "_begin_copy", "Put", "_MARK"): "one: a copy has its database alone",
    ("core/hansa/store/store_copy.py", "_end_copy", "Delete", "_MARK"): "one: a copy has its database alone",
    ("core/hansa/store/store_copy.py", "collection", "Put", "name"): "one: a copy has its database alone",
    (
        "core/hansa/store/store_copy.py",
        "_prune_collection",
        "Delete",
        "name",
    ): "one: a copy has its database alone",
    ("core/hansa/store/mongo.py", "declare", "Put", "'schema'"): "one: the holder of the lease",
    ("core/hansa/store/mongo.py", "_migrate_version", "Put", "'schema'"): "one: the holder of the lease",
    ("core/hansa/store/postgres.py", "_version_steps", "Put", "'schema'"): "one: the holder of the lease",
    ("core/hansa/bus/schema.py", "cursor_put", "Put", "'cursor'"): "last: a cursor behind repeats a delivery",
    ("core/hansa/bus/schema.py", "person_put", "Put", "'person'"): "guarded: the room's row",
    ("core/hansa/bus/schema.py", "people_writes", "Delete", "'person'"): "guarded: the room's row",
    (
        "core/hansa/bus/membership_log.py",
        "membership_writes",
        "Put",
        "'membership_log'",
    ): "guarded: the room's row",
    (
        "core/hansa/bus/membership_log.py",
        "visibility_writes",
        "Put",
        "'visibility_log'",
    ): "guarded: the room's row",
    (
        "plugins/xmpp/hansa_xmpp/absences.py",
        "end",
        "Delete",
        "'absence'",
    ): "last: an absence that is noted again begins later",
    (
        "plugins/xmpp/hansa_xmpp/absences.py",
        "list_idle",
        "Put",
        "'uptime'",
    ): "last: it grows, and only the process that has the database counts",
    (
        "core/hansa/bus/presents.py",
        "marks",
        "Put",
        "'unshown'",
    ): "guarded: the room's row",
    ("core/hansa/bus/late_authority.py", "_draft_put", "Put", "'draft'"): "same: the submission as it is",
    ("core/hansa/bus/late_authority.py", "_refuse", "Delete", "'draft'"): "last: a repeat proposes it again",
    ("core/hansa/bus/late_authority.py", "_outcome_of", "Delete", "'draft'"): "last: it was not sent",
    ("core/hansa/bus/late_authority.py", "_sweep", "Delete", "'draft'"): "last: it is too old",
    ("core/hansa/bus/late_authority.py", "draft_end", "Put", "'draft'"): "guarded: the room's row",
    ("core/hansa/bus/event_names.py", "relation_delete", "Delete", "'relation'"): "guarded: the room's row",
    ("core/hansa/bus/event_names.py", "chosen_put", "Put", "'chosen'"): "guarded: the room's row",
    ("core/hansa/bus/event_names.py", "relation_put", "Put", "'relation'"): "guarded: the room's row",
    (
        "core/hansa/bus/durable_observers.py",
        "_put_position",
        "Put",
        "'observed'",
    ): "last: a position behind repeats an event",
    (
        "core/hansa/bus/room_removal.py",
        "remove_room",
        "Delete",
        "collection",
    ): "gone: nothing is linked to the room",
    (
        "core/hansa/bus/room_removal.py",
        "remove_room",
        "Delete",
        "'room'",
    ): "gone: nothing is linked to the room",
    ("core/hansa/bus/schema.py", "event_put", "Put", "'event'"): "guarded: the room's row",
    ("core/hansa/bus/schema.py", "alias_put", "Put", "'alias'"): "same: one native id is one event's",
    (
        f"{MATRIX}client_api/account/accounts.py",
        "create_once",
        "Put",
        "'profile'",
    ): "guarded: the account is inserted",
    (f"{MATRIX}client_api/account/accounts.py", "_delete_tokens", "Delete", "'access_token'"): "gone",
    (f"{MATRIX}client_api/account/accounts.py", "log_out_all", "Delete", "'access_token'"): "gone",
    (
        f"{MATRIX}client_api/account/accounts.py",
        "deactivate_account",
        "Delete",
        "'profile'",
    ): "gone: who wants to be erased",
    (
        f"{MATRIX}client_api/account/accounts.py",
        "finish_deactivation",
        "Delete",
        "'profile'",
    ): "gone: the erased",
    (
        f"{MATRIX}client_api/account/deactivation.py",
        "forget_private",
        "Delete",
        "collection",
    ): "gone: the account is closed",
    (
        f"{MATRIX}client_api/sync/stored_filters.py",
        "add_filter",
        "Delete",
        "'filter'",
    ): "gone: clients make it anew",
    (
        f"{MATRIX}client_api/sync/stored_filters.py",
        "add_filter",
        "Put",
        "'filter'",
    ): "same: the name is its hash",
    (
        f"{MATRIX}client_api/account/last_seen.py",
        "forget_devices",
        "Delete",
        "'last_seen'",
    ): "gone: the device is",
    (
        f"{MATRIX}client_api/account/last_seen.py",
        "save_noted",
        "Put",
        "'last_seen'",
    ): "last: when a device was seen",
    (
        f"{MATRIX}client_api/rooms/reports.py",
        "_store_report",
        "Delete",
        "'report'",
    ): "gone: the oldest of too many",
    (
        f"{MATRIX}client_api/account/registration_tokens.py",
        "_remove_token",
        "Delete",
        "'registration_token'",
    ): "gone: by the operator",
    (
        f"{MATRIX}bounds/bounded_rows.py",
        "oldest_over",
        "Delete",
        "collection",
    ): "gone: the oldest of too many",
    (
        f"{MATRIX}federation/destination_queue.py",
        "_advance_cursor",
        "Delete",
        "'lasting_edu'",
    ): "gone: it was delivered",
    (
        f"{MATRIX}federation/destination_queue.py",
        "cursor_row",
        "Put",
        "'destination'",
    ): "last: a cursor behind sends again",
    (
        f"{MATRIX}federation/sender.py",
        "_stream_writes",
        "Put",
        "'recipients'",
    ): "same: the id is the names' hash",
    (f"{MATRIX}federation/sender.py", "_forget_sets", "Delete", "'recipients'"): "one: the sender",
    (f"{MATRIX}federation/sender.py", "_forget_servers", "Delete", "'destination'"): "one: the sender",
    (f"{MATRIX}federation/sender.py", "_purge_stream", "Delete", "stream"): "gone: everybody has it",
    (
        f"{MATRIX}federation/sender.py",
        "_expired_position",
        "Put",
        "'out_mark'",
    ): "same: how far the stream was at a time",
    (f"{MATRIX}federation/sender.py", "_expired_position", "Delete", "'out_mark'"): "gone: it is old",
    (
        f"{MATRIX}federation/key_store.py",
        "_try_save_keys",
        "Delete",
        "'key'",
    ): "gone: of too many keys the oldest",
    (
        f"{MATRIX}federation/key_store.py",
        "_try_save_keys",
        "Put",
        "'key_document'",
    ): "last: the document that was fetched last",
    (f"{MATRIX}federation/key_store.py", "sweep", "Delete", "'key_document'"): "gone: it can be fetched",
    (f"{MATRIX}federation/key_store.py", "sweep", "Delete", "'key'"): "gone: it can be fetched",
    (
        f"{MATRIX}media/repository.py",
        "_finish_removal",
        "Delete",
        "_REMOVING",
    ): "gone: the bytes are, or somebody has them",
    (f"{MATRIX}local/memberships.py", "membership_writes", "Put", "'stay'"): "guarded: the Matrix room's row",
    (
        f"{MATRIX}local/memberships.py",
        "forget_room",
        "Delete",
        "'left'",
    ): "gone: with the stay that it told of",
    (f"{MATRIX}rooms/room_registry.py", "block", "Put", "'blocked'"): "same: there is nothing in it",
    (f"{MATRIX}rooms/room_registry.py", "unblock", "Delete", "'blocked'"): "gone: by the operator",
    (
        f"{MATRIX}admin/rooms.py",
        "_remove_room_rows",
        "Delete",
        "collection",
    ): "gone: nobody of ours is in the room",
    (
        f"{MATRIX}admin/rooms.py",
        "_remove_room_rows",
        "Delete",
        "'published'",
    ): "guarded: the Matrix room's row is removed",
    (
        f"{MATRIX}rooms/directory/public_rooms.py",
        "publish_write",
        "Put",
        "'published'",
    ): "last: who publishes the room",
    (
        f"{MATRIX}rooms/directory/public_rooms.py",
        "set_published",
        "Delete",
        "'published'",
    ): "gone: by who may",
    (f"{MATRIX}rooms/membership/ended_invites.py", "writes", "Put", "_LEFT"): "last: how an invite ended",
    (f"{MATRIX}rooms/membership/ended_invites.py", "sweep", "Delete", "_LEFT"): "gone: it is old",
    (f"{MATRIX}rooms/event_store.py", "put", "Put", "'pdu'"): "guarded: the Matrix room's row",
    (f"{MATRIX}rooms/state/holes.py", "row", "Put", "'hole'"): "guarded: the Matrix room's row",
    (f"{MATRIX}rooms/state/holes.py", "delete", "Delete", "'hole'"): "gone: it is filled, or forgotten",
    (f"{MATRIX}rooms/inbound/pdu_staging.py", "discard", "Delete", "'staged'"): "gone: by the operator",
    (
        f"{MATRIX}rooms/inbound/pdu_staging.py",
        "_commit_staged",
        "Put",
        "'staged'",
    ): "own: a row of this process's line",
    (f"{MATRIX}rooms/inbound/pdu_staging.py", "_submit_batch", "Delete", "'staged'"): "gone: it is judged",
    (f"{MATRIX}rooms/inbound/pdu_submission.py", "remove_staged", "Delete", "'staged'"): "gone: it is judged",
    (
        f"{MATRIX}local/latest_rows.py",
        "announce_writes",
        "Delete",
        "'news'",
    ): "gone: this process's row, told anew",
    (f"{MATRIX}local/client_stream.py", "purge_topic", "Delete", "'news'"): "gone: with the room",
    (
        f"{MATRIX}rooms/membership/pending_invites.py",
        "keep",
        "Put",
        "'invite'",
    ): "last: an invite takes the earlier one's place",
    (f"{MATRIX}rooms/membership/pending_invites.py", "drop", "Delete", "'invite'"): "gone: it is answered",
    (f"{MATRIX}rooms/redactions.py", "wait", "Put", "'redaction'"): "guarded: the Matrix room's row",
    (f"{MATRIX}rooms/redactions.py", "pop_for", "Delete", "'redaction'"): "guarded: the Matrix room's row",
    (f"{MATRIX}rooms/redactions.py", "original_write", "Put", "'original'"): "guarded: the Matrix room's row",
    (f"{MATRIX}rooms/relations.py", "relation_writes", "Put", "'related'"): "same: there is nothing in it",
    (f"{MATRIX}rooms/relations.py", "relation_writes", "Put", "'relation'"): "guarded: the Matrix room's row",
    (
        f"{MATRIX}rooms/relations.py",
        "remove_relation_writes",
        "Put",
        "'redacted_by'",
    ): "guarded: the Matrix room's row",
    (
        f"{MATRIX}rooms/relations.py",
        "remove_relation_writes",
        "Delete",
        "'relation'",
    ): "guarded: the Matrix room's row",
    (
        f"{MATRIX}rooms/relations.py",
        "_with_room_write",
        "Delete",
        "'relation'",
    ): "one: before the network is open",
    (
        f"{MATRIX}rooms/relations.py",
        "_with_room_write",
        "Put",
        "'relation'",
    ): "one: before the network is open",
    (
        f"{MATRIX}rooms/typing_and_receipts.py",
        "_try_store_receipt",
        "Delete",
        "'receipt'",
    ): "gone: the oldest of too many",
    (f"{MATRIX}retention.py", "purge_expired", "Delete", "collection"): "gone: it is old",
    (f"{MATRIX}retention.py", "_purge_transactions", "Delete", "'txn'"): "gone: it is old",
    (f"{MATRIX}rooms/pdu_receipt.py", "_receive", "Delete", "'staged'"): "gone: it is judged",
    (
        f"{MATRIX}rooms/upgrade/unfinished_upgrades.py",
        "end",
        "Delete",
        "'upgrade'",
    ): "gone: what was begun is done",
    (
        f"{MATRIX}users/key_backups.py",
        "create_version",
        "Delete",
        "'key_backup'",
    ): "guarded: the next number is inserted",
    (
        f"{MATRIX}users/key_backups.py",
        "_remove_all_keys",
        "Delete",
        "'key_backup_key'",
    ): "gone: of a deleted backup",
    (
        f"{MATRIX}users/key_backups.py",
        "_try_add_keys",
        "Put",
        "'key_backup_key'",
    ): "guarded: the backup's row",
    (
        f"{MATRIX}users/key_backups.py",
        "_try_remove_keys",
        "Delete",
        "'key_backup_key'",
    ): "guarded: the backup's row",
    (f"{MATRIX}users/devices.py", "_removal_writes", "Delete", "collection"): "gone: with the device",
    (f"{MATRIX}users/devices.py", "_removal_writes", "Delete", "'to_device'"): "gone: with the device",
    (
        f"{MATRIX}users/devices.py",
        "set_cross_signing",
        "Put",
        "'cross_signing_key'",
    ): "last: whole keys, by who has proven to be that person",
    (
        f"{MATRIX}users/devices.py",
        "_store_user_signature",
        "Put",
        "'vouched'",
    ): "last: one person's signatures, whole",
    (f"{MATRIX}users/openid.py", "user_of_token", "Delete", "'openid'"): "gone: it is too old",
    (
        f"{MATRIX}users/to_device_shares.py",
        "remove_messages",
        "Delete",
        "'to_device'",
    ): "guarded: the row that counts them",
    (
        "plugins/xmpp/hansa_xmpp/occupant_store.py",
        "put",
        "Put",
        "'occupant'",
    ): "one: the component's connection",
    ("plugins/xmpp/hansa_xmpp/occupant_store.py", "remove", "Delete", "'occupant'"): "one: the component's"
    " connection",
    **{
        (
            "plugins/xmpp/hansa_xmpp/foreign_store.py",
            where,
            kind,
            collection,
        ): "one: the component's connection"
        for where, kind, collection in (
            ("put_position", "Put", "'foreign_room'"),
            ("put_puppet", "Put", "'foreign_puppet'"),
            ("forget_room", "Delete", "'foreign_puppet'"),
            ("forget_room", "Delete", "'foreign_room'"),
        )
    },
    (
        "plugins/xmpp/hansa_xmpp/foreign_store.py",
        "put_reflected",
        "Put",
        "'reflected'",
    ): "same: the room's id",
    ("plugins/xmpp/hansa_xmpp/foreign_store.py", "_prune", "Delete", "'reflected'"): "gone: it is too old",
}

Found = tuple[str, str, str, str]


def blind(source: str, name: str) -> Iterator[Found]:
    """``(file, function, write, collection)`` of every write in a source that compares nothing."""

    def within(node: ast.AST, function: str) -> Iterator[Found]:
        for child in ast.iter_child_nodes(node):
            inner = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            if isinstance(child, ast.Call):
                called = ast.unparse(child.func).rpartition(".")[2]
                if called in BLIND:
                    given = [*child.args, *(k.value for k in child.keywords if k.arg == "collection")]
                    yield name, function, called, ast.unparse(given[0]) if given else ""
            yield from within(child, inner)

    yield from within(ast.parse(source), "")


def every() -> Counter[Found]:
    return Counter(
        found
        for path in SOURCES
        for found in blind(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    )


def test_every_write_that_compares_nothing_says_why() -> None:
    found = set(every())
    assert found - REASONS.keys() == set(), "say why it need not look at what is there, or compare"
    assert REASONS.keys() - found == set(), "these are no more"


def test_every_reason_is_of_a_kind() -> None:
    assert {reason.partition(":")[0] for reason in REASONS.values()} <= KINDS.keys()


def test_nobody_gets_a_blind_write_under_another_name() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert all(one.name not in BLIND or one.asname is None for one in node.names), path


@pytest.mark.parametrize(
    "code",
    [
        "async def f(store):\n    row = await store.get('a', ('k',))\n    await store.commit([Put('a', ('k',))])",
        "def f():\n    return [base.Delete('a', k) for k in keys]",
        "def f():\n    return Put(collection='a', key=k)",
        "class C:\n    async def f(self):\n        async def g():\n            return Put('a', k)",
    ],
)
def test_a_blind_write_is_seen(code: str) -> None:
    assert [(w, c) for _, _, w, c in blind(code, "x.py")] in ([("Put", "'a'")], [("Delete", "'a'")])
