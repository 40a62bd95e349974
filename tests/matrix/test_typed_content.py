"""State content is read into typed values in one place: every other read of an event's content is here, with its
reason. A peer may put any JSON anywhere, and a reader of its own would forget one kind of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import hansa_matrix
import pytest

ROOT = Path(hansa_matrix.__file__).parent
#: The typed readers.
READERS = (
    "proto/state_content.py",
    "proto/message_content.py",
    "proto/servers/server_acl.py",
    "proto/auth_rules/levels.py",
    "proto/servers/policy_server.py",
)
#: Functions that take a content as a whole, and read no field of it, or by the readers.
TAKERS = {
    "texts_of_event": "every string there is",
    "without_texts": "every string there is",
    "auth_event_keys": "by the readers",
    "content_from_event": "by the readers",
    "relation_of": "listed below",
    "_annotation_key": "listed below",
    "_user_json": "by the readers",
    "_check_shape": "listed below",
    "inherit_power_levels": "listed below",
    "closed_power_levels": "listed below",
    "dict": "a copy, which is sent on as it is",
}
#: Parts of the code whose contents are not state: of EDUs, which have parsers of their own.
ELSEWHERE = ("proto/edus.py", "proto/devices.py", "server_api/edus.py", "federation/durable_edus.py")
_ACCESS = {"get", "items", "keys", "values", "pop", "setdefault"}

EXCEPTIONS = {
    "rooms/content_in_room.py content_of_pdu": "handed to `changed_users`",
    "rooms/local_events.py change_power_levels": "handed to its callers, which read by `level_table` and `level_of`",
    "server_api/invite.py _require_reachable": "compared with true",
    "conversion/from_matrix.py content_from_pdu": "handed to `content_from_event`",
    "conversion/from_matrix.py plain_message": "handed to `_plain_message`, which reads by `string_field`",
    "rooms/outbound_content.py draft_of": "the core's content, and no event of Matrix",
    "conversion/from_matrix.py content_from_event": "whether a key is there",
    "conversion/from_matrix.py _words": "whether a key is there",
    "client_api/account/account_data.py ignored_users": "account data, each step checked",
    "client_api/account/profile.py _set_profile_field": "somebody's own member event, compared and sent on as it is",
    "client_api/rooms/read.py get_state_event": "answered as it is",
    "client_api/rooms/previous_content.py unsigned_fields": "answered as it is",
    "client_api/rooms/client_events.py client_event": "answered as it is, beside what `target_of` reads",
    "client_api/rooms/send.py send_state": "compared, and handed to `check_state`",
    "client_api/rooms/state_rules.py check_state": "what a person here says, each field checked and refused",
    "client_api/rooms/local_sender.py _member_content": "a key is left out",
    "rooms/policy/policy_facts.py facts_of_native": "handed to the readers, and to `texts_of_event`",
    "server_api/membership.py _make_template": "made here",
    "server_api/invite.py exchange": "what another server says, checked and handed to the turn as it is",
    "rooms/directory/room_summaries.py said": "handed to the readers",
    "rooms/directory/room_summaries.py _public_children": "answered as it is",
    "conversion/room_views.py said": "handed to the readers",
    "client_api/rooms/room_summary.py _may_know": "handed to the readers",
    "proto/auth_rules/rules.py _check_create": "rule 1: a wrong type is refused, not read as the default",
    "proto/auth_rules/rules.py redaction_allowed": "compared with an event id",
    "proto/auth_rules/membership.py check_member": "rule 5: what is there, of whatever type, is judged",
    "proto/auth_rules/power_levels.py check_power_levels": "rule 10: what is there, of whatever type, is judged",
    "proto/auth_rules/power_levels.py _check_shape": "rule 10: a wrong type is refused",
    "proto/auth_rules/power_levels.py _scalar_levels": "rule 10: what is there, of whatever type, is judged by `level_of`",
    "proto/auth_rules/power_levels.py _level_entries": "rule 10: an object or nothing",
    "proto/send_join.py parse_make_join": "compared with a membership",
    "proto/pdu.py required_servers": "whether a key is there: the signature rules ask no more",
    "proto/push_rules.py evaluate_rules": "whether a key is there",
    "proto/push_rules.py _rule_matches": "a message's text, its type checked",
    "proto/push_rules.py _condition_matches": "a message's text, its type checked",
    "proto/push_rules.py _event_property": "a path through any JSON, each step checked",
    "proto/redact.py _redact_content": "keys are left out",
    "proto/stripped_state.py stripped_state": "strings are kept, all else is left out",
    "rooms/annotations.py _annotation_key": "an annotation, each step checked",
    "rooms/create_room.py _create_event": "made here",
    "rooms/redactions.py target_of": "the one reader of `redacts`, its type checked",
    "rooms/local_events.py submit_local_event": "the core's own content",
    "rooms/outbound_content.py further_redactions": "the core's own content",
    "rooms/relations.py relation_of": "the one reader of relations, each step checked",
    "rooms/room.py of": "handed to the reader that it was made with",
    "rooms/access/visible_events.py without_names": "whether a key is there",
    "rooms/access/visible_events.py effect_without_texts": "keys are left out",
    "rooms/event_builder.py _build_signed": "what a person here says, moved from one place to another",
    "rooms/upgrade/replacement_room.py successor_template": "handed to the readers, and copied as it is",
    "rooms/upgrade/replacement_room.py _canonical_alias_events": "made here",
}


def _is_content(node: ast.AST) -> bool:
    match node:
        case ast.Attribute(attr="content") | ast.Name(id="content"):
            return True
        case ast.Subscript(slice=ast.Constant(value="content")):
            return True
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value="content"), *_]):
            return True
    return False


class _Module:
    def __init__(self, name: str, source: str) -> None:
        self.name = name
        self.tree = ast.parse(source)
        self.parents = {c: n for n in ast.walk(self.tree) for c in ast.iter_child_nodes(n)}

    def where(self, node: ast.AST) -> str:
        while not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node not in self.parents:
                return f"{self.name} module"
            node = self.parents[node]
        return f"{self.name} {node.name}"

    def handed(self, node: ast.AST) -> str | None:
        """The function that a value is an argument of, as it is or where there is one."""
        parent = self.parents[node]
        while isinstance(parent, ast.IfExp) and node is not parent.test:
            node, parent = parent, self.parents[parent]
        if isinstance(parent, ast.Call) and node in parent.args:
            return (
                parent.func.attr if isinstance(parent.func, ast.Attribute) else getattr(parent.func, "id", "")
            )
        return None


def _functions(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name


def modules() -> Iterator[_Module]:
    for path in sorted(ROOT.rglob("*.py")):
        module = _Module(path.relative_to(ROOT).as_posix(), path.read_text())
        if module.name not in {*READERS, *ELSEWHERE}:
            yield module


def reads(module: _Module, takers: set[str]) -> Iterator[tuple[str, str]]:
    """Where, and what: a field of a content that is read on the spot, and a PDU's content that goes anywhere but
    into a reader.
    """
    for node in ast.walk(module.tree):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in _ACCESS and _is_content(
                value
            ):
                yield module.where(node), ast.unparse(node)
            case ast.Subscript(value=value) if _is_content(value):
                yield module.where(node), ast.unparse(node)
            case ast.Compare(ops=ops, comparators=compared):
                for op, other in zip(ops, compared, strict=True):
                    if isinstance(op, ast.In | ast.NotIn) and _is_content(other):
                        yield module.where(node), ast.unparse(node)
            case ast.Attribute(value=ast.Name(id="inbound")):
                pass  # the core's own content
            case ast.Attribute(attr="content", ctx=ast.Load()) if module.handed(node) not in takers:
                yield module.where(node), ast.unparse(node)


@pytest.mark.parametrize(
    "read",
    [
        "event.content.get('name')",
        "event.content['name']",
        "'name' in content",
        "content['name']",
        "raw['content'].get('name')",
        "raw.get('content').items()",
        "said = event.content",
        "anything(event.content)",
        "join_rule(event.content['x'])",
    ],
)
def test_a_read_elsewhere_is_found(read: str) -> None:
    assert list(reads(_Module("a.py", f"def f():\n    {read}"), {"join_rule"}))


def test_a_reader_is_none() -> None:
    said = "join_rule(event.content if event is not None else None)"
    assert not list(reads(_Module("a.py", f"def f():\n    {said}"), {"join_rule"}))


def test_state_is_read_by_the_typed_readers() -> None:
    takers = {*TAKERS, *(name for reader in READERS for name in _functions(ROOT / reader))}
    found: dict[str, list[str]] = {}
    for module in modules():
        for where, what in reads(module, takers):
            found.setdefault(where, []).append(what)
    assert {where: what for where, what in found.items() if where not in EXCEPTIONS} == {}
    assert EXCEPTIONS.keys() - found.keys() == set()
