"""Everything that makes objects of bytes: what is not bounded before it is parsed stands here, with the reason."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "core/hansa").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
PARSERS = re.compile(
    r"(^|\.)(orjson|json|_json|tomllib|pickle|marshal|yaml|ElementTree|ET|etree|expat|csv|plistlib|ast)"
    r"\.(loads?|fromstring|XML|parse|iterparse|ParserCreate|literal_eval|safe_load|reader|unpackb)$"
)
MODULES = {"json", "orjson", "tomllib", "pickle", "marshal", "yaml", "csv", "plistlib"}
#: Rows of our own store: what is in them was bounded on its way in.
ROW = re.compile(r"^\w+(\[0\])?\.body$")
NOT_ROWS = {"request.body", "answer.body", "response.body", "self.body"}

#: ``(file, what is parsed) -> why nothing hostile is in it, or what bounds it``.
UNBOUNDED = {
    ("core/hansa/model/bounded_json.py", "data"): "the bounded reader itself",
    ("core/hansa/model/bounded_json.py", "data.decode()"): "the bounded reader itself, up to 64 KiB",
    ("core/hansa/bus/large_changes.py", "body"): "a row of ours, 256 KiB and one person",
    ("core/hansa/model/lenient_json.py", "data"): "behind check_limits",
    ("core/hansa/model/lenient_json.py", "token"): "one string or number",
    (
        "core/hansa/model/lenient_json.py",
        "_mend_document(data)",
    ): "behind check_limits, up to what may be mended at once",
    ("plugins/matrix/hansa_matrix/proto/streaming/transactions.py", "body"): "behind check_limits",
    ("core/hansa/bus/membership_log.py", "body"): "a row of the store",
    ("core/hansa/model/codec.py", "body"): "a row of the store",
    ("core/hansa/config/reader.py", "path.read_text(encoding='utf-8')"): "the operator's configuration",
    ("core/hansa/cli/socket_client.py", "config.read_text(encoding='utf-8')"): "the operator's configuration",
    ("core/hansa/cli/plugins.py", "config.read_text(encoding='utf-8')"): "the operator's configuration",
    ("core/hansa/cli/socket_client.py", "answer.read()"): "our own server's answer, over its socket",
    ("core/hansa/admin/api.py", "request.body"): "the operator's request, over a socket of mode 0600",
    ("core/hansa/store/mongo.py", "mark"): "a name of ours in the store",
    (
        "core/hansa/store/sqlite_backup.py",
        "(folder / _MANIFEST).read_text(encoding='utf-8')",
    ): "a backup that the operator restores",
    (
        "plugins/matrix/hansa_matrix/proto/streaming/json_stream.py",
        "b'[%b]' % self.raw",
    ): "pieces of 256 KiB at the most",
    ("plugins/matrix/hansa_matrix/proto/streaming/json_stream.py", "self._key"): "one string",
    (
        "plugins/matrix/hansa_matrix/proto/streaming/packed_pdus.py",
        "self._wire",
    ): "the canonical form of an event that was read",
    ("plugins/matrix/hansa_matrix/proto/pdu.py", "wire"): "a row of the store",
    (
        "plugins/matrix/hansa_matrix/client_api/sync/filters.py",
        "text",
    ): "a part of a request target, 8 KiB at the most",
    ("plugins/matrix/hansa_matrix/client_api/account/account_data.py", "found"): "a row of the store",
    ("plugins/matrix/hansa_matrix/admin/events.py", "arguments['content']"): "the operator's command",
    ("plugins/matrix/hansa_matrix/rooms/room.py", "body"): "a row of the store",
    ("plugins/matrix/hansa_matrix/users/devices.py", "body"): "a row of the store",
    (
        "plugins/matrix/hansa_matrix/media/image_process.py",
        "await process.stdout.readline()",
    ): "a line of the process that makes pictures smaller, which the stream's limit bounds",
    (
        "plugins/matrix/hansa_matrix/media/image_worker.py",
        "line",
    ): "a line of the process that asks for pictures",
    ("plugins/xmpp/hansa_xmpp/proto/parse.py", "'UTF-8'"): "the bounded parser of stanzas itself",
}


def calls(path: Path) -> Iterator[tuple[str, str]]:
    """``(file, what is parsed)`` of every call of a parser that knows no bounds."""
    name = str(path.relative_to(ROOT))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and PARSERS.search(ast.unparse(node.func)):
            first = ast.unparse(node.args[0]) if node.args else ""
            if first in NOT_ROWS or not ROW.match(first):
                yield name, first


def test_what_is_parsed_without_bounds_is_listed_and_nothing_else() -> None:
    """A new parser of bytes from outside goes through ``hansa.model.bounded_json``, or says why not here."""
    assert {found for path in SOURCES for found in calls(path)} == set(UNBOUNDED)


def test_nobody_gets_a_parser_under_another_name() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in MODULES:
                assert {one.name for one in node.names} <= {"Fragment"}, path
            if isinstance(node, ast.Import):
                assert all(one.name not in MODULES or one.asname is None for one in node.names), path


@pytest.mark.parametrize(
    "code",
    [
        "orjson.loads(request.body)",
        "json.loads(data)",
        "ElementTree.fromstring(text)",
        "pickle.loads(row.data)",
        "expat.ParserCreate()",
    ],
)
def test_the_list_sees_a_new_parser(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "new.py").write_text(code)
    assert list(calls(tmp_path / "new.py"))
